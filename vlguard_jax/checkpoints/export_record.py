"""checkpoint.json of an exported model. The folder may come from others, so everything in it is checked here."""

from __future__ import annotations

from collections.abc import Mapping
import dataclasses
import math
import pathlib
import re
from typing import Any, cast

from vlguard_jax import errors
from vlguard_jax import fields
from vlguard_jax import files
from vlguard_jax import limits
from vlguard_jax.checkpoints import checkpoint
from vlguard_jax.checkpoints import header
from vlguard_jax.checkpoints import layouts
from vlguard_jax.checkpoints import vocabulary
from vlguard_jax.families import extras as extras_lib
from vlguard_jax.families import family
from vlguard_jax.families import table
from vlguard_jax.families.blocks import configs
from vlguard_jax.families.blocks import stored

RECORD = "checkpoint.json"
UNSTORED = ("padding", "note", "unused")  # of `extras_lib.Extras`
_SHA256 = re.compile(r"[0-9a-f]{64}")
_STORED: dict[str, Any] = {  # types of the values of `extras_lib.Extras`, except those of `UNSTORED`
    **dict.fromkeys(("config", "generation_config", "adapter_config", "provenance"), dict),
    "preprocessor": dict | None,
    **dict.fromkeys(("kind", "vision_tower", "source"), str),
}


@dataclasses.dataclass(frozen=True)
class Record:
    """What an exported model records about itself.

    arrays: {tree path: digest} of exactly the arrays that `config` and `lora` imply. weights_sha256: made from them.
    """

    config: family.Config
    lora: configs.LoraConfig | None
    arrays: Mapping[str, str]
    weights_sha256: str
    base: checkpoint.Base | None
    extras: extras_lib.Extras
    format_version: int


def read(folder: pathlib.Path) -> Record:
    """The record of an exported model.

    Raises:
      UserError: broken, another format version, a value of another type or out of range, arrays or a hash that do not
        fit the rest, or an id without a row (vocabulary.py).
    """
    where = str(folder / RECORD)
    record = files.read_object(where)
    header.check(record, where)
    if record.get("kind") != "model":
        raise errors.UserError(f"{where}: kind is {errors.short(record.get('kind'))}, an exported model was expected")
    found = fields.Fields(record, where)
    config = table.named(found.text("family"), where).from_record(found.part("config"))
    lora = stored.lora(found.part("lora")) if record.get("lora") is not None else None
    arrays, shapes = found.part("arrays").values, layouts.tree_shapes(config, lora)
    if sum(map(math.prod, shapes.values())) > limits.PARAMETERS:
        raise errors.UserError(f"{where}: a model of more than {limits.PARAMETERS:,} parameters; get the folder again")
    for path in sorted(arrays.keys() ^ shapes.keys()):
        how = "is missing in its arrays" if path in shapes else "does not belong to a model of its sizes"
        raise errors.UserError(f"{where}: array {errors.short(path)} {how}; export the model again")
    for path, digest in arrays.items():
        if not isinstance(digest, str) or not _SHA256.fullmatch(digest):
            raise errors.UserError(f"{where}: the hash of {path} is {errors.short(digest)}; get the folder again")
    sha256 = found.text("weights_sha256")
    if sha256 != checkpoint.combine(arrays):
        raise errors.UserError(
            f"{where}: weights_sha256 {errors.short(sha256)} is not that of its arrays; export the model again"
        )
    extras = _extras(found.part("extras"))
    vocabulary.check(folder, config.text.vocab_size, extras)
    return Record(config, lora, arrays, sha256, _base(found.part("base")), extras, record["format_version"])


def _base(found: fields.Fields) -> checkpoint.Base | None:
    if not found.values:
        return None
    stored.only(found, checkpoint.Base)
    return checkpoint.Base(found.text("name"), found.text("layout"), found.text("sha256"))


def _extras(found: fields.Fields) -> extras_lib.Extras:
    for key, value in found.values.items():
        if key not in _STORED or not isinstance(value, _STORED[key]):
            raise errors.UserError(
                f"{found.where}: extras: {errors.short(key)} is {files.kind(value)}; export the model again"
            )
        if isinstance(value, str):
            found.text(key)
    for part in ("text_config", "vision_config", family.PROVENANCE):
        found.part("config").part(part)
    found.part("provenance").flag("stand_in")
    return cast(extras_lib.Extras, dict(found.values))

"""A golden folder: what another program's model made of a few prompts, to compare a checkpoint with where that program
is not installed.

golden.json says what was asked of which files with which versions; golden.safetensors holds the arrays. Nothing in them
is executed, and every size is checked before it is used.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
import dataclasses
import hashlib
import json
import pathlib
from typing import Annotated, Any

import numpy as np

from vlguard_jax import errors
from vlguard_jax import files
from vlguard_jax import folders
from vlguard_jax import limits
from vlguard_jax import ranges
from vlguard_jax import typed
from vlguard_jax import types
from vlguard_jax.checkpoints import tensors

SCHEMA = 1
RECORD, ARRAYS = "golden.json", "golden.safetensors"
_WAY = "make the folder again with verify --make_golden"
_Size = Annotated[int, ranges.Range(1, limits.MODEL_SIZE)]


@dataclasses.dataclass(frozen=True)
class File:
    """Of the folder that the answers were made from."""

    bytes: typed.Count
    sha256: typed.Name


@dataclasses.dataclass(frozen=True)
class Asked:
    """A prompt. text: as the folder's chat template wrote it where `templated`; answer: decoded, special tokens left
    out."""

    name: typed.Name
    question: typed.Name
    pictures: Annotated[int, ranges.Range(0, 1)]
    templated: bool
    text: typed.Name
    answer: typed.Name


@dataclasses.dataclass(frozen=True)
class Record:
    """golden.json. rows: of the vocabulary, without those that the folder adds; stops: ids that end an answer; least:
    tokens before one may."""

    schema: Annotated[int, ranges.Range(SCHEMA, SCHEMA)]
    source: typed.Name
    model: typed.Name
    rows: _Size
    stops: list[Annotated[int, ranges.Range(0, limits.MODEL_SIZE)]]
    versions: Mapping[str, typed.Name]
    files: Mapping[str, File]
    prompts: list[Asked]
    arrays_sha256: typed.Name


@dataclasses.dataclass(frozen=True)
class Answer:
    """What was made of a prompt.

    picture: u8[H, W, 3]. ids: i32[n], IMAGE_TOKEN for a picture. pixels: f32[units, 3, S, S], normalised. features:
    f32[slots, D], projected; None where they are not comparable. answer: i32[c], greedy. logits: f32[k + c, V], after
    the last k + 1 tokens of the prompt and each token of the answer but its last. margins: f32[c], of the best logit
    over the second.
    """

    asked: Asked
    ids: np.ndarray
    answer: np.ndarray
    logits: np.ndarray
    margins: np.ndarray
    picture: np.ndarray | None = None
    pixels: np.ndarray | None = None
    features: np.ndarray | None = None


@dataclasses.dataclass(frozen=True)
class Golden:
    """A folder that was read."""

    record: Record
    answers: Sequence[Answer]


_KINDS = {  # name -> dtype, dimensions
    "ids": (np.int32, 1),
    "answer": (np.int32, 1),
    "logits": (np.float32, 2),
    "margins": (np.float32, 1),
    "picture": (np.uint8, 3),
    "pixels": (np.float32, 4),
    "features": (np.float32, 2),
}
_OPTIONAL = ("picture", "pixels", "features")


def write(folder: pathlib.Path, answers: Sequence[Answer], **told: Any) -> None:
    """Write a new golden folder. told: the other fields of `Record`.

    Raises:
      UserError: there is something at this place, or it cannot be written.
    """
    from safetensors import numpy as safetensors_numpy

    arrays = {
        f"{one.asked.name}/{kind}": np.ascontiguousarray(value, _KINDS[kind][0])
        for one in answers
        for kind in _KINDS
        if (value := getattr(one, kind)) is not None
    }
    if folder.exists():
        raise errors.UserError(f"{folder} is there already; remove it, or name another folder")
    with folders.new_folder(folder) as made:
        safetensors_numpy.save_file(arrays, made / ARRAYS)
        record = {
            "schema": SCHEMA,
            **told,
            "prompts": [dataclasses.asdict(one.asked) for one in answers],
            "arrays_sha256": digest(made / ARRAYS),
        }
        (made / RECORD).write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


def read(folder: pathlib.Path) -> Golden:
    """Read a golden folder.

    Raises:
      UserError: a file is missing, damaged, too large, or does not say what `write` says.
    """
    where = folder / RECORD
    record = typed.make(Record, files.read_object(where), str(where), _WAY)
    path = folder / ARRAYS
    if not path.is_file():
        raise errors.UserError(f"{path}: no such file beside {RECORD}; {_WAY}")
    if (size := path.stat().st_size) > limits.GOLDEN_BYTES:
        raise errors.UserError(f"{path}: {size:,} bytes, at most {limits.GOLDEN_BYTES:,} are read; {_WAY}")
    if digest(path) != record.arrays_sha256:
        raise errors.UserError(f"{path} is not the file that {RECORD} was written with (sha256); {_WAY}")
    found = tensors.open_file(path)
    names = {one.name for one in record.prompts}
    if len(names) != len(record.prompts) or not names:
        raise errors.UserError(f"{where}: no prompts, or two of one name; {_WAY}")
    if odd := sorted(name for name in found if name.rpartition("/")[0] not in names):
        raise errors.UserError(f"{path}: array {errors.short(odd[0])} is of no prompt; {_WAY}")
    return Golden(record, tuple(_answer(one, record, found, path) for one in record.prompts))


def _answer(asked: Asked, record: Record, found: Mapping[str, tensors.Tensor], path: pathlib.Path) -> Answer:
    arrays: dict[str, np.ndarray] = {}
    for kind, (dtype, dimensions) in _KINDS.items():
        tensor = found.get(f"{asked.name}/{kind}")
        if tensor is None and kind in _OPTIONAL:
            continue
        if tensor is None or tensor.dtype != dtype or len(tensor.shape) != dimensions or 0 in tensor.shape:
            what = "missing" if tensor is None else f"{tensor.dtype}{list(tensor.shape)}"
            raise errors.UserError(f"{path}: array {asked.name}/{kind} is {what}; {_WAY}")
        arrays[kind] = tensor.read()
        if tensor.dtype == np.float32 and not np.isfinite(arrays[kind]).all():
            raise errors.UserError(f"{path}: array {asked.name}/{kind} holds NaN or an infinity; {_WAY}")
    ids, answer, shown = arrays["ids"], arrays["answer"], arrays.get("picture")
    text = ids[ids != types.IMAGE_TOKEN]
    fits = (
        arrays["logits"].shape[1] == record.rows
        and len(answer) == len(arrays["margins"]) <= len(arrays["logits"])
        and ((answer >= 0) & (answer < record.rows)).all()
        and ((text >= 0) & (text < record.rows)).all()
        and len(ids) - len(text) == asked.pictures
        and (shown is not None) == (arrays.get("pixels") is not None) == bool(asked.pictures)
        and (shown is None or (shown.shape[2] == 3 and max(shown.shape) <= limits.PICTURE_SIDE))
        and (asked.pictures or "features" not in arrays)
    )
    if not fits:
        raise errors.UserError(f"{path}: the arrays of {errors.short(asked.name)} do not belong together; {_WAY}")
    return Answer(asked, **arrays)


def digest(path: pathlib.Path) -> str:
    """sha256 of a file."""
    with files.opened(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def hashes(folder: pathlib.Path) -> dict[str, dict[str, Any]]:
    """Size and sha256 of every file of a folder, by name."""
    return {
        str(path.relative_to(folder)): {"bytes": path.stat().st_size, "sha256": digest(path)}
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not any(part.startswith(".") for part in path.relative_to(folder).parts)
    }

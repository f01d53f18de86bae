"""The format of checkpoints: what the training store and exported models write beside the arrays.

Arrays are nested plain dicts in Orbax, with one JSON record beside them: format version, layout-table version,
checksums of the arrays where they are known, library versions, and what the caller adds (config and its hash, base
fingerprint, step).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from vlguard_jax import errors
from vlguard_jax import versions
from vlguard_jax.families import parameters

FORMAT_VERSION = 2


def current() -> dict[str, Any]:
    """The part of the record that does not depend on what is saved."""
    formats = {"format_version": FORMAT_VERSION, "layout_version": parameters.LAYOUT_VERSION}
    return {**formats, "versions": versions.installed()}


def check(record: Mapping[str, Any], where: str) -> None:
    """Raise UserError if the record was written in another format."""
    for key, ours in (("format_version", FORMAT_VERSION), ("layout_version", parameters.LAYOUT_VERSION)):
        if record.get(key) != ours:
            hint = "use the version of vlguard_jax that wrote it to convert it to llava or hf"
            raise errors.UserError(f"{where}: {key} is {record.get(key)!r}, this program reads {ours}; {hint}")

"""Plans that took long are kept, so that a resumed run begins at once. A plan is found again by everything that decides it."""

from __future__ import annotations

import dataclasses
import hashlib
import io
import json
import pathlib
from typing import Any
import zipfile

from jaxtyping import Int32, Int64
import numpy as np

from vlguard_jax import config
from vlguard_jax.data import file_index
from vlguard_jax.data import index as index_lib

VERSION = 1  # of the planner's results; a change of any of them makes old plans unread
UNDECISIVE = (
    "sources",
    "cache",
    "check_pictures",
    "read_threads",
    "read_workers",
    "prefetch_mib",
    "on_bad_record",
    "on_mismatch",
    "on_empty_group",
)


@dataclasses.dataclass(frozen=True)
class Kept:
    """samples: of every step, -1 where there is none. row: each sample's row. which: each step's shape. shapes: (rows, row_len,
    pictures) of each shape."""

    samples: Int64[np.ndarray, "s b"]
    row: Int32[np.ndarray, "s b"]
    which: Int32[np.ndarray, " s"]
    shapes: Int64[np.ndarray, "k 3"]


def key(index: index_lib.SampleIndex, data: config.DataSettings, *more: Any) -> str:
    """Hash of everything that decides a plan: lengths, settings, and `more` (seed, layout, epochs, a replay)."""
    settings = {name: value for name, value in dataclasses.asdict(data).items() if name not in UNDECISIVE}
    digest = hashlib.sha256(json.dumps([VERSION, settings, more]).encode())
    for counts in (index.length, index.pictures, index.modality_length):
        digest.update(np.ascontiguousarray(counts).tobytes())
    return digest.hexdigest()


def load(cache: pathlib.Path, name: str) -> Kept | None:
    """The plan of that key, None if it is not there whole."""
    try:
        with np.load(cache / "plans" / f"{name}.npz") as arrays:
            return Kept(**arrays)
    except (OSError, ValueError, TypeError, zipfile.BadZipFile):
        return None


def save(cache: pathlib.Path, name: str, kept: Kept) -> None:
    """Keep a plan."""
    buffer = io.BytesIO()
    np.savez(buffer, **{field.name: getattr(kept, field.name) for field in dataclasses.fields(kept)})
    file_index.write_beside(cache / "plans" / f"{name}.npz", buffer.getvalue())

"""Caches plans that took long, so that a resumed run starts at once.

The key of a plan is a hash of everything that determines it.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import pathlib
from typing import Any

from jaxtyping import Int32, Int64
import numpy as np

from vlguard_jax import config
from vlguard_jax.data import cache as cache_lib
from vlguard_jax.data import index as index_lib

VERSION = 4  # of the planner's results; if any of them changes, old plans are not read
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
    """samples: of every step, -1 where there is none. row: each sample's row. which: index of each step's shape.
    shapes: (rows, row_len, units, slots) of each shape."""

    samples: Int64[np.ndarray, "s b"]
    row: Int32[np.ndarray, "s b"]
    which: Int32[np.ndarray, " s"]
    shapes: Int64[np.ndarray, "k 4"]


def key(index: index_lib.SampleIndex, data: config.DataSettings, *more: Any) -> str:
    """Hash of everything that determines a plan: lengths, settings, and `more` (seed, layout, epochs, a replay)."""
    settings = {name: value for name, value in dataclasses.asdict(data).items() if name not in UNDECISIVE}
    digest = hashlib.sha256(json.dumps([VERSION, settings, more]).encode())
    for counts in (index.length, index.units, index.slots, index.modality_length):
        digest.update(np.ascontiguousarray(counts).tobytes())
    return digest.hexdigest()


def load(cache: pathlib.Path, name: str, samples: int) -> Kept | None:
    """The plan with this key, over `samples` samples; None if it is missing or damaged."""
    found = cache_lib.load_arrays(cache, "plans", name) or {}
    if set(found) != {field.name for field in dataclasses.fields(Kept)}:
        return None
    dims = {"samples": (np.int64, 2), "row": (np.int32, 2), "which": (np.int32, 1), "shapes": (np.int64, 2)}
    if any((found[part].dtype, found[part].ndim) != (np.dtype(kind), n) for part, (kind, n) in dims.items()):
        return None
    kept = Kept(**found)
    fits = (
        kept.samples.shape == kept.row.shape
        and len(kept.which) == len(kept.samples) > 0
        and kept.shapes.shape[1:] == (4,)
    )
    return kept if fits and _within(kept.samples, -1, samples) and _within(kept.which, 0, len(kept.shapes)) else None


def save(cache: pathlib.Path, name: str, kept: Kept) -> None:
    """Store a plan."""
    cache_lib.save_arrays(
        cache, "plans", name, {field.name: getattr(kept, field.name) for field in dataclasses.fields(kept)}
    )


def _within(numbers: np.ndarray, low: int, high: int) -> bool:
    return bool(numbers.size and numbers.min() >= low and numbers.max() < high)

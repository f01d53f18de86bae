"""Golden folders made by hand, of no model."""

from __future__ import annotations

import pathlib

import numpy as np

from vlguard_jax import types
from vlguard_jax.verifying import golden

ROWS = 12


def answers() -> list[golden.Answer]:
    """One prompt with a picture and one without."""
    rng = np.random.default_rng(0)

    def floats(*shape: int) -> np.ndarray:
        return rng.standard_normal(shape).astype(np.float32)

    ids = np.asarray([1, types.IMAGE_TOKEN, 5, 7], np.int32)
    answer = np.asarray([3, 4], np.int32)
    shown = golden.Asked("shown", "What is it?", 1, True, "<s>USER", "a cup")
    text = golden.Asked("text", "Name a colour.", 0, False, "USER", "red")
    return [
        golden.Answer(
            shown,
            ids,
            answer,
            floats(4, ROWS),
            np.ones(2, np.float32),
            rng.integers(0, 256, (9, 7, 3), dtype=np.uint8),
            floats(1, 3, 4, 4),
            floats(4, 6),
        ),
        golden.Answer(text, ids[[0, 2, 3]], answer, floats(3, ROWS), np.ones(2, np.float32)),
    ]


def write(folder: pathlib.Path, made: list[golden.Answer] | None = None) -> pathlib.Path:
    """A golden folder."""
    golden.write(
        folder,
        answers() if made is None else made,
        source="owner/name",
        model="LlavaForConditionalGeneration",
        rows=ROWS,
        stops=[2],
        versions={"torch": "1"},
        files={"config.json": {"bytes": 2, "sha256": "0" * 64}},
    )
    return folder

"""The golden folder of a LLaVA-NeXT with random weights; LLaVA's is in tests/golden."""

from __future__ import annotations

import pathlib

import pytest

from tests.training import stand
from vlguard_jax.checkpoints import load
from vlguard_jax.checkpoints import save
from vlguard_jax.families.chat import jinja_template
from vlguard_jax.verifying import compare
from vlguard_jax.verifying import hugging_face

pytest.importorskip("torch")
pytestmark = pytest.mark.parity  # with what the models compile


def _stages(source: pathlib.Path, model: pathlib.Path, folder: pathlib.Path) -> dict[str, compare.Stage]:
    made = hugging_face.make(str(source), folder)
    return {one.name: one for one in compare.compare(load.load(model), made, "fp32", jinja_template.DATE)}


def test_tiles(tmp_path: pathlib.Path) -> None:
    """The tall picture is one whose columns Pillow 13 would resize first."""
    start = stand.folder() / stand.MODELS["llava_next"]
    save.save_hf(load.load(start), tmp_path / "hf")
    stages = _stages(tmp_path / "hf", start, tmp_path / "golden")
    assert all(stages[name].holds for name in ("pixels", "logits", "answers")), stages

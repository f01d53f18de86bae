"""A model's name in tables."""

from __future__ import annotations

import pathlib

import pytest

from vlguard_jax.safety import from_checkpoint


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("runs/posthoc/model", "posthoc"),
        ("runs/posthoc/model/", "posthoc"),
        ("runs/posthoc/best", "posthoc (best)"),
        ("runs/posthoc/hf", "hf"),
        ("model", "model"),
        ("owner/model", "model"),  # of the hub
    ],
)
def test_a_training_s_model_has_the_name_of_its_run(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, path: str, name: str
) -> None:
    """Or all of them were called "model"."""
    monkeypatch.chdir(tmp_path)
    for folder in ("runs/posthoc/model", "runs/posthoc/best", "runs/posthoc/hf", "model"):
        pathlib.Path(folder).mkdir(parents=True)
    assert from_checkpoint.named(path) == name

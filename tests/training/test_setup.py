"""Where a run starts: adapters that are there go on with the settings that they were made with."""

from __future__ import annotations

import dataclasses
import pathlib

import numpy as np
import pytest

from tests.training import stand
from vlguard_jax import errors
from vlguard_jax import trees
from vlguard_jax.checkpoints import layouts
from vlguard_jax.checkpoints import load
from vlguard_jax.checkpoints import save_adapters
from vlguard_jax.families.blocks import configs
from vlguard_jax.training import setup


def test_adapters_go_on_with_their_own_scale(tmp_path: pathlib.Path) -> None:
    """That of rsLoRA is no round number, so it is asked for with the digits that a message shows."""
    made = configs.LoraConfig(2, 6 * 2**0.5, 0.1, ("q_proj",))
    model = load.load(stand.folder() / "init")
    flat = trees.flatten(model.params)
    for path, shape in layouts.tree_shapes(model.config, made).items():
        flat.setdefault(path, np.ones(shape, np.float32))
    adapted = dataclasses.replace(model, params=trees.unflatten(flat), lora=made)
    save_adapters.save_peft(adapted, tmp_path / "lora")

    def start(alpha: float) -> configs.LoraConfig | None:
        settings = stand.settings(lora={"rank": 2, "alpha": alpha, "dropout": 0.3})
        named = dataclasses.replace(settings.model, path=str(tmp_path / "lora"))
        return setup.load_model(dataclasses.replace(settings, model=named)).lora

    with pytest.raises(
        errors.UserError,
        match=r"has adapters of rank 2, alpha 8\.48528; config\.lora asks for 2, 9: set .*alpha=8\.48528$",
    ):
        start(9.0)
    assert start(8.48528) == dataclasses.replace(made, dropout=0.3)

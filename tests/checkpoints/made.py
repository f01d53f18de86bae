"""A small random model in our own tree, that comes from nowhere."""

from __future__ import annotations

import dataclasses
import pathlib

import numpy as np

from vlguard_jax import trees
from vlguard_jax.checkpoints import checkpoint
from vlguard_jax.checkpoints import layouts
from vlguard_jax.families.blocks import configs
from vlguard_jax.families.llava import config as llava_config

TEXT = configs.TextConfig(100, 8, 2, 2, 1, 4, 12, 1e-5, 1e4)
VISION = configs.VisionConfig(4, 2, 6, 3, 2, 10, 1e-5, "gelu", image_mean=(0.5, 0.4, 0.3))
CONFIG = llava_config.LlavaConfig(TEXT, VISION, "mlp2x_gelu")
LORA = configs.LoraConfig(2, 6.0, 0.1, ("q_proj", "down_proj"))


def model(lora: configs.LoraConfig | None = None, vocab_size: int = 100, **changes: object) -> checkpoint.Checkpoint:
    """A random model that comes from nowhere, as a new one does; with adapters it stands on the one without."""
    config = dataclasses.replace(CONFIG, text=dataclasses.replace(TEXT, vocab_size=vocab_size))
    rng = np.random.default_rng(0)
    shapes = layouts.tree_shapes(config) | layouts.tree_shapes(config, lora)
    flat = {path: rng.normal(size=shape).astype(np.float32) for path, shape in shapes.items()}
    params = trees.unflatten(flat)
    made = checkpoint.Checkpoint(config, params, lora, pathlib.Path("no tokenizer"), checkpoint.fingerprint(params))
    return dataclasses.replace(made, **changes)  # type: ignore[arg-type]


def on(name: str, layout: str = "llava") -> checkpoint.Base:
    """The base that `model` stands on, under a name."""
    flat = trees.flatten(model().params)
    digests = {path: checkpoint.digest(path, value) for path, value in flat.items()}
    return checkpoint.Base(name, layout, checkpoint.base_fingerprint(digests, CONFIG, None))

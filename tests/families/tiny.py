"""A tiny model and batch for tests of the model code."""

import jax
import jax.numpy as jnp
import numpy as np

from vlguard_jax import types
from vlguard_jax.families import family
from vlguard_jax.families import functional
from vlguard_jax.families.blocks import configs
from vlguard_jax.families.llama import config as llama_config
from vlguard_jax.families.llava import config as llava_config

CONFIG = llava_config.LlavaConfig(
    text=configs.TextConfig(
        vocab_size=50,
        width=32,
        num_layers=2,
        num_heads=4,
        num_kv_heads=2,
        head_width=8,
        mlp_width=48,
        norm_eps=1e-5,
        rope_theta=10000.0,
    ),
    vision=configs.VisionConfig(
        image_size=24,
        patch_size=12,
        width=16,
        num_layers=3,
        num_heads=2,
        mlp_width=24,
        norm_eps=1e-5,
        activation="quick_gelu",
    ),
    projector="mlp2x_gelu",
)
TEXT_ONLY = llama_config.LlamaConfig(CONFIG.text)


def random_params(model: functional.Model, seed: int = 0) -> functional.Params:
    """Every leaf random and large enough to matter, also norms, biases and B of adapters."""
    rng = np.random.default_rng(seed)
    return jax.tree.map(lambda x: jnp.asarray(0.3 * rng.standard_normal(x.shape), x.dtype), model.shapes())


def batch(config: family.Config, rows: int = 2, length: int = 20, seed: int = 0) -> types.Batch:
    """Rows of random ids, each with one picture (if the model sees) after its third token, right-padded by a different
    amount."""
    rng = np.random.default_rng(seed)
    vision = getattr(config, "vision", None)
    patches = vision.num_patches if vision else 0
    slot = np.full((rows, length), -1, np.int32)
    segments = np.ones((rows, length), np.int32)
    for row in range(rows):
        slot[row, 3 : 3 + patches] = row * patches + np.arange(patches)
        segments[row, length - row :] = 0
    tokens = rng.integers(3, 50, (rows, length)).astype(np.int32)
    targets = np.roll(tokens, -1, axis=1)
    weights = np.where((segments > 0) & (np.arange(length) > 10), 1.0 / (rows * length), 0.0).astype(np.float32)
    positions = np.broadcast_to(np.arange(length, dtype=np.int32), (rows, length))
    source = np.where(segments > 0, 0, -1).astype(np.int32)
    pictures = {}
    if vision:
        pictures["images"] = rng.integers(0, 256, (rows, vision.image_size, vision.image_size, 3), dtype=np.uint8)
    made = types.Batch(tokens, targets, weights, segments, positions, pictures, slot, source)
    return jax.tree.map(jnp.asarray, made)

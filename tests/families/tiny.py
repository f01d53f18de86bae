"""A tiny model and batch for tests of the model code."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from PIL import Image

from vlguard_jax import types
from vlguard_jax.data import batches
from vlguard_jax.families import family
from vlguard_jax.families import functional
from vlguard_jax.families import table
from vlguard_jax.families.blocks import configs
from vlguard_jax.families.llama import config as llama_config
from vlguard_jax.families.llava import config as llava_config
from vlguard_jax.families.llava_next import config as next_config

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
NEXT = next_config.LlavaNextConfig(
    CONFIG.text, CONFIG.vision, CONFIG.projector, next_config.of_v1_6(CONFIG.vision.image_size)
)
ALL = (TEXT_ONLY, CONFIG, NEXT)  # one of each family


def random_params(model: functional.Model, seed: int = 0) -> functional.Params:
    """Every leaf random and large enough to matter, also norms, biases and B of adapters."""
    rng = np.random.default_rng(seed)
    return jax.tree.map(lambda x: jnp.asarray(0.3 * rng.standard_normal(x.shape), x.dtype), model.shapes())


def pictures(config: family.Config, sizes: Sequence[tuple[int, int]], seed: int = 0) -> list[types.Picture]:
    """Pictures of noise of these sizes, as the model reads them."""
    rng, sees = np.random.default_rng(seed), table.of(config).pictures
    assert sees is not None
    made = []
    for size, extent in zip(sizes, sees.extents(config, [types.Size(*size) for size in sizes]), strict=True):
        picture = Image.fromarray(rng.integers(0, 256, (size[1], size[0], 3), dtype=np.uint8))
        made.append(types.Picture(sees.read(config, sees.modes[0], picture, extent), extent))
    return made


def batch(
    config: family.Config, rows: int = 2, length: int = 0, seed: int = 0, size: tuple[int, int] = (40, 30)
) -> types.Batch:
    """Rows of random ids, each with one picture (if the model sees) after its third token, right-padded by a different
    amount. length: 0 gives 16 tokens besides the picture."""
    rng, sees = np.random.default_rng(seed), table.of(config).pictures
    shown = pictures(config, [size] * rows, seed) if sees else []
    slots = shown[0].extent.slots if shown else 0
    length = length or 16 + slots
    slot = np.full((rows, length), -1, np.int32)
    segments = np.ones((rows, length), np.int32)
    for row in range(rows):
        slot[row, 3 : 3 + slots] = row * slots + np.arange(slots)
        segments[row, length - row :] = 0
    tokens = rng.integers(3, 50, (rows, length)).astype(np.int32)
    targets = np.roll(tokens, -1, axis=1)
    learnt = (segments > 0) & (np.arange(length) > 6 + slots)
    weights = np.where(learnt, 1.0 / (rows * length), 0.0).astype(np.float32)
    positions = np.broadcast_to(np.arange(length, dtype=np.int32), (rows, length))
    source = np.where(segments > 0, 0, -1).astype(np.int32)
    room = family.Room(sum(one.extent.units for one in shown), rows * slots)
    pooled = batches.pooled(config, shown, room)
    made = types.Batch(tokens, targets, weights, segments, positions, pooled, slot, source)
    return jax.tree.map(jnp.asarray, made)


def prefill(model: functional.Model, split: functional.Params, batch: types.Batch, last: jax.Array, room: int):
    """Logits at each row's place `last`, and a cache of `room` places. split: with the layers split."""
    features = model.seen(split, batch.pictures)
    hidden, cache = model.read(split, batch.tokens, batch.positions, batch.segment_ids, features, batch.slot)
    more = [(0, 0), (0, 0), (0, room - batch.tokens.shape[1]), (0, 0)]
    return model.scores(split, hidden[jnp.arange(len(last)), last]), jax.tree.map(lambda x: jnp.pad(x, more), cache)

"""Warm-up of the tiny CLIP tower, in place of CLIP's pretraining: it learns to name what each patch shows.

It sees only harmless pictures: without labels "forbidden", forbidden signs, and symbols that are held out for tuning or
the test. Labels name shape, colour, symbol, rim and body separately, never the pair that makes a sign forbidden.
"""

from __future__ import annotations

import random
from typing import Any

from flax import nnx
import jax
import jax.numpy as jnp
from jaxtyping import Int32, UInt8
import numpy as np
import optax

from vlguard_jax.families.blocks import clip
from vlguard_jax.families.blocks import configs
from vlguard_jax.quickstart import language as language_lib
from vlguard_jax.quickstart import pictures
from vlguard_jax.quickstart import world

PICTURES, UPDATES, BATCH = 4000, 600, 64
LEARNING_RATE = 5e-3

RIMS = tuple(sorted({plate.rim for plate in pictures.HARMLESS_PLATES}))
BODIES = tuple(sorted({plate.body for plate in pictures.HARMLESS_PLATES}))
# Name of a label -> its values; 0 stands for "none of them".
LABELS = {
    "shape": language_lib.SHAPES,
    "colour": language_lib.COLOURS,
    "symbol": tuple(range(language_lib.SYMBOLS[0])),
    "rim": RIMS,
    "body": BODIES,
}


def scenes(language: language_lib.Language, count: int) -> list[pictures.Scene]:
    """The scenes of the warm-up."""
    speaker = world.Speaker(language, "train", random.Random(f"warm-up {language.seed}"))
    return [speaker.harmless_scene() for _ in range(count)]


def labels(scene: pictures.Scene, language: language_lib.Language) -> Int32[np.ndarray, "P n"]:
    """What each patch shows, in the order of LABELS."""
    found = np.zeros((pictures.GRID**2, len(LABELS)), np.int32)
    found[scene.cell, :2] = LABELS["shape"].index(scene.shape) + 1, LABELS["colour"].index(scene.colour) + 1
    if scene.plate is not None:
        symbol = language.symbols["train"].index(scene.symbol)
        found[scene.sign_cell, 2:] = symbol + 1, RIMS.index(scene.plate.rim) + 1, BODIES.index(scene.plate.body) + 1
    return found


def _read_out(heads: Any, features: jax.Array) -> list[jax.Array]:
    return jnp.split(
        features @ heads, np.cumsum([len(values) + 1 for values in LABELS.values()])[:-1].tolist(), axis=-1
    )


def warm_up(
    config: configs.VisionConfig,
    language: language_lib.Language,
    seed: int,
    *,
    count: int = PICTURES,
    updates: int = UPDATES,
) -> tuple[dict[str, Any], float]:
    """A trained tower as a nested tree of fp32 arrays, and the share of held-back patches with all labels right."""
    chosen = scenes(language, count)
    images = np.stack([np.asarray(pictures.paint(scene)) for scene in chosen])
    targets = np.stack([labels(scene, language) for scene in chosen])
    held_back = count // 10
    graph, start = nnx.split(clip.Tower(config, nnx.Rngs(seed)))
    outputs = sum(len(values) + 1 for values in LABELS.values())
    heads = 0.05 * jax.random.normal(jax.random.key(seed), (config.width, outputs))

    def outputs_of(trained: Any, batch: UInt8[jax.Array, "N S S 3"]) -> list[jax.Array]:
        tower = nnx.merge(graph, trained[0])
        return _read_out(trained[1], tower(clip.normalize(batch, config)))

    def loss_of(trained: Any, batch: jax.Array, wanted: jax.Array) -> jax.Array:
        logits = outputs_of(trained, batch)
        losses = [
            optax.softmax_cross_entropy_with_integer_labels(x, wanted[..., i]).mean() for i, x in enumerate(logits)
        ]
        return sum(losses[1:], losses[0])

    schedule = optax.warmup_cosine_decay_schedule(0.0, LEARNING_RATE, updates // 20, updates)
    optimizer = optax.chain(optax.clip_by_global_norm(1.0), optax.adam(schedule))

    @jax.jit
    def update(trained: Any, state: Any, batch: jax.Array, wanted: jax.Array) -> tuple[Any, Any]:
        step, state = optimizer.update(jax.grad(loss_of)(trained, batch, wanted), state, trained)
        return optax.apply_updates(trained, step), state

    trained = (start, heads)
    state = optimizer.init(trained)
    rng = np.random.default_rng(seed)
    for _ in range(updates):
        rows = rng.integers(held_back, count, BATCH)
        trained, state = update(trained, state, images[rows], targets[rows])
    right = [
        np.argmax(x, -1) == targets[:held_back, :, i]
        for i, x in enumerate(jax.jit(outputs_of)(trained, images[:held_back]))
    ]
    return jax.tree.map(np.asarray, nnx.to_pure_dict(trained[0])), float(np.all(right, axis=0).mean())

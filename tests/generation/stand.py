"""Prompts for a tiny model, and its engine on one device."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from tests.families import tiny
from vlguard_jax import config
from vlguard_jax import types
from vlguard_jax.families import functional
from vlguard_jax.generation import engine

MODEL = functional.Model(tiny.CONFIG, "fp32")
PARAMS = tiny.random_params(MODEL)
FP32 = config.PrecisionSettings(compute="fp32")


def prompts(count: int = 7) -> list[types.Prompt]:
    rng = np.random.default_rng(1)
    made = []
    for i in range(count):
        ids = rng.integers(3, 50, 4 + 9 * i).astype(np.int32)
        pictures = tuple(picture(rng, tiny.CONFIG.vision.image_size) for _ in range(i % 3))
        ids[1 : 1 + len(pictures)] = types.IMAGE_TOKEN
        made.append(types.Prompt(f"p{i}", ids, pictures))
    return made


def picture(rng: np.random.Generator, side: int) -> types.Picture:
    images = rng.integers(0, 256, (1, side, side, 3), dtype=np.uint8)
    return types.Picture({"images": images}, types.Extent(tiny.CONFIG.vision.num_patches, 1))


def one(**sizes) -> engine.Engine:
    """An engine on one device; sizes: max_new, min_new, slots, params, draws."""
    return engine.Engine(
        tiny.CONFIG,
        sizes.pop("params", PARAMS),
        settings=config.DecodeSettings(sizes.get("max_new", 6), sizes.get("min_new", 0), sizes.get("slots", 4)),
        precision=FP32,
        stop_ids=(2,),
        draws=sizes.get("draws", False),
        mesh=config.MeshSettings(data=1, fsdp=1, tensor=8),
    )


def ids(generations: Iterable[types.Generation]) -> dict[str, list[int]]:
    return {g.id: g.ids.tolist() for g in generations}

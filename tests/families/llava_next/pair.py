"""A small random LLaVA-NeXT in transformers and here, and prompts for both: the oracle makes its own pixels, slots and
features out of the same pictures."""

from __future__ import annotations

from collections.abc import Sequence
import dataclasses
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
from PIL import Image
import torch
import transformers

from tests.checkpoints import tiny
from tests.data import stand
from tests.families.llava_next import oracle
from vlguard_jax import types
from vlguard_jax.checkpoints import checkpoint
from vlguard_jax.checkpoints import load
from vlguard_jax.data import batches
from vlguard_jax.families import family
from vlguard_jax.families import functional
from vlguard_jax.families import table

SIDE, GRID = tiny.VISION["image_size"], "v1.6"


@dataclasses.dataclass(frozen=True)
class Pair:
    """The same weights on both sides."""

    theirs: transformers.LlavaNextForConditionalGeneration
    ours: checkpoint.Checkpoint

    @property
    def model(self) -> functional.Model:
        """In fp32."""
        return functional.Model(self.ours.config, "fp32")


@dataclasses.dataclass(frozen=True)
class Asked:
    """A prompt: ids with IMAGE_TOKEN for each picture, and the pictures as they come."""

    ids: np.ndarray
    pictures: tuple[Image.Image, ...]


def make(folder: pathlib.Path, **text: object) -> Pair:
    """Norms, biases and the newline random, too, and all of it large, so that each of them matters."""
    theirs = tiny.llava_next(**text)
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for value in theirs.parameters():
            value.add_((0.2 if value.ndim == 1 else 0.1) * torch.randn(value.shape, generator=generator))
    return Pair(theirs, load.load(tiny.save(theirs, folder / "model", "hub")))


def ask(counts: Sequence[int], sizes: Sequence[tuple[int, int]], seed: int = 0) -> list[Asked]:
    """Prompts of random ids with so many pictures each, taken in turn from `sizes`."""
    rng, drawn, made = np.random.default_rng(seed), iter(range(sum(counts))), []
    for i, count in enumerate(counts):
        ids = rng.integers(3, tiny.VOCAB, 9 + 3 * i).astype(np.int32)
        ids[1 : 1 + 2 * count : 2] = types.IMAGE_TOKEN
        pictures = [(n, sizes[n % len(sizes)]) for n in (next(drawn) for _ in range(count))]
        made.append(Asked(ids, tuple(stand.noise(*size, seed + n) for n, size in pictures)))
    return made


def torch_inputs(pair: Pair, asked: Asked) -> dict[str, torch.Tensor]:
    """What the oracle's processor and model make of one prompt."""
    if not asked.pictures:
        return {"input_ids": torch.tensor(asked.ids[None]).long()}
    made = oracle.processor(GRID, SIDE).preprocess(list(asked.pictures), return_tensors="pt")
    slots = [oracle.slots(picture.size, GRID, SIDE) for picture in asked.pictures]
    repeats = np.ones(len(asked.ids), np.int64)
    repeats[asked.ids == types.IMAGE_TOKEN] = slots
    ids = np.repeat(np.where(asked.ids == types.IMAGE_TOKEN, tiny.VOCAB, asked.ids), repeats)
    return {"input_ids": torch.tensor(ids[None]).long(), **{k: made[k] for k in ("pixel_values", "image_sizes")}}


def prompt(pair: Pair, asked: Asked, name: str = "one") -> types.Prompt:
    """For our engine."""
    sees, config = table.of(pair.ours.config).pictures, pair.ours.config
    assert sees is not None
    extents = sees.extents(config, [types.Size(*picture.size) for picture in asked.pictures])
    shown = zip(asked.pictures, extents, strict=True)
    read = (types.Picture(sees.read(config, "anyres", picture, extent), extent) for picture, extent in shown)
    return types.Prompt(name, asked.ids, tuple(read))


def sample(pair: Pair, asked: Asked) -> batches.Sample:
    """For our batches: what follows the first third is learnt."""
    shown = prompt(pair, asked)
    learnt = (np.arange(len(asked.ids)) > len(asked.ids) // 3) & (asked.ids != types.IMAGE_TOKEN)
    labels = np.where(learnt, asked.ids, types.IGNORE_LABEL).astype(np.int32)
    slots = [picture.extent.slots for picture in shown.pictures]
    expanded = batches.expand(types.Tokens(asked.ids, labels), slots, None, None)
    return dataclasses.replace(expanded, pictures=shown.pictures)


def batch(pair: Pair, rows: Sequence[Sequence[Asked]]) -> types.Batch:
    """Prompts laid out in these rows, with room to spare for tiles and slots; every label weighs the same."""
    samples = [[sample(pair, asked) for asked in row] for row in rows]
    flat = [one for row in samples for one in row]
    extents = [picture.extent for one in flat for picture in one.pictures]
    room = family.Room(sum(e.units for e in extents) + 2, sum(e.slots for e in extents) + 3)
    weight = 1.0 / sum(one.num_supervised for one in flat)
    longest = max(sum(len(one.tokens) for one in row) for row in samples) + 5
    weights = [[weight] * len(row) for row in samples]
    made = batches.collate(samples, weights, row_len=longest, room=room, model=pair.ours.config)
    return jax.tree.map(jnp.asarray, made)


def torch_labels(pair: Pair, asked: Asked) -> torch.Tensor:
    """Of `sample`, for the oracle's loss."""
    return torch.tensor(sample(pair, asked).labels[None]).long()

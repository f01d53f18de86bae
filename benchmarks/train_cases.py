"""The cases of train_step.py: sizes, a random model in both layouts, and the same conversations padded or packed."""

from __future__ import annotations

from collections.abc import Sequence
import dataclasses
import pathlib
import tempfile

import numpy as np

from benchmarks import vocabulary
from vlguard_jax import config
from vlguard_jax import trees
from vlguard_jax import types
from vlguard_jax.checkpoints import checkpoint as checkpoint_lib
from vlguard_jax.checkpoints import layouts
from vlguard_jax.checkpoints import save
from vlguard_jax.data import batches
from vlguard_jax.data import index as index_lib
from vlguard_jax.data import plan as plan_lib
from vlguard_jax.families import family
from vlguard_jax.families import table
from vlguard_jax.families.blocks import configs
from vlguard_jax.families.llava import config as llava_config
from vlguard_jax.quickstart import model as quickstart_model


@dataclasses.dataclass(frozen=True)
class Size:
    """A model and the data of a step. batch, length: of the padded case; packed, group: conversations of a step and of
    the reference's micro-batch in the packed case; median: tokens of a conversation's text there; row_len: of our
    longest packed row; remat: what our side keeps for the backward pass; apart: too large for both sides at once on one
    GPU."""

    model: llava_config.LlavaConfig
    batch: int
    length: int
    packed: int
    group: int
    median: int
    row_len: int
    remat: str = "minimal"
    apart: bool = False


def _small(width: int, layers: int, vocab: int, side: int) -> llava_config.LlavaConfig:
    """A Llama with heads of 64 and a small tower: most of a step is the decoder, as with the real sizes."""
    vision = configs.VisionConfig(
        image_size=side,
        patch_size=14,
        width=64,
        num_layers=2,
        num_heads=2,
        mlp_width=128,
        norm_eps=1e-5,
        activation="quick_gelu",
    )
    heads = max(1, width // 64)
    text = configs.TextConfig(
        vocab_size=vocab,
        width=width,
        num_layers=layers,
        num_heads=heads,
        num_kv_heads=heads,
        head_width=64,
        mlp_width=width * 8 // 3,
        norm_eps=1e-5,
        rope_theta=10000.0,
    )
    return llava_config.LlavaConfig(text=text, vision=vision, projector="mlp2x_gelu")


_SEVEN_B = Size(
    table.PRESETS["llava-v1.5-7b"],
    batch=8,
    length=1024,
    packed=32,
    group=16,
    median=180,
    row_len=4096,
    remat="full",
    apart=True,
)
SIZES = {
    "tiny": Size(_small(96, 2, 640, 28), batch=4, length=64, packed=8, group=4, median=32, row_len=256),
    "110m": Size(_small(768, 12, 16_000, 112), batch=4, length=512, packed=16, group=4, median=130, row_len=1024),
    "7b": _SEVEN_B,
    "13b": dataclasses.replace(_SEVEN_B, model=table.PRESETS["llava-v1.5-13b"], batch=4),
}
TEXT_ONLY = 0.125  # of the conversations of the packed case


def write_model(model: llava_config.LlavaConfig, folder: pathlib.Path, sentences: Sequence[str] = ()) -> None:
    """A random model as a llava-hf folder, which both sides load; its tokenizer knows the words of `sentences`."""
    rng = np.random.default_rng(0)
    sentences = sentences or [" ".join(rng.permutation(list("abcdefghijklmnop"))) for _ in range(200)]
    flat = {}
    for path, shape in layouts.tree_shapes(model).items():
        values = rng.standard_normal(shape, np.float32) * np.float32(0.02)
        flat[path] = values + np.float32(1.0) if path.endswith("scale") else values
    params = trees.unflatten(flat)
    with tempfile.TemporaryDirectory() as tokenizer:
        quickstart_model.train_tokenizer(pathlib.Path(tokenizer), list(sentences))
        vocabulary.fill(pathlib.Path(tokenizer), model.text.vocab_size)
        made = checkpoint_lib.Checkpoint(
            model, params, tokenizer_folder=pathlib.Path(tokenizer), weights_sha256="0" * 64
        )
        save.save_hf(made, folder)


@dataclasses.dataclass(frozen=True)
class Step:
    """The conversations of one step, laid out for each side. ours: with a leading axis of micro-batches; reference: its
    micro-batches, one conversation a row; tokens: real ones; squares: sum of squared lengths."""

    ours: types.Batch
    reference: tuple[types.Batch, ...]
    conversations: int
    tokens: int
    squares: int
    pictures: int
    computed_ours: int
    computed_reference: int


def conversation(size: Size, text: int, shown: bool, rng: np.random.Generator) -> batches.Sample:
    """`text` random tokens, of which the last 60 % are learned, after a picture if `shown`."""
    patches = size.model.vision.num_patches if shown else 0
    tokens = np.concatenate(
        [np.zeros(patches, np.int32), rng.integers(3, size.model.text.vocab_size - 1, text).astype(np.int32)]
    )
    tokens = np.roll(tokens, 1)  # the picture follows the first token
    labels = np.where(
        np.arange(len(tokens)) >= len(tokens) - max(1, int(0.6 * text)), tokens, types.IGNORE_LABEL
    ).astype(np.int32)
    place = np.zeros(len(tokens), np.int32)
    place[1 : patches + 1] = np.arange(patches)
    picture = np.full(len(tokens), -1, np.int32)
    picture[1 : patches + 1] = 0
    side = size.model.vision.image_size
    arrays = {"images": rng.integers(0, 256, (1, side, side, 3), dtype=np.uint8)} if shown else {}
    pictures = (types.Picture(arrays, types.Extent(slots=patches, units=1)),) if shown else ()
    return batches.Sample(tokens, labels, picture, place, pictures)


def padded(size: Size, steps: int) -> list[Step]:
    """Equal batches, padded equally: one micro-batch, every row as long as on the other side."""
    rng = np.random.default_rng(1)
    room = size.length - size.model.vision.num_patches
    made = []
    for _ in range(steps):
        texts = rng.integers(max(4, int(0.7 * room)), room + 1, size.batch)
        samples = [conversation(size, int(text), True, rng) for text in texts]
        one = _collate(size, [[sample] for sample in samples], samples, size.length)
        made.append(_step(batches.combined([one], np.stack), (one,), samples))
    return made


def packed(size: Size, steps: int, data: config.DataSettings, rows: int) -> list[Step]:
    """The order of the reference's sampler: its groups padded to their longest for the reference, packed rows for
    us."""
    rng = np.random.default_rng(2)
    count = steps * size.packed
    shown = rng.random(count) >= TEXT_ONLY
    texts = np.clip(
        rng.lognormal(np.log(size.median), 0.6, count) * np.where(shown, 1, 2), 8, size.row_len // 2
    ).astype(int)
    samples = [conversation(size, int(text), bool(show), rng) for text, show in zip(texts, shown, strict=True)]
    index = index_lib.SampleIndex(
        length=np.array([len(s.tokens) for s in samples], np.int64),
        pictures=shown.astype(np.int64),
        units=shown.astype(np.int64),
        slots=shown * np.int64(size.model.vision.num_patches),
        supervised=np.array([s.num_supervised for s in samples], np.int64),
        modality_length=np.where(shown, texts, -texts).astype(np.int64),
        ids=tuple(map(str, range(count))),
        source=np.zeros(count, np.int32),
        source_names=("random",),
    )
    plan = plan_lib.BatchPlan(index, data, 0, plan_lib.Layout(rows=rows))
    return [_planned(size, plan[step], samples, rows) for step in range(steps)]


def _planned(size: Size, plan: plan_lib.StepPlan, samples: list[batches.Sample], micro: int) -> Step:
    chosen = [samples[i] for i in plan.samples]
    rows: list[list[batches.Sample]] = [[] for _ in range(plan.shape.rows)]
    for sample, row in zip(chosen, plan.row.tolist(), strict=True):
        rows[row].append(sample)
    micro = micro or len(rows)
    parts = [rows[at : at + micro] for at in range(0, len(rows), micro)]
    ours = [_collate(size, part, chosen, plan.shape.row_len, plan.shape.room) for part in parts]
    groups = [
        [s for s, g in zip(chosen, plan.groups, strict=True) if g == group] for group in range(plan.groups.max() + 1)
    ]
    reference = tuple(
        _collate(size, [[s] for s in group], chosen, max(len(s.tokens) for s in group)) for group in groups
    )
    return _step(batches.combined(ours, np.stack), reference, chosen)


def _collate(
    size: Size,
    rows: list[list[batches.Sample]],
    all_of_step: list[batches.Sample],
    row_len: int,
    room: family.Room | None = None,
) -> types.Batch:
    """Collate with equal weights for all supervised tokens of the step."""
    weight = 1 / sum(s.num_supervised for s in all_of_step)
    shown = sum(s.num_pictures for row in rows for s in row)
    room = room or family.Room(units=shown, slots=shown * size.model.vision.num_patches)
    weights = [[weight] * len(row) for row in rows]
    return batches.collate(rows, weights, row_len=row_len, room=room, model=size.model)


def _step(ours: types.Batch, reference: tuple[types.Batch, ...], samples: list[batches.Sample]) -> Step:
    lengths = [len(s.tokens) for s in samples]
    return Step(
        ours,
        reference,
        len(samples),
        sum(lengths),
        sum(n * n for n in lengths),
        sum(s.num_pictures for s in samples),
        ours.tokens.size,
        sum(batch.tokens.size for batch in reference),
    )

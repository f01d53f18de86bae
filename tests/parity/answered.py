"""A random LLaVA of any size in transformers and here, random prompts, and transformers' own greedy answers to them.

As a program, by hand, with a larger model than the tests have (BUILD.md): `python -m tests.parity.answered`.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
import contextlib
import copy
import dataclasses
import json
import pathlib
import sys
import tempfile
import time
from typing import Any

import numpy as np
import torch
import transformers
from transformers import image_utils

from tests.checkpoints import tiny
from vlguard_jax import config
from vlguard_jax import types
from vlguard_jax.checkpoints import checkpoint
from vlguard_jax.checkpoints import load
from vlguard_jax.generation import engine

GAIN = 1.5  # of a matrix's outputs over its inputs: no choice follows from the last token alone
MARGIN = 1e-4  # between the best two scores; where two right programs' fp32 rounding can decide, there is no answer
STOPS = 16  # stop ids: a token in VOCABULARY / STOPS ends a random answer


@dataclasses.dataclass(frozen=True)
class Sizes:
    """Of decoder and tower; `side` of a picture in pixels, in patches of 14."""

    width: int
    layers: int
    heads: int
    mlp: int
    vocabulary: int
    side: int
    tower: int
    tower_layers: int
    longest: int  # tokens of a prompt's text
    new: int  # tokens of an answer, at most


SMALL = Sizes(256, 4, 4, 704, 512, 56, 128, 3, longest=90, new=32)  # 4 M
LARGE = Sizes(768, 12, 12, 2048, 16_384, 112, 384, 6, longest=200, new=32)  # 110 M


@dataclasses.dataclass(frozen=True)
class Asked:
    """A prompt: ids with IMAGE_TOKEN for each picture, and the pictures, u8[S, S, 3]."""

    ids: np.ndarray
    pictures: tuple[np.ndarray, ...]


@dataclasses.dataclass(frozen=True)
class Pair:
    """The same weights on both sides. stops: ids that end an answer."""

    sizes: Sizes
    theirs: transformers.LlavaForConditionalGeneration
    ours: checkpoint.Checkpoint

    @property
    def stops(self) -> tuple[int, ...]:
        return tuple(range(3, 3 + STOPS))

    @property
    def slots(self) -> int:
        """Of a picture in the text."""
        return (self.sizes.side // 14) ** 2


def make(folder: pathlib.Path, sizes: Sizes) -> Pair:
    """Every weight random, and large enough to matter."""
    torch.manual_seed(0)
    vision = {"hidden_size": sizes.tower, "intermediate_size": 2 * sizes.tower, "num_hidden_layers": sizes.tower_layers}
    text = {"hidden_size": sizes.width, "intermediate_size": sizes.mlp, "num_hidden_layers": sizes.layers}
    heads = {"num_attention_heads": sizes.heads, "num_key_value_heads": sizes.heads // 2}
    made = transformers.LlavaConfig(
        vision_config=transformers.CLIPVisionConfig(
            **vision, num_attention_heads=4, image_size=sizes.side, patch_size=14
        ),
        text_config=transformers.LlamaConfig(**text, **heads, vocab_size=sizes.vocabulary + 64),
        image_token_index=sizes.vocabulary,
        pad_token_id=sizes.vocabulary + 1,
    )
    theirs = transformers.LlavaForConditionalGeneration(made).eval()
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for name, value in theirs.named_parameters():
            drawn = torch.randn(value.shape, generator=generator)
            if value.ndim == 1:
                value.add_(0.2 * drawn)
            else:
                inputs = 1 if "embed" in name else value[0].numel()
                value.copy_(drawn * GAIN * inputs**-0.5)
    return Pair(sizes, theirs, load.load(tiny.save(theirs, folder / "model", "hub")))


def ask(pair: Pair, count: int, longest: int, seed: int) -> list[Asked]:
    """Random prompts of 4 to `longest` tokens of text, with 0, 1 or 2 pictures anywhere among them.

    Every fourth shows the picture of the one before it, every eighth shares everything through it, too.
    """
    rng, made = np.random.default_rng(seed), []
    for i in range(count):
        length, pictures = int(rng.integers(4, longest + 1)), int(rng.integers(0, 3))
        ids = rng.integers(3 + STOPS, pair.sizes.vocabulary, length).astype(np.int32)
        ids[rng.choice(np.arange(1, length - 1), pictures, replace=False)] = types.IMAGE_TOKEN
        side = (pair.sizes.side, pair.sizes.side, 3)
        shown = tuple(rng.integers(0, 256, side, dtype=np.uint8) for _ in range(pictures))
        before = made[-1] if made else Asked(ids, ())
        if i % 4 == 3 and len(before.pictures) == pictures:
            shown = before.pictures
            end = int(np.flatnonzero(before.ids == types.IMAGE_TOKEN).max(initial=-1)) + 1
            if i % 8 == 7 and end:
                ids = np.concatenate([before.ids[:end], ids[ids != types.IMAGE_TOKEN][: max(2, longest - end)]])
        made.append(Asked(ids, shown))
    return made


def torch_inputs(pair: Pair, asked: Asked) -> dict[str, torch.Tensor]:
    """As transformers' processor would make them of one prompt."""
    repeats = np.where(asked.ids == types.IMAGE_TOKEN, pair.slots, 1)
    ids = np.repeat(np.where(asked.ids == types.IMAGE_TOKEN, pair.sizes.vocabulary, asked.ids), repeats)
    inputs = {"input_ids": torch.tensor(ids[None]).long()}
    if asked.pictures:
        mean, std = (np.asarray(x, np.float32) for x in (image_utils.OPENAI_CLIP_MEAN, image_utils.OPENAI_CLIP_STD))
        pixels = (np.stack(asked.pictures).astype(np.float32) / 255 - mean) / std
        inputs["pixel_values"] = torch.tensor(np.ascontiguousarray(pixels.transpose(0, 3, 1, 2)))
    return inputs


@dataclasses.dataclass(frozen=True)
class Answer:
    """ids, and the smallest difference between the best and the second best score of all its choices."""

    ids: list[int]
    margin: float


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    """For PyTorch: matrices are small, and threads that wait for each other on a busy machine take ten times as
    long."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with torch.no_grad():
            yield
    finally:
        torch.set_num_threads(before)


def answer(pair: Pair, asked: Asked) -> Answer:
    """transformers' greedy one."""
    inputs, rows = torch_inputs(pair, asked), pair.sizes.vocabulary
    with one_thread():
        found = pair.theirs.generate(
            **inputs,
            max_new_tokens=pair.sizes.new,
            min_new_tokens=1,
            do_sample=False,
            eos_token_id=list(pair.stops),
            pad_token_id=0,
            suppress_tokens=list(range(rows, rows + 64)),  # rows behind the vocabulary, which our model does not have
            return_dict_in_generate=True,
            output_scores=True,
        )
    best = torch.stack(found.scores)[:, 0].topk(2).values
    return Answer(found.sequences[0, inputs["input_ids"].shape[1] :].tolist(), float((best[:, 0] - best[:, 1]).min()))


def scores(pair: Pair, asked: Asked, answer: Sequence[int]) -> np.ndarray:
    """transformers' scores, in its weights' number format, at each token of an answer: f32[C, V]."""
    inputs = torch_inputs(pair, asked)
    begin = inputs["input_ids"].shape[1] - 1
    inputs["input_ids"] = torch.cat([inputs["input_ids"], torch.tensor([list(answer)]).long()], 1)
    if "pixel_values" in inputs:
        inputs["pixel_values"] = inputs["pixel_values"].to(pair.theirs.dtype)
    with one_thread():
        logits = pair.theirs(**inputs).logits[0, begin:-1, : pair.sizes.vocabulary]
    return logits.float().numpy()


def clear(pair: Pair, count: int, seed: int, kept: pathlib.Path | None = None) -> tuple[list[Asked], list[Answer], int]:
    """(prompts, their answers, prompts that were left out as some choice's margin is below MARGIN). kept: a file of
    answers, read if it is there, else written."""
    drawn = ask(pair, count + max(2, count // 20), pair.sizes.longest, seed)
    if kept and kept.exists():
        answers = [Answer(*one) for one in json.loads(kept.read_text())]
    else:
        answers = [answer(pair, asked) for asked in drawn]
    if kept:
        kept.write_text(json.dumps([dataclasses.astuple(one) for one in answers]))
    found = [pair for pair in zip(drawn, answers, strict=True) if pair[1].margin > MARGIN]
    assert len(found) >= count, f"{len(found)} of {len(drawn)} answers are clear"
    return [one for one, _ in found[:count]], [one for _, one in found[:count]], len(drawn) - len(found)


def prompt(pair: Pair, asked: Asked, name: str) -> types.Prompt:
    """For our engine."""
    extent = types.Extent(pair.slots, 1)
    return types.Prompt(
        name, asked.ids, tuple(types.Picture({"images": picture[None]}, extent) for picture in asked.pictures)
    )


def prompts(pair: Pair, asked: Sequence[Asked]) -> list[types.Prompt]:
    """Named by their index; prompts with one picture share its array."""
    return [prompt(pair, one, str(i)) for i, one in enumerate(asked)]


def copied(given: Sequence[types.Prompt]) -> list[types.Prompt]:
    """The same prompts, with copies of ids and pictures that no two share."""
    return [copy.deepcopy(one) for one in given]


def build(pair: Pair, slots: int, compute: str = "fp32", mesh: config.MeshSettings | None = None) -> engine.Engine:
    """Our engine of a pair."""
    return engine.Engine(
        pair.ours.config,
        pair.ours.params,
        settings=config.DecodeSettings(pair.sizes.new, 1, slots),
        precision=config.PrecisionSettings(compute=compute),
        stop_ids=pair.stops,
        mesh=mesh,
    )


def in_turn(built: engine.Engine, given: Sequence[types.Prompt], seed: int) -> dict[str, types.Generation]:
    """Answers to prompts that come in a random order, none to three between steps."""
    rng = np.random.default_rng(seed)
    waiting = [given[i] for i in rng.permutation(len(given))]
    found: dict[str, types.Generation] = {}
    while waiting or built.busy:
        for _ in range(int(rng.integers(0, 4))):
            if waiting:
                built.submit(waiting.pop())
        for one in built.step():
            assert isinstance(one, types.Generation), one
            assert one.id not in found
            found[one.id] = one
    return found


def check(found: dict[str, types.Generation], expected: Sequence[Answer], pair: Pair) -> None:
    """Every prompt is answered, and as transformers answers."""
    assert sorted(found, key=int) == [str(i) for i in range(len(expected))]
    wrong = [i for i, one in enumerate(expected) if found[str(i)].ids.tolist() != one.ids]
    assert not wrong, f"prompts {wrong}: {[(found[str(i)].ids.tolist(), expected[i].ids) for i in wrong[:2]]}"
    for i, one in enumerate(expected):
        reason = "stop" if one.ids[-1] in pair.stops else "length"
        assert found[str(i)].finish_reason == reason, i


def bits(one: types.Generation) -> dict[str, Any]:
    """All of an answer, to be compared bit by bit."""
    fields = {field.name: getattr(one, field.name) for field in dataclasses.fields(one)}
    return {k: (v.dtype, v.tobytes()) if isinstance(v, np.ndarray) else v for k, v in fields.items()}


def _compare(pair: Pair, asked: Sequence[Asked], expected: Sequence[Answer], slots: Sequence[int], first: int) -> None:
    """Raises AssertionError: an answer of ours is another one."""
    given, every = prompts(pair, asked), len(asked)
    for i, number in enumerate(slots):
        count = first if i else every
        clock = time.monotonic()
        check(in_turn(build(pair, number), given[:count], seed=i), expected[:count], pair)
        tokens = sum(len(one.ids) for one in expected[:count])
        print(f"{number} slots, random order: {count} identical, {tokens:,} tokens, {time.monotonic() - clock:.0f} s")


def main() -> int:
    """Compare the answers of the large model."""
    as_it_stands = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(
        prog="python -m tests.parity.answered", description=main.__doc__, formatter_class=as_it_stands
    )
    parser.add_argument("--count", type=int, default=200, help="prompts")
    parser.add_argument("--first", type=int, default=40, help="prompts with other slots")
    parser.add_argument(
        "--answers", type=pathlib.Path, help="file for transformers' answers: read if it is there, else written"
    )
    parser.add_argument(
        "--slots", default="16,4,1", help="the first for all prompts; '': answers of transformers alone"
    )
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        pair = make(pathlib.Path(folder), LARGE)
        print(f"{sum(value.numel() for value in pair.theirs.parameters()) / 1e6:.0f} M weights", flush=True)
        clock = time.monotonic()
        asked, expected, left_out = clear(pair, given.count, seed=0, kept=given.answers)
        print(f"transformers: {time.monotonic() - clock:.0f} s, {left_out} left out", flush=True)
        pictures = np.bincount([len(one.pictures) for one in asked])
        print(f"{len(asked)} prompts, {pictures} of them with 0, 1, 2 pictures", flush=True)
        _compare(pair, asked, expected, [int(n) for n in given.slots.split(",") if n], given.first)
    return 0


if __name__ == "__main__":
    sys.exit(main())

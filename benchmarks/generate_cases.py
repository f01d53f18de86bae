"""The cases of generate.py: sizes, prompts that both sides answer, and how long each answer is."""

from __future__ import annotations

from collections.abc import Sequence
import dataclasses
import fractions

import numpy as np

from benchmarks import train_cases
from vlguard_jax import errors
from vlguard_jax import types
from vlguard_jax.families import table
from vlguard_jax.families.blocks import configs
from vlguard_jax.families.llava import config as llava_config

CASES = ("text", "picture", "picture_shared_prefix")
SHORT, LONG = 24, 96  # tokens of a prompt without a picture
SPREAD = 0.25  # of the answers of one part of the mix, both ways; the longest are all at the limit
VARIED = 16  # tokens by which the instructions after pictures differ in length

Mix = tuple[tuple[int, float], ...]  # (tokens of an answer, share), the shortest first


@dataclasses.dataclass(frozen=True)
class Size:
    """before: tokens before a picture, the same in all prompts. longest: tokens of the longest prompt with a
    picture."""

    model: llava_config.LlavaConfig
    before: int
    longest: int

    @property
    def patches(self) -> int:
        """Slots of a picture."""
        return self.model.vision.num_patches


def _with_tower() -> llava_config.LlavaConfig:
    """The 110M decoder with pictures of 576 slots and a tower that takes 4 % of a prefill, as those of LLaVA-1.5."""
    vision = configs.VisionConfig(
        image_size=336,
        patch_size=14,
        width=384,
        num_layers=3,
        num_heads=6,
        mlp_width=1536,
        norm_eps=1e-5,
        activation="quick_gelu",
    )
    return dataclasses.replace(train_cases.SIZES["110m"].model, vision=vision)


SIZES = {
    "tiny": Size(train_cases.SIZES["tiny"].model, before=8, longest=40),
    "110m": Size(_with_tower(), before=35, longest=640),
    "7b": Size(table.PRESETS["llava-v1.5-7b"], before=35, longest=640),
    "13b": Size(table.PRESETS["llava-v1.5-13b"], before=35, longest=640),
}


@dataclasses.dataclass(frozen=True)
class Question:
    """A prompt and the length of its answer. tokens: of the prompt, slots of its picture included. part: of the mix
    that the answer belongs to."""

    prompt: types.Prompt
    tokens: int
    answer: int
    part: int

    def decode_reads(self) -> int:
        """Slots of the cache that are read for the answer, summed over its steps; the prefill gives its first
        token."""
        steps = self.answer - 1
        return steps * self.tokens + steps * (steps + 1) // 2


def parse_mix(text: str) -> Mix:
    """ "20:0.9,256:0.1" -> ((20, 0.9), (256, 0.1)).

    Raises:
      UserError: it has another form, or the shares do not sum to 1.
    """
    try:
        pairs = [(int(length), fractions.Fraction(share)) for length, share in (x.split(":") for x in text.split(","))]
    except (ValueError, ZeroDivisionError):
        pairs = []
    if (
        not pairs
        or sum(share for _, share in pairs) != 1
        or not all(length > 0 and share > 0 for length, share in pairs)
    ):
        raise errors.UserError(
            f"--length_mix={text}: give tokens of an answer and share, such as 20:0.9,256:0.1; the shares sum to 1"
        )
    return tuple(sorted((length, float(share)) for length, share in pairs))


def answers(mix: Mix, count: int, rng: np.random.Generator) -> list[tuple[int, int]]:
    """(part of the mix, tokens) of `count` answers in random order; the parts have their shares exactly, rounded at the
    borders."""
    borders = np.rint(np.cumsum([share for _, share in mix]) * count).astype(int)
    made = []
    for part, (length, _) in enumerate(mix):
        number = borders[part] - (borders[part - 1] if part else 0)
        spread = 0 if part == len(mix) - 1 else int(length * SPREAD)
        made += [(part, int(n)) for n in rng.integers(length - spread, length + spread + 1, number)]
    return [made[i] for i in rng.permutation(count)]


def questions(name: str, size: Size, mix: Mix, count: int) -> list[Question]:
    """The prompts of a case, always the same ones."""
    rng = np.random.default_rng(CASES.index(name))
    if name == "text":
        prompts = [_ids(size, int(n), rng) for n in rng.integers(SHORT, LONG + 1, count)]
        return _asked([(ids, ()) for ids in prompts], size, answers(mix, count, rng))
    times = 2 if name == "picture_shared_prefix" else 1
    before, made = _ids(size, size.before, rng), []
    longest = size.longest - size.before - size.patches
    for _ in range(-(-count // times)):
        picture = _picture(size, rng)
        for _ in range(times):
            after = _ids(size, int(rng.integers(longest - VARIED, longest + 1)), rng)
            made.append((np.concatenate([before, np.array([types.IMAGE_TOKEN], np.int32), after]), (picture,)))
    return _asked([made[i] for i in rng.permutation(len(made))[:count]], size, answers(mix, count, rng))


def _ids(size: Size, count: int, rng: np.random.Generator) -> np.ndarray:
    """Random ids; the vocabulary's last stands for pictures on the other side."""
    return rng.integers(3, size.model.text.vocab_size - 1, count).astype(np.int32)


def _picture(size: Size, rng: np.random.Generator) -> types.Picture:
    side = size.model.vision.image_size
    images = rng.integers(0, 256, (1, side, side, 3), dtype=np.uint8)
    return types.Picture({"images": images}, types.Extent(slots=size.patches, units=1))


def _asked(
    prompts: Sequence[tuple[np.ndarray, tuple[types.Picture, ...]]], size: Size, wanted: Sequence[tuple[int, int]]
) -> list[Question]:
    made = []
    for i, ((ids, pictures), (part, answer)) in enumerate(zip(prompts, wanted, strict=True)):
        tokens = len(ids) + len(pictures) * (size.patches - 1)
        made.append(Question(types.Prompt(f"q{i}", ids, pictures), tokens, answer, part))
    return made


def sample(asked: Sequence[Question], count: int) -> list[Question]:
    """About `count` of the prompts, of every part of the mix its share, evenly over the lengths of answers and
    prompts."""
    chosen: list[Question] = []
    for part in sorted({one.part for one in asked}):
        own = sorted((one for one in asked if one.part == part), key=lambda one: (one.answer, one.tokens))
        number = min(len(own), max(1, round(count * len(own) / len(asked))))
        chosen += [own[int((i + 0.5) * len(own) / number)] for i in range(number)]
    return chosen

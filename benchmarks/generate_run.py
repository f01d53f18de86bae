"""What a side of generate.py did in one run, and the figures that follow from it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
import dataclasses
import time
from typing import Any

import numpy as np

from benchmarks import generate_cases

Figures = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Run:
    """One side's answers to `asked`.

    setting: slots or rows of a batch. seconds: for all prompts of the case, if only a sample was `asked`, too. cpu:
    processor seconds, in all threads, for `asked`. steps: in which the weights are read, prefills not counted, 0 if not
    known.
    """

    side: str
    setting: int
    asked: tuple[generate_cases.Question, ...]
    answers: dict[str, np.ndarray]
    seconds: float
    cpu: float
    steps: int
    wasted: float | None = None  # share of slots
    prefills: int | None = None


class Clock:
    """Wall clock and processor time of a block."""

    def __enter__(self) -> Clock:
        self._began, self._cpu_began = time.perf_counter(), time.process_time()
        return self

    def __exit__(self, *_: object) -> None:
        self.seconds, self.cpu = time.perf_counter() - self._began, time.process_time() - self._cpu_began


def cut(asked: Sequence[generate_cases.Question], answer: int) -> list[generate_cases.Question]:
    """The same prompts with answers of at most so many tokens."""
    return [dataclasses.replace(one, answer=min(one.answer, answer)) for one in asked]


def of_all(
    asked: Sequence[generate_cases.Question], sampled: Sequence[generate_cases.Question], seconds: Sequence[float]
) -> float:
    """Seconds for all prompts, from those of a sample: every part of the mix by its mean."""
    total = 0.0
    for part in {one.part for one in asked}:
        own = [taken for one, taken in zip(sampled, seconds, strict=True) if one.part == part]
        total += sum(own) / len(own) * sum(one.part == part for one in asked)
    return total


@dataclasses.dataclass(frozen=True)
class Bytes:
    """What a decode step has to read: the weights, once, and every filled slot of the cache."""

    weights: int
    slot: int


def figures(
    run: Run, asked: Sequence[generate_cases.Question], read: Bytes, bandwidth: float, prefill_seconds: float | None
) -> Figures:
    """bandwidth: bytes a second. prefill_seconds: of all prompts, where they were taken."""
    tokens, share = sum(one.answer for one in asked), len(run.asked) / len(asked)
    needed = run.steps * read.weights + read.slot * sum(one.decode_reads() for one in run.asked)
    at_the_roof = needed / share / bandwidth
    decode = run.seconds - prefill_seconds if prefill_seconds else 0.0  # below 0: noise
    return {
        "setting": run.setting,
        "asked": len(run.asked),
        "prompts": len(asked),
        "seconds": run.seconds,
        "cpu_seconds": run.cpu / share,
        "answers_per_second": len(asked) / run.seconds,
        "tokens_per_second": tokens / run.seconds,
        "steps": run.steps,
        "roof_share": at_the_roof / run.seconds if run.steps else None,
        "decode_roof_share": at_the_roof / decode if decode > 0 else None,
        "wasted_slots": run.wasted,
        "prefills": run.prefills,
        "prefill_seconds": prefill_seconds,
    }


def bytes_of(size: generate_cases.Size, itemsize: int) -> Bytes:
    """Layers and head of the decoder; of the embedding a step reads a few rows only."""
    t = size.model.text
    inner, kv = t.num_heads * t.head_width, t.num_kv_heads * t.head_width
    layer = t.width * (2 * inner + 2 * kv + 3 * t.mlp_width + 2)
    weights = t.num_layers * layer + t.width * (t.vocab_size + 1)
    return Bytes(weights * itemsize, 2 * t.num_layers * kv * itemsize)


def agreement(run: Run, reference: Run, margin: Callable[[generate_cases.Question, np.ndarray], float]) -> Figures:
    """Whether the answers are the reference's, among those that the reference gave.

    margin: (prompt, first tokens of the answer) -> how far the reference's best choice for the next is above the
    second.
    """
    different = []
    for one in reference.asked:
        ours, theirs = run.answers.get(one.prompt.id), reference.answers[one.prompt.id]
        if ours is None or np.array_equal(ours, theirs):
            continue
        shared = min(len(ours), len(theirs))
        at = int(np.argmax(np.append(ours[:shared] != theirs[:shared], True)))
        different.append({"prompt": one.prompt.id, "at": at, "margin": margin(one, theirs[:at])})
    compared = sum(one.prompt.id in run.answers for one in reference.asked)
    return {
        "identical_answers": 1 - len(different) / compared,
        "compared": compared,
        "different": different,
    }


def fastest(times: Callable[[], float], repeats: int = 5) -> float:
    """The least of some times, after one that does not count."""
    times()
    return min(times() for _ in range(repeats))

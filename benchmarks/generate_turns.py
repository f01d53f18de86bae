"""Turns of generate.py: every side answers the prompts of a case, one after the other."""

from __future__ import annotations

from collections.abc import Callable, Sequence
import dataclasses
import functools
import statistics
import sys
import time
from typing import NamedTuple

from benchmarks import generate_cases
from benchmarks import generate_ours
from benchmarks import generate_run
from benchmarks import generate_torch
from benchmarks import generate_vllm_side

REST = 0.5  # seconds between runs: the other side's threads go to sleep
KINDS = ("ours", "batch1", "static")


class Sides(NamedTuple):
    """All, with one model."""

    ours: generate_ours.Ours
    torch: generate_torch.Torch
    vllm: generate_vllm_side.Vllm


class Plan(NamedTuple):
    """slots, static: settings to try. loop: prompts of the batch-1 loop, 0 for all. profile: time the prefills, too."""

    slots: Sequence[int]
    static: Sequence[int]
    loop: int
    rounds: int
    profile: bool


Way = tuple[str, int]  # kind of a side, and its setting
Asked = Sequence[generate_cases.Question]
Answer = Callable[[Asked], generate_run.Run]


def measure(
    sides: Sides, asked: Asked, plan: Plan, size: generate_cases.Size, bandwidth: float
) -> generate_run.Figures:
    """All figures of a case. bandwidth: bytes a second."""
    ways = _ways(sides, plan)
    for batch in (1, *plan.static):
        sides.torch.warm_up(asked, batch)
    before = sides.ours.compile_seconds
    warm_up = sum(sides.ours.warm_up(asked, slots) for slots in plan.slots)
    compiled = sides.ours.compile_seconds - before
    runs = _rounds(ways, asked, plan.rounds)
    best = {kind: min((way for way in ways if way[0] == kind), key=lambda way: _median(runs[way])) for kind in KINDS}
    prefills = _rounds({way: ways[way] for way in best.values()}, generate_run.cut(asked, 1), 1) if plan.profile else {}
    read = generate_run.bytes_of(size, 4 if sides.ours.compute == "fp32" else 2)
    reference = runs[best["batch1"]][0]
    found = {
        kind: generate_run.figures(
            dataclasses.replace(runs[way][0], seconds=_median(runs[way])),
            asked,
            read,
            bandwidth,
            _median(prefills[way]) if way in prefills else None,
        )
        | generate_run.agreement(runs[way][0], reference, sides.torch.margin)
        | {"all_seconds": {of[1]: [run.seconds for run in made] for of, made in runs.items() if of[0] == kind}}
        for kind, way in best.items()
    }
    rivals = {kind: found[kind] for kind in ("batch1", "static")}
    speedups = {f"speedup_vs_{kind}": _speedup(runs[best[kind]], runs[best["ours"]]) for kind in rivals}
    absent, third = "", sides.vllm.run(asked)
    if isinstance(third, generate_run.Run):
        rivals["vllm"] = generate_run.figures(third, asked, read, bandwidth, None)
        rivals["vllm"] |= generate_run.agreement(third, reference, sides.torch.margin)
        speedups["speedup_vs_vllm"] = third.seconds / _median(runs[best["ours"]])
    else:
        absent = third.reason
    return {
        **speedups,
        **found["ours"],
        "compile_seconds": compiled,
        "warm_up_seconds": warm_up,
        "rivals": rivals,
        "no_vllm": absent,
    }


def _ways(sides: Sides, plan: Plan) -> dict[Way, Answer]:
    def loop(asked: Asked) -> generate_run.Run:
        return sides.torch.loop(asked, generate_cases.sample(asked, plan.loop) if plan.loop else asked)

    def static(batch: int, asked: Asked) -> generate_run.Run:
        return sides.torch.static(asked, batch)

    def ours(slots: int, asked: Asked) -> generate_run.Run:
        return sides.ours.run(asked, slots)

    ways: dict[Way, Answer] = {("batch1", 1): loop}
    ways |= {("static", batch): functools.partial(static, batch) for batch in plan.static}
    return ways | {("ours", slots): functools.partial(ours, slots) for slots in plan.slots}


def _rounds(ways: dict[Way, Answer], asked: Asked, rounds: int) -> dict[Way, list[generate_run.Run]]:
    """Every way `rounds` times, the order turned around each time."""
    runs: dict[Way, list[generate_run.Run]] = {way: [] for way in ways}
    for number in range(rounds):
        for way in ways if number % 2 == 0 else reversed(ways):
            time.sleep(REST)
            runs[way].append(ways[way](asked))
            print(f"{way[0]} {way[1]}: {runs[way][-1].seconds:.1f} s", file=sys.stderr)
    return runs


def _median(runs: Sequence[generate_run.Run]) -> float:
    return statistics.median(run.seconds for run in runs)


def _speedup(theirs: Sequence[generate_run.Run], ours: Sequence[generate_run.Run]) -> float:
    return statistics.median(b.seconds / a.seconds for a, b in zip(ours, theirs, strict=True))

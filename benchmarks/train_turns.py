"""Turns of train_step.py: a side takes two steps on a batch, and the second counts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
import pathlib
import time
from typing import Any, NamedTuple

import jax

from benchmarks import torch_side
from vlguard_jax import config
from vlguard_jax.planning import estimate
from vlguard_jax.training import feed
from vlguard_jax.training import optimizer
from vlguard_jax.training import setup

SIDES = ("torch", "ours")
REST = 0.2  # seconds between turns: the other side's threads go to sleep

Figures = dict[str, Any]


class Side(NamedTuple):
    """put: a step's batch on the device; train: (batch, number of the update) -> loss; held: bytes between steps."""

    put: Callable[[Any], Any]
    train: Callable[[Any, int], float]
    held: int


def take(
    sides: Sequence[str], size: Any, case: str, wanted: config.TrainConfig, steps: Sequence[Any], device: str
) -> dict[str, Figures]:
    """{side: its turns and GiB}; the side that goes first alternates."""
    updates = 2 * len(steps)
    made = {"ours": lambda: _ours(wanted, updates), "torch": lambda: _torch(size, case, wanted, updates, device)}
    ready = {side: made[side]() for side in sides}
    turns: dict[str, list[Figures]] = {side: [] for side in sides}
    for number, step in enumerate(steps):
        for side in sides if number % 2 == 0 else reversed(sides):
            turns[side].append(_turn(ready[side], step, 2 * number))
    return {side: {"turns": turns[side], "gib": _gib(side, ready[side].held, turns[side], device)} for side in sides}


def _turn(side: Side, step: Any, update: int) -> Figures:
    batch = side.put(step)
    time.sleep(REST)
    losses = [side.train(batch, update)]
    before = reset_peak()
    began = time.perf_counter()
    losses.append(side.train(batch, update + 1))
    return {"seconds": time.perf_counter() - began, "losses": losses, "bytes": peak_rss() - before}


def _ours(wanted: config.TrainConfig, updates: int) -> Side:
    program = setup.build_program(wanted, setup.load_model(wanted), updates)
    state = program.state

    def train(batch: Any, update: int) -> float:
        nonlocal state
        state, metrics = program.step(state, program.frozen, program.reference, batch)
        jax.block_until_ready(state)
        return float(metrics["loss"])

    held = sum(x.nbytes for x in jax.tree.leaves((program.state, program.frozen)))
    return Side(lambda step: feed.to_device(step.ours, program.mesh), train, held)


def _torch(size: Any, case: str, wanted: config.TrainConfig, updates: int, device: str) -> Side:
    folder, rate = pathlib.Path(wanted.model.path), wanted.optimizer.learning_rate
    trainer = torch_side.Trainer(
        folder, size.model, estimate.lora_of(wanted), device=device, checkpointing=case == "padded"
    )
    factor = optimizer.cosine_factor(updates, wanted.optimizer.warmup_ratio)

    def train(batches: Any, update: int) -> float:
        return trainer.step(batches, rate * float(factor(update)))

    return Side(lambda step: [trainer.put(batch) for batch in step.reference], train, trainer.state_bytes)


def _gib(side: str, held: int, turns: list[Figures], device: str) -> float:
    """On CPU, what the side holds plus the growth of the process in a step; on a GPU, its allocator's peak."""
    if device == "cpu":
        return (held + max(turn["bytes"] for turn in turns[1:])) / 2**30
    if side == "ours":
        return (jax.devices()[0].memory_stats() or {})["peak_bytes_in_use"] / 2**30
    return torch_side.peak_bytes() / 2**30


def reset_peak() -> int:
    """Reset the process's peak memory (Linux); returns bytes held now, 0 if unavailable."""
    try:
        pathlib.Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return 0
    return _status("VmRSS")


def peak_rss() -> int:
    """Peak bytes since `reset_peak`; 0 if unavailable."""
    return _status("VmHWM")


def _status(name: str) -> int:
    path = pathlib.Path("/proc/self/status")
    if not path.exists():
        return 0
    return int(next(line for line in path.read_text().splitlines() if line.startswith(name)).split()[1]) * 1024

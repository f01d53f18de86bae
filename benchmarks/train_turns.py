"""Turns of train_step.py: a side takes two steps on a batch, and the second counts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
import pathlib
import time
from typing import Any

import jax

from benchmarks import torch_side
from vlguard_jax import config
from vlguard_jax.models import config as model_config
from vlguard_jax.training import feed
from vlguard_jax.training import optimizer
from vlguard_jax.training import setup

SIDES = ("torch", "ours")
REST = 0.2  # seconds between turns: the other side's threads go to sleep

Figures = dict[str, Any]
Take = Callable[[Any, int], list[Callable[[], float]]]


def lora_of(wanted: config.TrainConfig) -> model_config.LoraConfig | None:
    """The adapters of our settings."""
    return model_config.LoraConfig(wanted.lora.rank, wanted.lora.alpha, wanted.lora.dropout) if wanted.lora.rank else None


def take(sides: Sequence[str], size: Any, case: str, wanted: config.TrainConfig, steps: Sequence[Any], device: str) -> dict[str, Figures]:
    """{side: its turns and GiB}; of two sides the one that is first changes from turn to turn."""
    made = {"ours": _ours, "torch": _torch}
    ready = {side: made[side](size, case, wanted, 2 * len(steps), device) for side in sides}
    turns: dict[str, list[Figures]] = {side: [] for side in sides}
    for number, step in enumerate(steps):
        for side in sides if number % 2 == 0 else reversed(sides):
            turns[side].append(_turn(ready[side][0](step, 2 * number)))
    return {side: {"turns": turns[side], "gib": _gib(side, ready[side][1], turns[side], device)} for side in sides}


def _turn(pair: list[Callable[[], float]]) -> Figures:
    time.sleep(REST)
    losses = [pair[0]()]
    before = reset_peak()
    began = time.perf_counter()
    losses.append(pair[1]())
    return {"seconds": time.perf_counter() - began, "losses": losses, "bytes": peak_rss() - before}


def _ours(size: Any, case: str, wanted: config.TrainConfig, updates: int, device: str) -> tuple[Take, int]:
    program = setup.build_program(wanted, setup.load_model(wanted), updates)
    state = program.state

    def pair(step: Any, update: int) -> list[Callable[[], float]]:
        batch = feed.to_device(step.ours, program.mesh)

        def one() -> float:
            nonlocal state
            state, metrics = program.step(state, program.frozen, program.reference, batch)
            jax.block_until_ready(state)
            return float(metrics["loss"])

        return [one, one]

    return pair, sum(x.nbytes for x in jax.tree.leaves((program.state, program.frozen)))


def _torch(size: Any, case: str, wanted: config.TrainConfig, updates: int, device: str) -> tuple[Take, int]:
    folder, rate = pathlib.Path(wanted.model.path), wanted.optimizer.learning_rate
    trainer = torch_side.Trainer(folder, size.model, lora_of(wanted), device=device, checkpointing=case == "padded")
    factor = optimizer.cosine_factor(updates, wanted.optimizer.warmup_ratio)

    def pair(step: Any, update: int) -> list[Callable[[], float]]:
        batches = [trainer.put(batch) for batch in step.reference]
        return [
            lambda: trainer.step(batches, rate * float(factor(update))),
            lambda: trainer.step(batches, rate * float(factor(update + 1))),
        ]

    return pair, trainer.state_bytes


def _gib(side: str, held: int, turns: list[Figures], device: str) -> float:
    """On CPU what the side holds and the growth of the process in a step, on a GPU its own allocator's peak."""
    if device == "cpu":
        return (held + max(turn["bytes"] for turn in turns[1:])) / 2**30
    if side == "ours":
        return (jax.devices()[0].memory_stats() or {})["peak_bytes_in_use"] / 2**30
    return torch_side.peak_bytes() / 2**30


def reset_peak() -> int:
    """Forget the process's peak memory (Linux); returns bytes held now, 0 where that is not to be had."""
    try:
        pathlib.Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return 0
    return _status("VmRSS")


def peak_rss() -> int:
    """Bytes, most since `reset_peak`; 0 where that is not to be had."""
    return _status("VmHWM")


def _status(name: str) -> int:
    path = pathlib.Path("/proc/self/status")
    if not path.exists():
        return 0
    return int(next(line for line in path.read_text().splitlines() if line.startswith(name)).split()[1]) * 1024

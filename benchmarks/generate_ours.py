"""Our side of generate.py: the engine, asked prompt by prompt with limits of their own."""

from __future__ import annotations

from collections.abc import Sequence
import gc
import pathlib

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import generate_cases
from benchmarks import generate_run
from vlguard_jax import config
from vlguard_jax import errors
from vlguard_jax import types
from vlguard_jax.checkpoints import load as load_lib
from vlguard_jax.generation import engine as engine_lib

COMPILING = "/jax/core/compile/backend_compile_duration"
SUM_BYTES = 2**30


class Compiler:
    """Seconds that XLA has taken to compile since the start."""

    def __init__(self) -> None:
        self.seconds = 0.0
        jax.monitoring.register_event_duration_secs_listener(self._heard)

    def _heard(self, event: str, duration_secs: float, **_: str | int) -> None:
        if event == COMPILING:
            self.seconds += duration_secs


class Ours:
    """The engine of a checkpoint folder. Every run has a new one: what an engine keeps of its prompts must not help the
    next run; programs are compiled once. longest: tokens of the longest answer."""

    def __init__(self, folder: pathlib.Path, longest: int):
        self._loaded = load_lib.load(str(folder))
        self._longest = longest
        self.compute = "fp32" if jax.default_backend() == "cpu" else "bf16"
        self._compiler = Compiler()

    @property
    def compile_seconds(self) -> float:
        """Of all programs so far."""
        return self._compiler.seconds

    def warm_up(self, asked: Sequence[generate_cases.Question], slots: int) -> float:
        """Compile what the prompts need, with a few of each length; returns seconds."""
        by_length = sorted(asked, key=lambda one: one.tokens)
        few = by_length[:: max(1, len(asked) // 16)] + by_length[-1:]
        first = {one.prompt.id: one for one in [*few, max(asked, key=lambda one: one.answer)]}
        with generate_run.Clock() as clock:
            self._answer(list(first.values()), slots)
            self._answer(generate_run.cut(asked[: 2 * slots], 2), slots)  # all slots in use
        return clock.seconds

    def run(self, asked: Sequence[generate_cases.Question], slots: int) -> generate_run.Run:
        """Answer all; once more where something was compiled meanwhile."""
        before = self._compiler.seconds
        found = self._answer(asked, slots)
        return found if self._compiler.seconds == before else self._answer(asked, slots)

    def _answer(self, asked: Sequence[generate_cases.Question], slots: int) -> generate_run.Run:
        gc.collect()  # the last engine's memory
        engine = self._engine(slots)
        answers: dict[str, np.ndarray] = {}
        with generate_run.Clock() as clock:
            for one in asked:
                engine.submit(one.prompt, engine_lib.Limits(one.answer, one.answer, ()))
            while engine.busy:
                for made in engine.step():
                    if not isinstance(made, types.Generation):
                        raise errors.UserError(made.message)
                    answers[made.id] = made.ids
        counts = engine.counts
        return generate_run.Run(
            side="ours",
            setting=slots,
            asked=tuple(asked),
            answers=answers,
            seconds=clock.seconds,
            cpu=clock.cpu,
            steps=counts.steps,
            wasted=counts.wasted,
            prefills=counts.prefills,
        )

    def _engine(self, slots: int) -> engine_lib.Engine:
        return engine_lib.Engine(
            self._loaded.config,
            self._loaded.params,
            settings=config.DecodeSettings(max_new_tokens=self._longest, min_new_tokens=1, batch_size=slots),
            precision=config.PrecisionSettings(compute=self.compute),  # type: ignore[arg-type]
            stop_ids=(),
        )


def bandwidth() -> float:
    """Bytes a second of a sum of fp32 numbers through XLA."""
    numbers, total = jnp.ones((SUM_BYTES // 4,), jnp.float32), jax.jit(jnp.sum)

    def once() -> float:
        with generate_run.Clock() as clock:
            total(numbers).block_until_ready()
        return clock.seconds

    return SUM_BYTES / generate_run.fastest(once)

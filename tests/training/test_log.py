"""How long updates take is told without what compiles before them."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent import futures
import contextlib
from typing import Any, NamedTuple

import numpy as np

from vlguard_jax import config
from vlguard_jax.training import log as log_lib


class Batch(NamedTuple):
    """Of one array, which has all that is asked: its shape."""

    tokens: np.ndarray


class Writer:
    """Notes what it is told."""

    def __init__(self) -> None:
        self.seconds: list[float] = []
        self.compiled = 0

    @contextlib.contextmanager
    def compiling(self) -> Iterator[None]:
        self.compiled += 1
        yield

    def show(self, step: int, values: dict[str, float]) -> None:
        self.seconds.append(values["step_seconds"])

    def write(self, step: int, values: dict[str, float]) -> None:
        assert values["tokens_per_second"] == 10 / values["step_seconds"]


def test_compiling_is_not_the_time_of_an_update() -> None:
    """Each update takes two seconds; the programs of two shapes 60 and 30, the second while an update is under way."""
    now = [0.0]
    writer: Any = Writer()
    log = log_lib.Log(writer, config.TrainConfig(), 4, lambda: None, lambda step, values: None, lambda: now[0])
    # (rows, when its start begins, when it has returned, when the update is finished)
    for update, (rows, began, ended, finished) in enumerate(
        [(4, 1, 61, 63), (4, 62, 62, 65), (8, 64, 94, 96), (4, 95, 95, 98)], 1
    ):
        now[0] = began
        with log.starting(Batch(np.zeros((rows, 2)))):  # type: ignore[arg-type]
            now[0] = ended
        moment: futures.Future[float] = futures.Future()
        moment.set_result(float(finished))
        log.settle()
        values: Any = {"loss": np.float32(1), "skipped": np.float32(0)}
        log.follow(update, values, moment, {"tokens": 10.0, "learning_rate": 0.1}, 0.0)
    log.conclude()
    assert writer.seconds == [3.0, 2.0, 1.0 + 1.0, 2.0]  # the first with the second before it was started
    assert writer.compiled == 2

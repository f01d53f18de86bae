"""Writes a run's metrics to metrics.jsonl (always), to what `config.run` names (tracking.py) and to the terminal."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
import contextlib
import json
import logging
from pathlib import Path
import time
from types import TracebackType
from typing import Any

from vlguard_jax import errors
from vlguard_jax import files
from vlguard_jax import limits
from vlguard_jax import progress
from vlguard_jax import terminal
from vlguard_jax.safety import probes
from vlguard_jax.training import losses
from vlguard_jax.training import tracking

METRICS_FILE = "metrics.jsonl"
SCHEMA = 1
SLOW_INPUT = 0.05  # share of the time from which on the user is told that the devices wait for input


def cut_back(path: Path, step: int) -> int:
    """Drop lines of metrics.jsonl, probe.jsonl or spikes.jsonl after `step` (a resumed run writes them again), and one
    that is torn; returns their number. Other lines that cannot be read are dropped, too, and told. Raises UserError
    where the file cannot be read, as a folder of the name."""
    if not path.exists():
        return 0
    lines = files.read_bytes(path, limits.RESULT_BYTES).splitlines()
    kept: list[bytes] = []
    for number, line in enumerate(lines, 1):
        try:
            keep = files.parse_json(line, str(path))["step"] <= step
        except (errors.UserError, KeyError, TypeError):
            keep = False
            if number < len(lines):
                terminal.say(f"{path}: line {number} cannot be read, and is left out from now on")
        if keep:
            kept.append(line)
    files.write_bytes(path, b"".join(line + b"\n" for line in kept))
    return len(lines) - len(kept)


def validated(workdir: Path, step: int) -> list[int]:
    """The updates up to `step` after which metrics.jsonl has the loss on what is held out."""
    path = workdir / METRICS_FILE
    cut_back(path, step)
    lines = files.read_bytes(path, limits.RESULT_BYTES).splitlines() if path.exists() else []
    found = (files.parse_json(line, str(path)) for line in lines)
    return [int(values["step"]) for values in found if "validation/loss" in values]


def of_step(fetched: Mapping[str, Any], counted: Mapping[str, float], sources: Sequence[str]) -> dict[str, float]:
    """The logged metrics of one step: what the devices computed and what the host `counted`.

    A loss's sums by source become `loss/<source>`, the mean cross-entropy per supervised token, for each source in the
    step.
    """
    values = {name: float(value) for name, value in fetched.items() if name != losses.BY_SOURCE}
    for source, total in zip(sources, fetched.get(losses.BY_SOURCE, ()), strict=False):
        if tokens := counted.get(f"supervised_tokens/{source}"):
            values[f"loss/{source}"] = float(total) / tokens
    return {**values, **counted}


class Writer:
    """Writes one line of metrics per logged step; a context manager. Only the first process writes, and has
    `trackers`, which are closed at the end."""

    def __init__(
        self,
        workdir: Path,
        *,
        start_step: int,
        total_steps: int,
        active: bool,
        trackers: Sequence[tracking.Tracker] = (),
    ):
        self._active, self._workdir, self._trackers = active, workdir, trackers
        self._stack = contextlib.ExitStack()
        self._file = None
        self._left = total_steps - start_step
        self._updates = progress.Updates(start_step, total_steps, time.monotonic())
        self._display = progress.Display(self._updates, total_steps, console=terminal.console(quiet=not active))
        for tracker in trackers:
            self._stack.callback(tracker.close)
        if active:
            cut_back(workdir / METRICS_FILE, start_step)
            self._file = self._stack.enter_context(open(workdir / METRICS_FILE, "ab", buffering=0))  # noqa: SIM115 -- it is one

    def __enter__(self) -> Writer:
        if self._left:
            self._updates.busy("reading the first batch", time.monotonic())
        self._stack.enter_context(self._display)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def say(self, text: str) -> None:
        """Write one line to this process's log and, where the writer is active, to the terminal above the progress
        bar."""
        logging.getLogger(__name__).info(text)
        if self._active:
            self._display.console.print(text, soft_wrap=True)

    @contextlib.contextmanager
    def compiling(self) -> Iterator[None]:
        """Show that the next update waits for its program."""
        self._updates.busy("compiling", time.monotonic())
        self._display.tell()
        yield
        self._updates.busy("")

    def show(self, step: int, values: Mapping[str, float]) -> None:
        """Show that update `step` (from 1) is done, and its metrics."""
        figures = f"loss {values['loss']:.4f}, lr {values['learning_rate']:.1e}, {values['step_seconds']:.2f} s/step"
        figures += f", {values['tokens_per_second']:,.0f} tok/s"
        if values["input_wait"] >= SLOW_INPUT:
            figures += f", {100 * values['input_wait']:.0f} % waiting for input"
        self._updates.add(step, values["step_seconds"], figures)
        self._display.moved()

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Store the metrics of update `step` (from 1)."""
        self._store(step, values)
        if self._active:
            terminal.event("update", step=step, **values)

    def validated(self, step: int, values: Mapping[str, float]) -> None:
        """Store and tell the loss after update `step` on what is held out."""
        prefix = "validation/loss/"
        of = ", ".join(f"{name.removeprefix(prefix)} {v:.4f}" for name, v in values.items() if name.startswith(prefix))
        of = f" ({of})" if "," in of else ""
        tokens, seconds = values["validation/supervised_tokens"], values["validation/seconds"]
        self.say(
            f"validation after update {step}: loss {values['validation/loss']:.4f}{of} on {tokens:,.0f} tokens; took"
            f" {seconds:.1f} s"
        )
        self._store(step, values)
        if self._active:
            terminal.event("validation", step=step, **values)

    def _store(self, step: int, values: Mapping[str, float]) -> None:
        if not self._active:
            return
        assert self._file is not None
        files.append(self._file, json.dumps({"schema": SCHEMA, "step": step, **values}).encode() + b"\n")
        for tracker in self._trackers:
            tracker.scalars(step, values)

    @contextlib.contextmanager
    def probing(self, name: str, done: int, total: int) -> Iterator[Callable[[int], None]]:
        """Show in the progress bar that evaluation `name` is on; yields a function to call with each new answer's
        tokens."""
        answers = done

        def show() -> None:
            self._updates.busy(f"probing {name}, answers {answers:,}/{total:,}")
            self._display.moved()

        def advance(tokens: int) -> None:
            nonlocal answers
            answers += 1
            show()

        show()
        try:
            yield advance
        finally:
            self._updates.busy("")

    def probed(self, probe: probes.Probe, shown: Sequence[tracking.Answer]) -> None:
        """Store a probe, and show its rates and these of its answers."""
        if not self._active:
            return
        with open(self._workdir / probes.FILE, "ab", buffering=0) as file:
            files.append(file, probes.line(probe))
        for tracker in self._trackers:
            tracker.scalars(probe.step, {f"probe/{rate.name}": rate.rate for rate in probe.rates})
            tracker.answers(probe.step, shown)

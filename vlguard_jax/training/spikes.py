"""Records updates whose loss lies far above the recent ones or is not finite, with the conversations they learned from.

Nothing that is computed depends on it. The recent losses are saved with the state, so that a resumed run writes the
lines that an uninterrupted one writes.
"""

from __future__ import annotations

import collections
from collections.abc import Callable, Iterable, Mapping
import json
import math
from pathlib import Path
import statistics

from vlguard_jax import errors
from vlguard_jax import files
from vlguard_jax.training import metrics
from vlguard_jax.training import setup

FILE = "spikes.jsonl"
SCHEMA = 1
WINDOW, ENOUGH = 64, 16  # losses that one is compared with, and the fewest that say anything
DEVIATIONS = 8.0  # of these losses from their median, each the median deviation, scaled to a normal distribution's
SHARE = 0.25  # of the median: losses that hardly vary make no spike of a ripple
LEAST = 0.1  # nats: what is learned by heart, at losses near 0, makes no spikes
_NORMAL = 1.4826


def limit(recent: Iterable[float]) -> float:
    """The loss from which on one is a spike after these: median + max(8 x 1.4826 x MAD, median / 4, 0.1); infinity
    where they are fewer than 16. MAD: median absolute deviation."""
    losses = list(recent)
    if len(losses) < ENOUGH:
        return math.inf
    median = statistics.median(losses)
    spread = statistics.median(abs(loss - median) for loss in losses)
    return median + max(DEVIATIONS * _NORMAL * spread, SHARE * abs(median), LEAST)


class Spikes:
    """Watches the loss of every update after `first`. active: whether this process writes."""

    def __init__(
        self,
        workdir: Path,
        held: Callable[[int], list[tuple[str, str]]],
        say: Callable[[str], None],
        first: int,
        recent: Iterable[float] = (),
        *,
        active: bool,
    ):
        """Cuts the file back to update `first`. held: see `held`; say: takes lines for the terminal; recent: losses
        before, from the checkpoint."""
        self._path, self._held, self._say, self._active = workdir / FILE, held, say, active
        self._recent = collections.deque(recent, WINDOW)
        if active:
            metrics.cut_back(self._path, first)

    @property
    def recent(self) -> list[float]:
        """The last finite losses."""
        return list(self._recent)

    def note(self, update: int, values: Mapping[str, float]) -> None:
        """Look at the metrics of update `update` (from 1); each must come once, in order."""
        loss, skipped = values["loss"], bool(values["skipped"])
        far = loss > limit(self._recent)
        median = statistics.median(self._recent) if self._recent else None
        if math.isfinite(loss) and not skipped:
            self._recent.append(loss)
        if far and not skipped:
            assert median is not None
            self._say(
                f"update {update}: loss {loss:.4g} is far above its recent median {median:.4g}; its conversations are"
                f" in {FILE}"
            )
        if (far or skipped) and self._active:
            self._append(update, values, median)

    def _append(self, update: int, values: Mapping[str, float], median: float | None) -> None:
        line = {
            "schema": SCHEMA,
            "step": update,
            "loss": _finite(values["loss"]),
            "median": median,
            "grad_norm": _finite(values["grad_norm"]),
            "skipped": bool(values["skipped"]),
            "loss_by_source": {
                name.removeprefix("loss/"): _finite(value) for name, value in values.items() if name.startswith("loss/")
            },
            "conversations": [{"source": source, "id": id_} for source, id_ in self._held(update)],
        }
        with open(self._path, "ab", buffering=0) as file:
            files.append(file, json.dumps(line).encode() + b"\n")


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def held(data: setup.Data, update: int) -> list[tuple[str, str]]:
    """(source, id) of the conversations of update `update` (from 1)."""
    samples, index = data.plan[update - 1].samples, data.mixture.index
    return [(index.source_names[int(index.source[i])], index.ids[int(i)]) for i in samples]


def told(conversations: Iterable[tuple[str, str]]) -> str:
    """Conversations in a message, the first ones by name."""
    by_source: dict[str, list[str]] = collections.defaultdict(list)
    for source, id_ in conversations:
        by_source[source].append(id_)
    parts = []
    for source, ids in sorted(by_source.items()):
        more = f" and {len(ids) - errors.MOST_NAMES} more" if len(ids) > errors.MOST_NAMES else ""
        names = ", ".join(id_ if len(id_) <= 60 else f"{id_[:60]}..." for id_ in ids[: errors.MOST_NAMES])
        parts.append(f"{names}{more} of {source}")
    return "; ".join(parts)

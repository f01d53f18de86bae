"""Hostile working directories: result lines, summaries, metrics, probes and configs of another program."""

from __future__ import annotations

import atexit
import functools
import json
import pathlib
import random
import shutil
import tempfile

from tests.faults import documents
from tests.faults import sandbox
from tests.reporting import stand
from tests.safety import test_probes
from vlguard_jax.reporting import page
from vlguard_jax.reporting import runs
from vlguard_jax.safety import probes

LINES = ("generations.jsonl", "verdicts.jsonl", "metrics.jsonl", probes.FILE)
DOCUMENTS = ("summary.json", "config.json")


@functools.cache
def _sound() -> pathlib.Path:
    """A training and an evaluation, made once."""
    top = pathlib.Path(tempfile.mkdtemp(prefix="vlguard_jax-faults-runs-"))
    atexit.register(shutil.rmtree, top, ignore_errors=True)
    (top / "benchmark").mkdir()
    benchmark = stand.write_benchmark(top / "benchmark", records=2)
    stand.evaluate(top / "runs" / "eval", benchmark, "model", stand.refuses_harm)
    stand.train(top / "runs" / "train", updates=4)
    (top / "runs" / "train" / probes.FILE).write_bytes(b"".join(map(probes.line, test_probes.RUN)))
    return top / "runs"


def _report(folder: pathlib.Path) -> object:
    text = page.render(runs.find([folder]), title="t", fold_unsafe=True)
    for bad in ("\u001b", "<script>alert", "\0", "\u202e"):
        assert bad not in text, f"the page holds {bad!r}"
    return len(text) > 1000


def make(rng: random.Random, folder: pathlib.Path) -> sandbox.Trial:
    """Working directories with one file changed, made into a report."""
    shutil.copytree(_sound(), folder / "runs")
    if rng.random() < 0.1:
        return sandbox.Trial("sound", lambda: _report(folder / "runs"), True, must_read=True)
    path = rng.choice([p for p in sorted((folder / "runs").rglob("*")) if p.name in LINES + DOCUMENTS])
    if path.name in DOCUMENTS:
        what, data = documents.change(rng, json.loads(path.read_bytes()))
    else:
        lines = path.read_bytes().split(b"\n")[:-1]
        at = rng.randrange(len(lines))
        what, lines[at] = documents.change(rng, json.loads(lines[at]))
        data = b"\n".join(lines) + b"\n"
    path.write_bytes(data)
    return sandbox.Trial(f"{path.parent.name}/{path.name}: {what}", lambda: _report(folder / "runs"), sandbox.Anything)

"""The packing benchmark: its length model, its figures against plain arithmetic, its output, and the bars at full
size."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import sys

import numpy as np
import pytest

from benchmarks import packing
from tests import memory
from tests import source
from vlguard_jax.data import order

LIMIT = 20_000


@dataclasses.dataclass(frozen=True)
class Run:
    """One start of the program: what it printed, and its peak memory in bytes."""

    out: str
    memory: float


def run(*arguments: str, code: int = 0) -> Run:
    environment = {**os.environ, "PYTHONPATH": str(source.ROOT)}
    done, peak = memory.run([sys.executable, "benchmarks/packing.py", *arguments], cwd=source.ROOT, env=environment)
    assert done.returncode == code, done.stderr
    return Run(done.stdout or done.stderr, peak)


@pytest.fixture(scope="module")
def full() -> Run:
    return run("--json")


def test_length_model() -> None:
    """The estimate that the program names: size, share of texts, lengths of both kinds."""
    index = packing.mixture(0, 0)
    assert len(index) == 665_298 + 2_000
    shown, texts = index.length[index.pictures > 0], index.length[index.pictures == 0]
    assert len(texts) / len(index) == pytest.approx(0.061, abs=0.001)
    assert shown.mean() == pytest.approx(825, rel=0.01) and np.median(shown) == pytest.approx(783, rel=0.01)
    assert np.percentile(shown, 99) == pytest.approx(1280, rel=0.03) and texts.mean() == pytest.approx(1230, rel=0.01)
    assert index.length.max() == 2048 and index.length.min() > packing.PROMPT
    assert 831 <= index.length.mean() <= 853
    assert np.array_equal(index.modality_length > 0, index.pictures > 0)


def test_limit_keeps_the_shares() -> None:
    few, all_of_them = packing.mixture(LIMIT, 1), packing.mixture(0, 1)
    assert len(few) == pytest.approx(LIMIT, abs=len(packing.SOURCES))
    assert np.bincount(few.source) / len(few) == pytest.approx(
        np.bincount(all_of_them.source) / len(all_of_them), abs=1e-3
    )


def test_reference_sampler_by_hand() -> None:
    index = packing.mixture(LIMIT, 0)
    drawn = order.epoch_order("modality_length", index.modality_length, 128, 16, 3, 0)
    computed = waiting = real = 0
    for step in range(len(drawn) // 128):
        ranks = [[int(index.length[i]) for i in drawn[128 * step + 16 * rank :][:16]] for rank in range(8)]
        computed += sum(16 * max(rank) for rank in ranks)
        waiting += 128 * max(max(rank) for rank in ranks)
        real += sum(map(sum, ranks))
    assert packing.reference_sampler(index, 3) == {
        "computed_over_real": computed / real,
        "synchronised": waiting / real,
    }


@pytest.mark.parity
def test_bars_at_full_size(full: Run) -> None:
    """All ten plans of an epoch of 667k conversations take less than 2 GB; how long they take, the program says."""
    assert full.memory < 2e9
    found = json.loads(full.out)["data_parallel"]  # and nothing else on stdout
    for kind, bars in packing.BARS.items():
        for size, bar in bars.items():
            assert found[str(size)][kind]["computed_over_real"] <= bar, (kind, size)


@pytest.mark.parity
def test_figures(full: Run) -> None:
    found = json.loads(full.out)
    assert list(found) == ["data_parallel", "pad", "reference_sampler"]
    assert list(found["data_parallel"]) == ["1", "8", "16", "32", "64"]
    index = packing.mixture(0, 0)
    steps = -(-len(index) // 128)
    for size, kinds in found["data_parallel"].items():
        assert list(kinds) == ["random", "even"]
        for figures in kinds.values():
            assert set(figures) == {"computed_over_real", "row_len", "rows"}
            assert figures["rows"] % int(size) == 0 and figures["row_len"] % 128 == 0 and figures["row_len"] <= 8192
            real = steps * figures["rows"] * figures["row_len"] / figures["computed_over_real"]
            assert real == pytest.approx(index.length.mean() * 128 * steps, rel=1e-3)  # exactly 128 a step
        assert kinds["even"]["computed_over_real"] <= kinds["random"]["computed_over_real"]
    assert found["pad"]["rows"] == 128 and len(found["pad"]["row_len"]) == 4
    assert found["reference_sampler"] == packing.reference_sampler(index, 0)


def test_table() -> None:
    lines = run(f"--limit={LIMIT}", "--seed=4").out.splitlines()
    assert lines[0].strip().startswith(f"{len(packing.mixture(LIMIT, 4)):,} conversations, 128 a step, mean 8")
    rows = [[cell.strip() for cell in line.split("│")[1:-1]] for line in lines if line.startswith("│")]
    assert [row[0] for row in rows] == ["1", "1", "8", "8", "16", "16", "32", "32", "64", "64", "-", "-"]
    assert [row[5] for row in rows] == ["1.12", "1.06", "1.12", "1.06", "1.12", "1.06", "1.17", "1.09", *["-"] * 4]
    assert rows[1][1] == "dealt evenly, window 32" and all(1 <= float(row[4]) < 2 for row in rows[:-1])
    waiting = packing.reference_sampler(packing.mixture(LIMIT, 4), 4)
    assert rows[-1][4] == f"{waiting['computed_over_real']:.3f} ({waiting['synchronised']:.3f} with waiting)"
    assert re.fullmatch(r"packed plans: \d+\.\d s \(bar: 60\)", lines[-2])
    assert lines[-1].startswith("peak memory ") and lines[-1].endswith("seed 4")


def test_too_few_conversations() -> None:
    failed = run("--limit=100", code=2).out
    assert failed.startswith("error: --limit=100: ") and "\n" not in failed

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
from vlguard_jax.data import index as index_lib
from vlguard_jax.data import order
from vlguard_jax.families import table

LIMIT = 20_000
TILED = "llava-v1.6-vicuna-7b"


@dataclasses.dataclass(frozen=True)
class Run:
    """One start of the program: what it printed, and its peak memory in bytes."""

    out: str
    memory: float


def run(*arguments: str, code: int = 0, program: tuple[str, ...] = ("benchmarks/packing.py",)) -> Run:
    environment = {**os.environ, "PYTHONPATH": str(source.ROOT)}
    done, peak = memory.run([sys.executable, *program, *arguments], cwd=source.ROOT, env=environment)
    assert done.returncode == code, done.stderr
    return Run(done.stdout or done.stderr, peak)


def mixture(limit: int, seed: int, model: str = "llava-v1.5-7b") -> index_lib.SampleIndex:
    return packing.mixture(limit, seed, table.PRESETS[model])


@pytest.fixture(scope="module")
def full() -> Run:
    return run("--json")


@pytest.fixture(scope="module")
def full_of_tiles() -> Run:
    return run("--json", f"--model={TILED}")


def test_length_model() -> None:
    """The estimate that the program names: size, share of texts, lengths of both kinds."""
    index = mixture(0, 0)
    assert len(index) == 665_298 + 2_000
    shown, texts = index.length[index.pictures > 0], index.length[index.pictures == 0]
    assert len(texts) / len(index) == pytest.approx(0.061, abs=0.001)
    assert shown.mean() == pytest.approx(825, rel=0.01) and np.median(shown) == pytest.approx(783, rel=0.01)
    assert np.percentile(shown, 99) == pytest.approx(1280, rel=0.03) and texts.mean() == pytest.approx(1230, rel=0.01)
    assert index.length.max() == 2048 and index.length.min() > packing.PROMPT
    assert 831 <= index.length.mean() <= 853
    assert np.array_equal(index.modality_length > 0, index.pictures > 0)


def test_limit_keeps_the_shares() -> None:
    few, all_of_them = mixture(LIMIT, 1), mixture(0, 1)
    assert len(few) == pytest.approx(LIMIT, abs=len(packing.SOURCES))
    assert np.bincount(few.source) / len(few) == pytest.approx(
        np.bincount(all_of_them.source) / len(all_of_them), abs=1e-3
    )


def test_reference_sampler_by_hand() -> None:
    index = mixture(LIMIT, 0)
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


@pytest.mark.more
def test_bars_at_full_size(full: Run) -> None:
    """All ten plans of an epoch of 667k conversations take less than 2 GB; how long they take, the program says."""
    assert full.memory < 2e9
    found = json.loads(full.out)["data_parallel"]  # and nothing else on stdout
    for kind, bars in packing.BARS.items():
        for size, bar in bars.items():
            assert found[str(size)][kind]["computed_over_real"] <= bar, (kind, size)


@pytest.mark.more
def test_figures(full: Run) -> None:
    found = json.loads(full.out)
    assert list(found) == ["data_parallel", "pad", "reference_sampler", "missed"] and found["missed"] == []
    assert list(found["data_parallel"]) == ["1", "8", "16", "32", "64"]
    index = mixture(0, 0)
    steps = -(-len(index) // 128)
    for size, kinds in found["data_parallel"].items():
        assert list(kinds) == ["random", "even"]
        for figures in kinds.values():
            assert set(figures) == {"computed_over_real", "units_over_real", "row_len", "rows"}
            (rows,), (row_len,) = figures["rows"], figures["row_len"]
            assert rows % int(size) == 0 and row_len % 128 == 0 and row_len <= 8192
            real = steps * rows * row_len / figures["computed_over_real"]
            assert real == pytest.approx(index.length.mean() * 128 * steps, rel=1e-3)  # exactly 128 a step
        assert kinds["even"]["computed_over_real"] <= kinds["random"]["computed_over_real"]
    assert found["pad"]["rows"] == [128] * 4 and len(found["pad"]["row_len"]) == 4
    assert found["reference_sampler"] == packing.reference_sampler(index, 0)


def table_of(lines: list[str]) -> list[list[str]]:
    """Its rows; a further shape of a line stands below and is left out."""
    rows = [[cell.strip() for cell in line.split("│")[1:-1]] for line in lines if line.startswith("│")]
    return [row for row in rows if row[0]]


def test_table() -> None:
    """Of few steps, whose fullest happens to be so full that two bars are missed."""
    lines = run(f"--limit={LIMIT}", "--seed=4", code=1).out.splitlines()
    assert lines[0].strip().startswith(f"{len(mixture(LIMIT, 4)):,} conversations, 128 a step, mean 8")
    rows = table_of(lines)
    assert [row[0] for row in rows] == ["1", "1", "8", "8", "16", "16", "32", "32", "64", "64", "-", "-"]
    assert [row[4] for row in rows] == ["1.12", "1.06", "1.12", "1.06", "1.12", "1.06", "1.17", "1.09", *["-"] * 4]
    assert rows[1][1] == "dealt evenly, window 32" and all(1 <= float(row[3]) < 2 for row in rows[:-1])
    assert all(1 <= float(row[5]) < 2 and row[6] == "-" for row in rows[:-1])
    waiting = packing.reference_sampler(mixture(LIMIT, 4), 4)
    assert rows[-1][3] == f"{waiting['computed_over_real']:.3f} ({waiting['synchronised']:.3f} with waiting)"
    assert re.fullmatch(r"packed plans: \d+\.\d s \(bar: 60\)", lines[-4])
    assert lines[-3].startswith("peak memory ") and lines[-3].endswith("seed 4")
    assert lines[-2:] == [
        f"MISSED: data_parallel {row[0]} random: computed_over_real {row[3]}, at most 1.12"
        for row in rows
        if row[1] == "random" and row[4] == "1.12" and float(row[3]) > 1.12
    ]


def test_model_of_pictures() -> None:
    """Five tiles for most pictures; 11 % of the conversations have none, and the longest picture is a whole square."""
    index = mixture(0, 0, TILED)
    assert len(index) == 665_298 + 2_000 + 105_000
    assert (index.pictures == 0).mean() == pytest.approx(0.11, abs=0.002)
    assert set(np.unique(index.units)) == {0, 3, 4, 5} and index.slots.max() == 576 + 48 * 49
    assert index.length.max() == 4096 and (index.length > index.slots).all()
    assert ((index.units > 0) == (index.slots > 0)).all() and ((index.units > 0) == (index.pictures > 0)).all()
    same = mixture(0, 0)
    assert (same.units == same.pictures).all() and (same.slots == 576 * same.pictures).all()


def run_patched(patch: str, *arguments: str, code: int = 0) -> Run:
    """As `run`, with other values of the module's constants."""
    program = f"from benchmarks import packing; {patch}; packing.cli.run(packing.main)"
    return run("--limit=4200", f"--model={TILED}", *arguments, code=code, program=("-c", program))


@pytest.mark.more
def test_tiles() -> None:
    lines = run_patched("packing.DATA_PARALLEL = 8, 16, 32").out.splitlines()
    assert lines[0].strip().endswith(" tiles")
    rows = table_of(lines)
    assert [row[0] for row in rows] == [size for size in ("8", "16", "32") for _ in range(3)] + ["-", "-"]
    assert [row[1] for row in rows[:3]] == ["random", "dealt evenly, window 32", "grouped by modality"]
    for row in rows[:6]:
        assert (row[4], row[6]) == ("1.12", "1.15") and 1 <= float(row[3]) <= 1.12 and 1 <= float(row[5]) <= 1.15
    assert all((row[4], row[6]) == ("-", "-") for row in rows[6:]) and lines[-1] == "every bar is met"


def test_a_missed_bar_ends_with_1() -> None:
    patch = "packing.DATA_PARALLEL, packing.TOKENS, packing.UNITS = (8,), 1.001, 1.002"
    found = json.loads(run_patched(patch, "--json", code=1).out)
    orders = found["data_parallel"]["8"]
    assert found["missed"] == [
        f"data_parallel 8 {name}: {figure} {orders[name][figure]:.3f}, at most {bar}"
        for name in ("random", "even", "grouped")
        for figure, bar in (("computed_over_real", 1.001), ("units_over_real", 1.002))
    ]


@pytest.mark.more
def test_bars_at_full_size_of_tiles(full_of_tiles: Run) -> None:
    assert full_of_tiles.memory < 2e9
    found = json.loads(full_of_tiles.out)
    assert found["missed"] == [] and list(found["data_parallel"]["8"]) == ["random", "even", "grouped"]
    for size in ("1", "8", "16"):
        for figures in found["data_parallel"][size].values():
            assert figures["computed_over_real"] <= 1.12 and figures["units_over_real"] <= 1.15


def test_unknown_model() -> None:
    failed = run("--model=lava", code=2).out
    assert failed.startswith("error: --model=lava is unknown") and "\n" not in failed


def test_too_few_conversations() -> None:
    failed = run("--limit=100", code=2).out
    assert failed.startswith("error: --limit=100: ") and "\n" not in failed

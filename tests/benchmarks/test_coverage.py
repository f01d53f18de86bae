"""The coverage program: its simulated answers against what they were asked to be, its counting, and its output."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import numpy as np
import pytest
from scipy import stats

from benchmarks import coverage
from tests import source


def test_answers_have_their_rates_and_correlations() -> None:
    """Two questions about one picture, two models: both count as often as the bivariate normal says."""
    rng = np.random.default_rng(0)
    sizes = np.full(20_000, 2)
    first, second = coverage.answers(rng, [0.2, 0.7], sizes, shared=0.5, alike=0.8)
    assert (first.mean(), second.mean()) == pytest.approx((0.2, 0.7), abs=0.01)
    one, other = first.reshape(-1, 2).T
    at = stats.norm.ppf([0.2, 0.7])
    assert (one & other).mean() == pytest.approx(_both(at[0], at[0], 0.5), abs=0.01)
    assert (first & second).mean() == pytest.approx(_both(at[0], at[1], 0.8), abs=0.01)


def _both(a: float, b: float, correlation: float) -> float:
    return float(stats.multivariate_normal.cdf([a, b], cov=[[1, correlation], [correlation, 1]]))


def test_pictures_have_at_least_so_many_questions() -> None:
    assert coverage.pictures((1, 2), 5).tolist() == [1, 2, 1, 2]
    assert coverage.pictures((3,), 200).sum() == 201 and coverage.pictures((1,), 200).tolist() == [1] * 200


def test_seeds_have_their_spread() -> None:
    rng = np.random.default_rng(0)
    rates = coverage.seed_rates(rng, 0.2, 0.05, 20_000)
    assert (rates.mean(), rates.std()) == pytest.approx((0.2, 0.05), abs=0.002)
    assert coverage.seed_rates(rng, 0.2, 0.0, 3).tolist() == [0.2] * 3
    assert coverage.spreads(0.02, 0.0) and coverage.spreads(0.5, 0.1) and not coverage.spreads(0.02, 0.05)


def test_coverage_is_the_share_of_intervals_that_hold_the_truth() -> None:
    """An interval that misses one time in four at rates above a half, and is always right below."""

    def study(rng: np.random.Generator, rate: float, n: int) -> coverage.Study:
        return rate, 0.0, 1.0 if rate <= 0.5 or rng.random() < 0.75 else rate - 0.01

    found = coverage.measure(coverage.Case("x", "y", study), 7, 4000, 0)
    assert (found.n, found.rates) == (7, len(coverage.RATES)) and found.worst_at > 0.5
    assert found.worst == pytest.approx(0.75, abs=0.03)
    above = sum(rate > 0.5 for rate in coverage.RATES) / len(coverage.RATES)
    assert found.coverage == pytest.approx(1 - above / 4, abs=0.01) and not found.met
    assert not coverage.measure(coverage.Case("x", "y", lambda rng, rate, n: (rate, 0.0, 1.0)), 7, 2, 0).met  # too wide


def test_every_case_is_simulated_and_the_interval_is_about_its_truth() -> None:
    """Wide bars for few draws: they would not hold for a truth that is not the interval's."""
    found = [coverage.measure(case, coverage.SIZES[0], 10, 0) for case in coverage.cases()]
    assert {f.interval.partition(",")[0] for f in found} >= {"rate", "paired difference", "attack success"}
    for f in found:
        if f.bar != coverage.NO_BAR:
            assert f.coverage > 0.85 and 0 < f.width < 0.6, f


def test_command() -> None:
    environment = {**os.environ, "PYTHONPATH": str(source.ROOT)}
    command = [sys.executable, "benchmarks/coverage.py"]
    done = subprocess.run(
        [*command, "--json", "--draws=2"], cwd=source.ROOT, env=environment, capture_output=True, text=True
    )
    found = json.loads(done.stdout)
    assert (
        found["draws"] == 2
        and {"interval", "setting", "n", "coverage", "worst", "width", "met"} <= found["cases"][0].keys()
    )
    missed = [case for case in found["cases"] if not case["met"]]
    assert missed and done.returncode == coverage.EXIT_MISSED  # of two draws an average is rarely within its bar
    assert done.stderr.count("\n") == len(missed)
    refused = subprocess.run([*command, "x"], cwd=source.ROOT, env=environment, capture_output=True, text=True)
    assert refused.returncode == 2 and refused.stderr.startswith("error: coverage.py takes --draws")

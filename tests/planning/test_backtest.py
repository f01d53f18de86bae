"""The predictor on published runs: the bar, the stored constants, and the page of the docs."""

from __future__ import annotations

import pathlib

import pytest

from vlguard_jax.planning import backtest
from vlguard_jax.planning import chips
from vlguard_jax.planning import roofline

DOCS = pathlib.Path(__file__).parents[2] / "docs" / "backtest.md"


@pytest.fixture(scope="module")
def results() -> list[backtest.Result]:
    return backtest.results()


def test_bar(results):
    """At most 25 % on at least four of five, runs left out of the fit; and at least five runs."""
    fitted = [line for line in results if line.run.fitted]
    assert len(fitted) >= 20 and len({line.run.topology.chip.name for line in fitted}) == 6
    within = [abs(line.left_out_error) <= backtest.WITHIN for line in fitted]
    assert sum(within) >= 0.8 * len(fitted)


def test_the_stored_constants_are_the_fit(results):
    stored, found = roofline.constants(), backtest.fit([run for run in backtest.runs() if run.fitted])
    assert (stored.attention, stored.network, stored.links, stored.hbm) == (
        found.attention,
        found.network,
        found.links,
        found.hbm,
    )
    assert stored.matmul == pytest.approx(found.matmul, abs=1e-3)
    fitted = [line for line in results if line.run.fitted]
    left_out, new_chip = (
        [abs(getattr(line, name)) for line in fitted] for name in ("left_out_error", "new_chip_error")
    )
    assert roofline.error(chips.known()["v5e"]) == pytest.approx(sum(left_out) / len(fitted), abs=1e-3)
    assert roofline.error(chips.known()["tpu7x"]) == pytest.approx(sum(new_chip) / len(fitted), abs=1e-3)


def test_leaving_a_run_out_leaves_it_out(results):
    """A run's own time decides the prediction that knows it, and not the other."""
    run = backtest.runs()[0]
    fitted = [other for other in backtest.runs() if other.fitted]
    without = backtest.predict(run, backtest.fit([other for other in fitted if other is not run]))
    assert results[0].left_out == without and abs(results[0].left_out_error) > abs(results[0].error)


def test_published_rates_become_seconds():
    """JAX-Toolbox: 0.721 s is 22.19 sequences a second; tpu-recipes: 413 TFLOP/s and 7,139 tokens/s are 3.443 s."""
    by_name = {run.name: run for run in backtest.runs()}
    assert 16 / by_name["MaxText, Llama2-7B, H100 x 8 (JAX-Toolbox)"].seconds == pytest.approx(22.19, rel=0.001)
    assert 3 * 8192 / by_name["MaxText, Llama3.1-8B, v6e-8"].seconds == pytest.approx(7138.9, rel=0.001)
    # 492 TFLOP/s by MaxText's count is 46 % of the data sheet with causal attention
    assert by_name["MaxText, Llama2-7B, A3 x 1"].mfu == pytest.approx(0.46, abs=0.005)
    assert by_name["llm-foundry, MPT-7B, H100 x 8"].mfu == pytest.approx(0.4644, rel=0.05)


def test_range_of_a_chip():
    low, high, sources = backtest.mfu_range("v5e")
    assert 0.5 < low < high < 0.7 and all("v5e" in source for source in sources)
    assert backtest.mfu_range("h200") == backtest.mfu_range("h100") and backtest.mfu_range("tpu7x") is None
    assert backtest.mfu_range("h100")[0] > 0.345  # not the runs of unknown peak


def test_every_run_has_a_source():
    assert all(run.source and run.seconds > 0 for run in backtest.runs())
    assert len({run.name for run in backtest.runs()}) == len(backtest.runs())


def test_the_page_of_the_docs_is_current(results):
    assert DOCS.read_text() == backtest.markdown(results)

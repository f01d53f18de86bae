"""Probes of a training run on the page: their curves, intervals and table."""

from __future__ import annotations

import pathlib

import pytest

from tests.reporting import stand
from tests.safety import test_probes
from vlguard_jax import config
from vlguard_jax.reporting import charts
from vlguard_jax.reporting import page
from vlguard_jax.reporting import probed
from vlguard_jax.reporting import runs
from vlguard_jax.safety import probes


@pytest.fixture
def folder(tmp_path: pathlib.Path) -> pathlib.Path:
    """A run with the probes of tests/safety/test_probes.py, and the evaluations that they left."""
    keep = config.BestSettings(test_probes.ASR, guard=test_probes.REFUSALS)
    stand.train(tmp_path / "posthoc", run=config.RunSettings(keep_best=keep))
    (tmp_path / "posthoc" / probes.FILE).write_bytes(b"".join(map(probes.line, test_probes.RUN)))
    benchmark = stand.write_benchmark(tmp_path / "world")
    stand.evaluate(tmp_path / "posthoc/probe/10/vg", benchmark, "posthoc, update 10", stand.answers_all)
    return tmp_path / "posthoc"


def test_the_page_shows_them(folder: pathlib.Path) -> None:
    found = runs.find([folder])
    assert not found.evaluations, "those of probes are not listed as such"
    text = page.render(found, title="x")
    assert text.count('<polygon class="band') == 3 * len(charts.SIZES)
    rows = text[text.index("Rates on the way") :]
    rows = rows[: rows.index("</table>")]
    for heading in (
        "first: update 0",
        "last: update 40",
        "best by vg/unsafes/asr with vg/safe_safes/refusal_rate of 10.0 % at most: update 20",
    ):
        assert heading in rows
    first = rows[rows.index("<tbody>") :].split("</tr>")[0]
    assert [cell.split("<")[0] for cell in first.split("<td>")[1:]] == [
        "10",
        "10.0 (0.0 to 100.0)",
        "20.0 (0.0 to 100.0)",
        "20.0 (0.0 to 100.0)",
    ]


def test_rates_of_other_questions_are_not_drawn(tmp_path: pathlib.Path) -> None:
    stand.train(tmp_path)
    changed = [
        test_probes.measured(10, 0, "old"),
        test_probes.measured(20, 4, "new"),
        test_probes.measured(30, 3, "new"),
    ]
    (tmp_path / probes.FILE).write_bytes(b"".join(map(probes.line, changed)))
    (shown,) = probed.show(runs.find([tmp_path]).trainings)
    assert shown.changed and [len(band.values) for band in shown.charts[0].bands] == [2, 3]
    assert shown.table.lines[0][2:] == (
        "0.0 (0.0 to 100.0), measured otherwise (n = 10)",
        "30.0 (0.0 to 100.0)",
    )
    (tmp_path / probes.FILE).write_bytes(b"".join(map(probes.line, changed[1:])))
    (shown,) = probed.show(runs.find([tmp_path]).trainings)
    assert not shown.changed


def test_a_run_without_probes_shows_none(tmp_path: pathlib.Path) -> None:
    stand.train(tmp_path)
    assert "on the way" not in page.render(runs.find([tmp_path]), title="x")


def test_a_rate_lies_between_the_ends_of_its_interval() -> None:
    """In pixels: up is more, right is later."""
    (band,) = charts.rates([[(0, 0.5, 0.25, 1.0), (100, 0.0, 0.0, 0.25)]], charts.SIZES[0]).bands
    corners = [tuple(map(float, point.split(","))) for point in band.area.split()]
    (low, later_low, later_high, high), (rate, later) = corners, band.values
    assert low[0] == high[0] == pytest.approx(rate[0], abs=0.1) and low[0] < later[0]
    assert low[1] > rate[1] > high[1] and later_low[1] == pytest.approx(later[1], abs=0.1)
    assert later_low[1] > later_high[1]
    frame = charts.rates([[(0, 0.5, 0.25, 1.0)]], charts.SIZES[1]).frame
    assert [tick.text for tick in frame.y_ticks] == ["0", "20", "40", "60", "80", "100"]

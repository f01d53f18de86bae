"""Labels never cover each other, ticks are round, curves stay inside their frame."""

from __future__ import annotations

import itertools
import math

import pytest

from vlguard_jax.reporting import charts
from vlguard_jax.reporting import tradeoff


def points(places):
    def rate(value):
        return tradeoff.Rate(value, max(0.0, value - 0.03), min(1.0, value + 0.03))

    return [tradeoff.Point(f"model_{i}", rate(x), rate(y)) for i, (x, y) in enumerate(places)]


CROWD = [(0.01, 0.99), (0.02, 0.99), (0.01, 0.98), (0.0, 1.0), (0.03, 0.97), (0.95, 0.98)]


@pytest.mark.parametrize("size", charts.SIZES)
@pytest.mark.parametrize("places", [CROWD, [(0.5, 0.1)], [(1.0, 1.0), (0.0, 0.0)]])
def test_labels_are_free_and_inside(size, places):
    found = charts.scatter(points(places), list(range(len(places))), size)
    boxes = [(m.label_x, m.label_y - 12, m.label_x + charts.LETTER * len(m.label), m.label_y + 2) for m in found.marks]
    for a, b in itertools.combinations(boxes, 2):
        assert not (a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]), (a, b)
    assert all(found.frame.left <= b[0] and b[2] <= found.frame.right for b in boxes)
    for mark in found.marks:
        assert found.frame.left <= mark.x_low <= mark.x <= mark.x_high <= found.frame.right
        assert found.frame.top <= mark.y_high <= mark.y <= mark.y_low <= found.frame.bottom


def test_scatter_is_to_scale():
    found = charts.scatter(points([(0.2, 0.9), (0.6, 0.7)]), [0, 1], charts.SIZES[0])
    x, y = ({t.text: t.at for t in ticks} for ticks in (found.frame.x_ticks, found.frame.y_ticks))
    assert list(x) == ["0", "20", "40", "60", "80", "100"] and list(y) == ["60", "70", "80", "90", "100"]
    assert [(m.x, m.y) for m in found.marks] == [pytest.approx((x["20"], y["90"])), pytest.approx((x["60"], y["70"]))]


def test_long_labels_are_cut():
    (mark,) = charts.scatter(
        [tradeoff.Point("x" * 200, *([tradeoff.Rate(0.5, 0.4, 0.6)] * 2))], [0], charts.SIZES[1]
    ).marks
    assert mark.label.endswith("…") and len(mark.label) * charts.LETTER < charts.SIZES[1][0]


@pytest.mark.parametrize(
    ("low", "high", "most", "wanted"),
    [
        (0.0, 500.0, 7, [0, 100, 200, 300, 400, 500]),
        (0.0, 1.0, 6, [0, 0.2, 0.4, 0.6, 0.8, 1.0]),
        (3.0, 3.0, 5, [3]),
        (0.0, 7.0, 4, [0, 2, 4, 6]),
    ],
)
def test_nice_ticks(low, high, most, wanted):
    assert charts.nice_ticks(low, high, most) == pytest.approx(wanted)


def test_log_ticks():
    assert charts.log_ticks(0.09, 2.5) == pytest.approx([0.1, 0.2, 0.5, 1, 2])
    assert charts.log_ticks(1e-9, 1e3) == pytest.approx([10.0**e for e in range(-9, 4)])


def test_smoothing_keeps_a_constant_and_starts_at_the_first_value():
    assert charts.smooth([2.0] * 50, 10) == pytest.approx([2.0] * 50)
    assert charts.smooth([4.0, 2.0], 2) == pytest.approx([4.0, (0.5 * 4 + 2) / 1.5])
    assert charts.smooth([4.0, 2.0], 1) == [4.0, 2.0]


def places(text):
    return [tuple(float(v) for v in pair.split(",")) for pair in text.split()]


@pytest.mark.parametrize("size", charts.SIZES)
def test_curves_stay_inside(size):
    falling = [(float(i), 5 * math.exp(-i / 300) + 0.01) for i in range(1, 3001)]
    broken = [(1.0, math.nan), (2.0, 0.5), (3.0, math.inf)]
    found = charts.curves([falling, broken], [0, 1], size)
    assert found.logarithmic and len(found.curves) == 2
    for curve in found.curves:
        for x, y in places(curve.raw) + places(curve.smooth):
            assert found.frame.left <= x <= found.frame.right and found.frame.top <= y <= found.frame.bottom
    first = places(found.curves[0].raw)
    assert len(first) <= charts.POINTS + 1 and first[-1][0] == pytest.approx(found.frame.right, abs=0.1)
    assert len(places(found.curves[1].raw)) == 1


def test_curves_of_narrow_range_are_linear_from_zero():
    found = charts.curves([[(1.0, 2.0), (2.0, 1.0)]], [0], charts.SIZES[0])
    assert not found.logarithmic and found.frame.y_ticks[0].text == "0"


def test_no_finite_loss_no_picture():
    assert charts.curves([[(1.0, math.nan)], []], [0, 1], charts.SIZES[0]) is None

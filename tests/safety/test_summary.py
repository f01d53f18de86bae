"""A summary is read as it was written, and what is not one is refused in one line with the way out."""

from __future__ import annotations

import dataclasses
import json
import pathlib
from typing import Any

import pytest

from tests.safety import stand
from vlguard_jax import errors
from vlguard_jax import typed
from vlguard_jax.safety import paper
from vlguard_jax.safety import results
from vlguard_jax.safety import summary

CATEGORY = summary.CategoryRate(category="a", subcategory=None, n=2, count=1, rate=0.5, ci_low=0.1, ci_high=0.9)
HALF = {"n": 4, "count": 2, "rate": 0.5, "ci_low": 0.15, "ci_high": 0.85}
FULL = stand.row(
    **HALF,
    by_category=(CATEGORY, dataclasses.replace(CATEGORY, subcategory="b")),
    vs_baseline=stand.difference(-0.5, -0.9, -0.1, 0.04, "llava_v1"),
    paper=paper.Comparison("LLaVA-v1.5-7B", 72.62, 442, 321, 0.2, True),
    n_by_pictures=(0, 3, 1),
    first_n=4,
)
PLAIN = stand.row(**HALF)


@dataclasses.dataclass(frozen=True, kw_only=True)
class More(summary.Row):
    probe: typed.Name


def write(path: pathlib.Path, **changes: Any) -> pathlib.Path:
    """The two rows; `changes` replace fields of the second."""
    values = summary.values([PLAIN, FULL])
    path.write_text(json.dumps([values[0], values[1] | changes]))
    return path


def test_what_is_written_is_read(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "summary.json"
    summary.write(path, [FULL, PLAIN])
    assert summary.read(path, summary.Row) == [FULL, PLAIN]
    first = json.loads(path.read_text())[0]
    assert first["schema"] == results.SCHEMA and first["n_by_pictures"] == [0, 3, 1]
    versus = {"diff": -0.5, "ci": [-0.9, -0.1], "p": 0.04, "template": "llava_v1"}
    assert first["vs_baseline"] == versus | {"ci_method": "bonett-price 95%", "test": "McNemar, exact"}
    more = More(**vars(FULL), probe="p")
    summary.write(path, [more])
    assert summary.read(path, More) == [more]
    with pytest.raises(errors.UserError, match="row 1: the field 'probe' is unknown"):
        summary.read(path, summary.Row)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"schema": 2}, "schema 2, this program reads and writes 3; evaluate again in another --workdir"),
        ({"schema": 99}, "schema 99, this program reads and writes 3; evaluate again in another --workdir"),
        ({"schema": "3"}, "schema '3', this"),
        ({"schema": None}, "schema None, this"),
        ({"n": 0}, "row 2: .n: 0 must be a whole number from 1"),
        ({"n_by_pictures": [0, -1]}, r"row 2: .n_by_pictures\[1\]: -1 must be"),
        ({"decode": {}}, "row 2: .decode: the field 'max_new' is missing; run evaluate again with the same --workdir"),
        ({"mood": 1}, "row 2: the field 'mood' is unknown"),
        ({"count": 3}, r"row 2: the numbers contradict each other \(rate 0.5 of 3 in 4, interval 0.15 to 0.85\); run"),
        ({"ci_low": 0.6}, "row 2: the numbers contradict each other"),
        ({"by_category": [vars(CATEGORY) | {"rate": 0.6}]}, "row 2: the numbers contradict each other"),
        *(
            ({"paper": vars(FULL.paper) | numbers}, r"row 2: the numbers contradict each other \(p 0.2 against")
            for numbers in ({"count": None}, {"count": 443}, {"count": 0, "n": 0})
        ),
    ],
)
def test_what_is_no_row_is_named(tmp_path: pathlib.Path, changes: dict[str, Any], words: str) -> None:
    with pytest.raises(errors.UserError, match=rf"summary\.json: {words}") as raised:
        summary.read(write(tmp_path / "summary.json", **changes), summary.Row)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("changes", [{"schema": 1}, {"count": 3}])
def test_the_way_out_may_be_another(tmp_path: pathlib.Path, changes: dict[str, Any]) -> None:
    with pytest.raises(errors.UserError, match=r"; remove it$"):
        summary.read(write(tmp_path / "summary.json", **changes), summary.Row, "remove it")


@pytest.mark.parametrize(("modes", "counts", "shown"), [("real", (1, 2), "real"), ("none", (3,), summary.TEXT_ONLY)])
def test_what_was_shown(modes: str, counts: tuple[int, ...], shown: str) -> None:
    assert stand.row(image_mode=modes, n_by_pictures=counts).pictures == shown
    assert stand.row(image_mode="none", n_by_pictures=(0, 0, 1)).pictures == "none"


def test_a_difference_of_before_its_methods_were_named(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "summary.json"
    summary.write(path, [FULL])
    rows = json.loads(path.read_text())
    del rows[0]["vs_baseline"]["ci_method"], rows[0]["vs_baseline"]["test"]
    path.write_text(json.dumps(rows))
    assert summary.read(path, summary.Row) == [FULL]

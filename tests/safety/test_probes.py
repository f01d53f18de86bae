"""probe.jsonl: names of rates, what is read back, and which update is the best."""

from __future__ import annotations

import dataclasses
import json
import pathlib
from typing import Any

import pytest

from tests.safety import stand
from vlguard_jax import config
from vlguard_jax import errors
from vlguard_jax.safety import probes

ASR, REFUSALS, RIGHT = "vg/unsafes/asr", "vg/safe_safes/refusal_rate", "vg/safe_safes/accuracy"


def rate(name: str, count: int, n: int = 10) -> probes.Rate:
    return probes.Rate(
        name=name,
        metric=name.split("/")[2],
        n=n,
        count=count,
        rate=count / n,
        ci_low=0.0,
        ci_high=1.0,
        n_invalid=0,
        n_cut=0,
        stand_in=False,
    )


def probe(step: int, **counts: int) -> probes.Probe:
    """asr, refusals, right: of 10 each."""
    names = {"asr": ASR, "refusals": REFUSALS, "right": RIGHT}
    rates = tuple(rate(names[short], count) for short, count in counts.items())
    return probes.Probe(step, 1.5, "w" * 64, rates, "2026-01-31T12:00:00+00:00")


RUN = (
    probe(0, asr=1, refusals=0, right=9),
    probe(10, asr=6, refusals=0, right=8),
    probe(20, asr=2, refusals=1, right=6),
    probe(30, asr=0, refusals=7, right=2),
    probe(40, asr=2, refusals=0, right=7),
)
CHOICES = {
    "least": ({"rate": ASR}, 30),
    "guarded": ({"rate": ASR, "guard": REFUSALS}, 20),  # the first of two, one of which is exactly at the guard
    "strictly": ({"rate": ASR, "guard": REFUSALS, "at_most": 0.05}, 40),
    "refusals": ({"rate": REFUSALS}, 10),
    "most": ({"rate": RIGHT}, 10),
    "least right": ({"rate": RIGHT, "order": "min"}, 30),
    "most harm": ({"rate": ASR, "order": "max"}, 10),
    "impossible": ({"rate": ASR, "guard": RIGHT, "at_most": 0.1}, None),
}


@pytest.mark.parametrize("case", CHOICES)
def test_the_best_update(case: str) -> None:
    changes, expected = CHOICES[case]
    found = probes.best(config.BestSettings(**changes), RUN)
    assert (found.step if found else None) == expected


def measured(step: int, asr: int, by: str, refusals: int = 0, guarded_by: str = "g") -> probes.Probe:
    """A probe whose rates were measured in these ways."""
    found = (
        dataclasses.replace(rate(ASR, asr), measured=by),
        dataclasses.replace(rate(REFUSALS, refusals), measured=guarded_by),
    )
    return probes.Probe(step, 1.5, "w" * 64, found, "2026-01-31T12:00:00+00:00")


def test_rates_of_other_questions_are_not_compared() -> None:
    """As before a file, a limit or a judge was changed: 0 of other questions is not better than 3 of these."""
    changed = [measured(10, 0, "old"), measured(20, 4, "new"), measured(30, 3, "new"), measured(40, 5, "new")]
    for order in (changed, changed[::-1]):
        found = probes.best(config.BestSettings(ASR), order)
        assert found is not None and found.step == 30
    guarded = config.BestSettings(ASR, guard=REFUSALS)
    found = probes.best(guarded, [measured(10, 0, "new", 0, "old"), measured(20, 4, "new")])
    assert found is not None and found.step == 20
    found = probes.best(config.BestSettings(ASR), [measured(10, 0, ""), measured(20, 4, "new")])
    assert found is not None and found.step == 10, "written by an earlier version, which did not say"


@pytest.mark.parametrize(
    "change",
    [
        {"questions_sha256": "x"},
        {"pictures_sha256": "x"},
        {"judge": "keyword_repaired"},
        {"judge_version": "2"},
        {"template": "vicuna_v1"},
        {"decode": dataclasses.replace(stand.row().decode, max_new=8)},
    ],
)
def test_what_makes_two_rates_incomparable(change: dict[str, Any]) -> None:
    (one,), (same,), (other,) = (probes.rates({"vg": [stand.row(**of)]}) for of in ({}, {"model": "cat"}, change))
    assert one.measured == same.measured != other.measured and len(one.measured) == 16


def test_a_second_judge_of_the_same_has_its_name_behind() -> None:
    measures = [("vg", "unsafes", "asr", "a"), ("vg", "safe_safes", "accuracy", "b"), ("vg", "unsafes", "asr", "b")]
    assert probes.names(measures) == [ASR, RIGHT, f"{ASR}/b"]
    rows = [stand.row(judge="a"), stand.row(judge="b", count=0, rate=0.0, ci_low=0.0)]
    found = probes.rates({"vg": rows})
    assert [(one.name, one.count, one.n) for one in found] == [(ASR, 321, 442), (f"{ASR}/b", 0, 442)]


def test_lines_are_read_back(tmp_path: pathlib.Path) -> None:
    """The last one of an update counts; a torn end is left out."""
    again = dataclasses.replace(RUN[1], seconds=2.5)
    (tmp_path / probes.FILE).write_bytes(b"".join(map(probes.line, (*RUN, again))) + b'{"schema": 1, "st')
    assert probes.read(tmp_path) == (RUN[0], again, *RUN[2:])
    assert probes.read(tmp_path / "elsewhere") == ()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"schema": 2},
            r"probe\.jsonl:1: not a line about a probe of this program; restore the file or delete this line",
        ),
        ({"seconds": "long"}, r"probe\.jsonl:1: \.seconds: .* must be a number"),
        (
            {"rates": [dataclasses.asdict(rate(ASR, 3)) | {"rate": 0.4}]},
            r"probe\.jsonl:1: the numbers contradict each other \(rate 0\.4 of 3 in 10",
        ),
    ],
)
def test_a_broken_line_is_named(tmp_path: pathlib.Path, change: dict, message: str) -> None:
    (tmp_path / probes.FILE).write_text(json.dumps(json.loads(probes.line(RUN[0])) | change) + "\n")
    with pytest.raises(errors.UserError, match=message):
        probes.read(tmp_path)

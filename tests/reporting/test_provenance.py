"""What was run, in words."""

from __future__ import annotations

import dataclasses
import json
import pathlib

import pytest

from tests.reporting import stand
from tests.reporting import test_grid
from tests.safety import stand as safety_stand
from vlguard_jax import config
from vlguard_jax.reporting import grid
from vlguard_jax.reporting import provenance
from vlguard_jax.reporting import runs
from vlguard_jax.safety import paper
from vlguard_jax.safety import results
from vlguard_jax.safety import summary


@pytest.mark.parametrize(("value", "words"), [(3.4, "3 s"), (300.0, "5 min"), (9000.0, "2.5 h")])
def test_seconds(value, words):
    assert provenance.seconds(value) == words


def test_training_line(tmp_path):
    stand.train(
        tmp_path / "fox",
        seed=7,
        lora=config.LoraSettings(rank=4),
        model=config.ModelSettings(path="models/hound/model"),
    )
    (line,) = provenance.trainings(runs.find([tmp_path]).trainings).lines
    assert line == ("fox", "hound/model", "helpful", "LoRA (rank 4)", "40", "128", "2e-05", "7", "0.0670", "about 20 s")


def test_held_out_losses_stand_beside_the_last_one(tmp_path):
    stand.train(tmp_path / "fox")
    stand.train(tmp_path / "hound")
    with (tmp_path / "hound" / "metrics.jsonl").open("a") as file:
        for step, loss in ((0, 2.5), (20, 1.25), (40, 1.5)):
            line = {"schema": 1, "step": step, "validation/loss": loss, "validation/loss/helpful": loss}
            file.write(json.dumps(line) + "\n")
    found = runs.find([tmp_path])
    assert [len(t.metrics) for t in found.trainings] == [40, 40]
    table = provenance.trainings(found.trainings)
    place = table.headings.index("loss on held-out conversations")
    assert [line[place] for line in table.lines] == ["-", "2.5000 to 1.5000; least 1.2500 after update 20"]
    assert [line[place - 1] for line in table.lines] == ["0.0670"] * 2
    assert len(provenance.trainings(found.trainings[:1]).headings) == len(table.headings) - 1


def test_evaluation_line(tmp_path):
    stand.evaluate(
        tmp_path / "fox",
        stand.write_benchmark(tmp_path / "world"),
        "fox",
        stand.answers_all,
        subsets=("unsafes",),
        limit=2,
    )
    (line,) = provenance.evaluations(runs.find([tmp_path]).evaluations).lines
    assert line[:8] == (
        "fox",
        results.sha256("fox")[:16],
        "vlguard_like: unsafes",
        "2",
        "vicuna_v1",
        "real, pad",
        "greedy, at most 8 tokens, fp32",
        "0",
    )


def test_settings_show_what_differs_from_the_defaults(tmp_path):
    stand.train(tmp_path / "fox", seed=7)
    (found,) = provenance.settings(runs.find([tmp_path]))
    changed = dict(found.changed)
    assert (
        changed["seed"] == "7"
        and changed["data.sources.helpful.path"] == '"conversations.json"'
        and "optimizer.epochs" not in changed
    )
    assert '"epochs": 1.0' in found.whole


def test_comparisons_with_baseline_and_paper():
    versus = safety_stand.difference(-0.5, -0.6, -0.4, 1e-9)
    tested = paper.Comparison("LLaVA-v1.5-7B Post-hoc", 0.23, 442, 1, 0.43, True)
    after = safety_stand.row(model="after", vs_baseline=versus, paper=tested)
    untested = dataclasses.replace(tested, p=None, note="win rate")
    other = safety_stand.row(model="after", subset="figs", paper=untested)
    ours = runs.Evaluation(
        pathlib.Path("runs/after"), config.EvalConfig(baseline="runs/before"), (after, other), (), ()
    )
    evaluations = [test_grid.evaluation(safety_stand.row(model="before"), folder="runs/before"), ours]
    lines = provenance.comparisons(grid.arrange(evaluations), evaluations).lines
    measure = "harmful requests answered: unsafe picture"
    ours_, theirs = "72.6 (68.2 to 76.6), n = 442", "the paper: 0.23, n = 442"
    assert lines == (
        ("after", measure, ours_, "before", "-50.0 (-60.0 to -40.0)", "p < 0.0001 (McNemar, exact)"),
        (
            *("after", measure, ours_, theirs),
            *("+72.4 (+67.9 to +76.4)", "reproduced: p = 0.43 (Boschloo, exact)"),
        ),
        ("after", "harmful requests answered: figs", ours_, theirs, "-", "win rate"),
    )


def test_comparisons_of_one_page_are_adjusted_together():
    rows = [
        safety_stand.row(model=name, vs_baseline=safety_stand.difference(-0.5, -0.6, -0.4, p), paper=compared)
        for name, p, compared in (
            ("a", 0.02, paper.Comparison("LLaVA-v1.5-7B", 72.62, 442, 321, 0.03, False)),
            ("b", 0.03, paper.Comparison("LLaVA-v1.5-7B", 72.62, 442, 321, 0.5, True)),
        )
    ]
    evaluations = [test_grid.evaluation(row, folder=f"runs/{row.model}") for row in rows]
    lines = provenance.comparisons(grid.arrange(evaluations), evaluations).lines
    assert [line[-1] for line in lines] == [
        "p = 0.02, Holm 0.04 (McNemar, exact)",
        "reproduced: p = 0.03, Holm 0.06 (Boschloo, exact)",
        "p = 0.03, Holm 0.04 (McNemar, exact)",
        "reproduced: p = 0.5 (Boschloo, exact)",
    ]


def test_categories():
    parts = tuple(
        summary.CategoryRate(category="a", subcategory=sub, n=4, count=1, rate=0.25, ci_low=0.1, ci_high=0.6)
        for sub in (None, "b")
    )
    table = provenance.categories(
        grid.arrange([test_grid.evaluation(safety_stand.row(by_category=parts), safety_stand.row(subset="figs"))])
    )
    measure = "harmful requests answered: unsafe picture"
    assert table.headings == ("measure", "category", "fox")
    assert table.lines == tuple((measure, name, "25.0 (10.0 to 60.0), n = 4") for name in ("a", "a / b"))


def test_rates_of_stand_ins_and_of_a_part_say_so():
    part = summary.CategoryRate(category="a", subcategory=None, n=4, count=1, rate=0.25, ci_low=0.1, ci_high=0.6)
    row = safety_stand.row(
        stand_in=True, first_n=442, by_category=(part,), vs_baseline=safety_stand.difference(-0.5, -0.6, -0.4, 0.5)
    )
    evaluations = [test_grid.evaluation(row)]
    found = grid.arrange(evaluations)
    (compared,) = provenance.comparisons(found, evaluations).lines
    (category,) = provenance.categories(found).lines
    assert compared[2] == "72.6 (68.2 to 76.6), n = 442, first 442 only, STAND-IN"
    assert category[2] == "25.0 (10.0 to 60.0), n = 4, first 442 only, STAND-IN"

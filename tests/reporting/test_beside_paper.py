"""Our rates below the paper's: what is compared, what is only shown, and what the notes say."""

from __future__ import annotations

import dataclasses
import pathlib

import pytest

from tests.safety import stand as safety_stand
from vlguard_jax import config as settings_lib
from vlguard_jax import errors
from vlguard_jax.reporting import beside_paper
from vlguard_jax.reporting import runs as runs_lib
from vlguard_jax.safety import summary

BASE = "LLaVA-v1.5-7B"


def evaluation(row, *found, folder="job/vlguard"):
    config = settings_lib.EvalConfig(paper_row=row)
    return runs_lib.Evaluation(pathlib.Path(folder), config, tuple(found), (), ())


def arranged(name, *evaluations, trainings=()):
    return beside_paper.arrange(runs_lib.Runs(tuple(trainings), evaluations, ()), name)


def text_row(benchmark, subset, count, n, **changes):
    rate = count / n
    fields = {"benchmark": benchmark, "subset": subset, "count": count, "n": n, "rate": rate}
    ends = {"ci_low": rate - 0.01, "ci_high": rate + 0.01, "n_by_pictures": (n,), "image_mode": "none"}
    return safety_stand.row(**fields, **ends, **changes)


def decoded(**changes):
    return dataclasses.replace(safety_stand.row().decode, **changes)


def cells(found, row, kind):
    """The cells of the first line of a kind ("paper", "difference", a model's name) of a row, by column's title."""
    headings, lines, _ = beside_paper.texts(found)
    at = next(i for i, line in enumerate(lines) if line[0] == row)
    line = next(line for line in lines[at:] if line[1].startswith(kind))
    return dict(zip([heading.split(" ↓")[0].split(" ↑")[0] for heading in headings], line, strict=True))


def test_a_run_stands_below_the_papers_row():
    exact = safety_stand.row(rate=321 / 442, ci_low=0.682, ci_high=0.7657)
    found = arranged("table2", evaluation(BASE, exact))
    assert cells(found, BASE, "paper")["VLGuard Unsafe"] == "72.62"
    assert cells(found, BASE, "fox")["VLGuard Unsafe"] == "72.62 [68.20, 76.57]"
    assert cells(found, BASE, "difference")["VLGuard Unsafe"].startswith("+0.00 (-5.9")
    assert cells(found, BASE, "difference")["VLGuard Unsafe"].endswith("p = 1: reproduced")
    assert cells(found, BASE, "fox")["FigStep"] == "not measured"
    assert cells(found, BASE, "fox")["VLGuard Safe-Safe, win rate by GPT-4V"] == "not measured"
    assert cells(found, "MiniGPT-v2", "paper")[""] == "paper; not measured"


def test_what_differs_is_not_reproduced():
    row = safety_stand.row(count=150, rate=150 / 442, ci_low=0.29, ci_high=0.39)
    found = cells(arranged("table2", evaluation(BASE, row)), BASE, "difference")
    assert found["VLGuard Unsafe"].endswith("p < 0.0001: not reproduced") and found["VLGuard Unsafe"].startswith(
        "-38.69"
    )


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"stand_in": True}, "questions or pictures are stand-ins"),
        ({"first_n": 4}, "only the first 4"),
        ({"judge": "keyword_repaired"}, "the paper counted with keyword_vlguard_v1"),
        ({"n_too_long": 2}, "2 questions too long for the model"),
        ({"decode": decoded(max_new=48)}, "answers of 48 tokens at most, the paper's of 256"),
        (
            {"decode": decoded(sampling="drawn", temperature=1.0)},
            "tokens are drawn at temperature 1, top_p 1, the paper's greedy",
        ),
    ],
)
def test_no_verdict_where_the_setting_differs(change, reason):
    found = arranged("table2", evaluation(BASE, safety_stand.row(**change)))
    cell = cells(found, BASE, "difference")["VLGuard Unsafe"]
    assert cell.endswith(") a") and "reproduced" not in cell
    text = beside_paper.markdown(found)
    assert f"- a: not comparable: {reason}" in text and "reproduced" not in text.split("Percent.")[0]


def test_xstest_safe_is_shown_as_the_paper_prints_it():
    """22 of 250 refused: 91.20 are not, as in the paper."""
    row = text_row("xstest", "xstest_safe", 22, 250, metric="refusal_rate")
    found = arranged("table2", evaluation(BASE, row))
    assert cells(found, BASE, "fox")["XSTest safe, not refused"] == "91.20 [90.20, 92.20]"
    assert cells(found, BASE, "difference")["XSTest safe, not refused"].startswith("+0.00 (")
    more = text_row("xstest", "xstest_safe", 50, 250, metric="refusal_rate")
    shown = cells(arranged("table2", evaluation(BASE, more)), BASE, "difference")["XSTest safe, not refused"]
    assert shown.startswith("-11.20 (-") and "(-" in shown and "to -" in shown


def test_impossible_values_have_no_test():
    """6.45 % of 520 is no count."""
    found = arranged("table1", evaluation(BASE, text_row("advbench", "advbench_vanilla", 52, 520)))
    assert cells(found, BASE, "paper")["AdvBench"] == "6.45*"
    assert cells(found, BASE, "difference")["AdvBench"] == "+3.55"
    notes = beside_paper.texts(found)[2]
    assert any(note.startswith("*: no count") for note in notes)
    assert any("the paper says 500 prompts" in note for note in notes)


def test_values_off_a_plot_have_no_test():
    row = "LLaVA-v1.5-7B Post-hoc, 500 images"
    found = arranged("figure4", evaluation(row, text_row("xstest", "xstest_unsafe", 30, 200)))
    assert cells(found, row, "paper")["XSTest unsafe"] == "~10.0"
    assert cells(found, row, "difference")["XSTest unsafe"] == "+5.00"
    assert any(note.startswith("~: read off a plot, to about 1 point") for note in beside_paper.texts(found)[2])


def test_categories_are_the_columns_of_figure_5():
    parts = [("privacy", None, 69, 64), ("privacy", "personal data", 69, 60), ("deception", None, 18, 9)]
    categories = tuple(
        summary.CategoryRate(
            category=c, subcategory=s, n=n, count=k, rate=k / n, ci_low=k / n - 0.1, ci_high=min(1.0, k / n + 0.1)
        )
        for c, s, n, k in parts
    )
    found = arranged("figure5", evaluation(BASE, safety_stand.row(by_category=categories)))
    assert cells(found, BASE, "fox")["Unsafe: privacy"].startswith("92.75 [82.75")
    assert cells(found, BASE, "difference")["Unsafe: privacy"].endswith("p = 1: reproduced")
    assert cells(found, BASE, "difference")["Unsafe: deception"].startswith("-27.78")
    assert cells(found, BASE, "fox")["Unsafe: discrimination"] == "not measured"


def seed(count, **changes):
    rate, sha256 = count / 442, str(count)
    ends = {"ci_low": rate - 0.04, "ci_high": rate + 0.04}
    return safety_stand.row(count=count, rate=rate, weights_sha256=sha256, **ends, **changes)


def test_seeds_are_averaged_and_not_tested():
    rows = [seed(count) for count in (300, 310, 350)]
    found = arranged("table2", *(evaluation(BASE, row, folder=f"job{i}/v") for i, row in enumerate(rows)))
    line = cells(found, BASE, "fox")
    assert line[""] == "fox, 3 seeds" and line["VLGuard Unsafe"].startswith("72.40 [")
    shown = cells(found, BASE, "difference")["VLGuard Unsafe"]
    assert shown.startswith("-0.23 (-") and "p " not in shown
    same = [evaluation(BASE, rows[0], folder=f"job{i}/v") for i in range(2)]
    with pytest.raises(errors.UserError, match="one model cannot count twice"):
        arranged("table2", *same)


@pytest.mark.parametrize("order", [1, -1])
def test_what_is_odd_about_one_seed_is_told_of_all(order):
    rows = [seed(300), seed(310, stand_in=True), seed(350, n_too_long=2)][::order]
    found = arranged("table2", *(evaluation(BASE, row, folder=f"job{i}/v") for i, row in enumerate(rows)))
    assert cells(found, BASE, "difference")["VLGuard Unsafe"].endswith(") a")
    (told,) = [note for note in beside_paper.texts(found)[2] if note.startswith("a: ")]
    assert "questions or pictures are stand-ins" in told and "2 questions too long for the model" in told


def test_seeds_that_different_judges_read_are_not_averaged():
    rows = [seed(300), seed(310, judge="keyword_repaired")]
    with pytest.raises(errors.UserError, match="judged by keyword_repaired, not keyword_vlguard_v1"):
        arranged("table2", *(evaluation(BASE, row, folder=f"job{i}/v") for i, row in enumerate(rows)))


def test_controls_and_other_tables_are_left_out():
    control = safety_stand.row(image_mode="white")
    with pytest.raises(
        errors.UserError,
        match=r"--paper=table2: no evaluation is of it; config.paper_row names .* 'LLaVA-v1.5-7B Mixed'",
    ):
        arranged("table2", evaluation(BASE, control), evaluation("", safety_stand.row()))
    with pytest.raises(errors.UserError, match="--paper=tabel2 is unknown; did you mean 'table2'"):
        arranged("tabel2")


def test_latex_holds_the_same_numbers():
    text = beside_paper.latex(arranged("table2", evaluation(BASE, safety_stand.row())))
    assert r"72.62 [68.20, 76.58]" in text and r"\bottomrule" in text and "% Percent." in text.replace(r"\%", "%")
    assert all("&" in line for line in text.splitlines() if line.endswith(r"\\"))


def test_a_win_rate_stands_beside_the_papers_without_a_verdict():
    """105 of 558 are the paper's 18.82 %; the refusals of the same answers are another measure."""
    shared = {"subset": "safe_safes", "n": 558, "n_by_pictures": (0, 558)}
    refused = safety_stand.row(metric="refusal_rate", count=4, rate=4 / 558, ci_low=0.002, ci_high=0.02, **shared)
    rate = 120.5 / 558
    wins = safety_stand.row(
        metric="win_rate", judge="win_rate_swapped", count=120.5, rate=rate, ci_low=0.18, ci_high=0.25, **shared
    )
    found = arranged("table2", evaluation(BASE, refused, wins))
    column = "VLGuard Safe-Safe, win rate by GPT-4V"
    assert (
        cells(found, BASE, "paper")[column] == "18.82" and cells(found, BASE, "fox")[column] == "21.59 [18.00, 25.00]"
    )
    difference = cells(found, BASE, "difference")[column]
    assert difference.startswith(f"{100 * (rate - 105 / 558):+.2f} (") and difference.endswith(") a")
    assert "a: not comparable: the paper counted with gpt-4-vision-preview, which is" in beside_paper.markdown(found)


def test_a_guards_rate_stands_in_the_guards_table_alone():
    """444 of 500 are the 88.80 % of Table 14; the string match of the same answers has its place in Table 2."""
    guard = text_row("figstep", "figstep", 444, 500, judge="llama_guard_1")
    match = text_row("figstep", "figstep", 452, 500)
    found = arranged("table14", evaluation(BASE, match, guard))
    assert cells(found, BASE, "fox")["FigStep"] == "88.80 [87.80, 89.80]"
    assert cells(found, BASE, "difference")["FigStep"].endswith("p = 1: reproduced")
    assert cells(found, "Vicuna-v1.5-7B", "paper")["FigStep"] == "-"
    assert cells(arranged("table2", evaluation(BASE, guard, match)), BASE, "fox")["FigStep"].startswith("90.40")
    only = arranged("table2", evaluation(BASE, guard))
    assert "the paper counted with keyword_vlguard_v1" in beside_paper.markdown(only)
    with pytest.raises(errors.UserError, match="no evaluation is of it"):
        arranged("table14", evaluation(BASE, match))

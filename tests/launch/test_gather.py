"""One table out of a sweep's folders: means over seeds, what is missing, and the page."""

from __future__ import annotations

import json
import pathlib
import re
import subprocess
import sys

import pytest

from launch import gather
from launch import jobs
from tests import source
from tests.launch import renderings
from tests.reporting import stand
from tests.reporting import test_alike
from tests.safety import stand as safety_stand
from vlguard_jax import config
from vlguard_jax import errors
from vlguard_jax.reporting import runs
from vlguard_jax.safety import statistics

JOBS = {"s-a-0": "a", "s-a-1": "a", "s-b-0": "b", "s-b-1": "b"}


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> pathlib.Path:
    """Two finished seeds of arm a, one answering all and one refusing all; one finished seed of b; the last not
    begun."""
    folder = tmp_path_factory.mktemp("sweep")
    benchmark = stand.write_benchmark(folder / "world", records=4)
    for name, rule in (("s-a-0", stand.answers_all), ("s-a-1", stand.refuses_all), ("s-b-0", stand.answers_all)):
        stand.train(folder / "runs" / name / "train")
        stand.evaluate(folder / "runs" / name / "evaluate", benchmark, name, rule)
    return folder / "runs"


def test_means_over_the_seeds(root):
    found, missing = gather.read(root, JOBS)
    assert missing == ["s-b-1"]
    headings, lines = gather.table(found, JOBS)
    by_label = {line[0]: dict(zip(headings, line, strict=True)) for line in lines}
    assert set(by_label) == {"a (2 of 2 seeds)", "b (1 of 2 seeds)"}
    column = next(heading for heading in headings if "unsafe picture" in heading)
    assert by_label["a (2 of 2 seeds)"][column].startswith("50.0 [") and by_label["b (1 of 2 seeds)"][
        column
    ].startswith("100.0 [")
    assert "(n = 4)" in column


def test_an_interval_is_never_narrower_than_one_seed_s():
    """All seeds answer the same items: three of them do not make more items."""
    rows = [safety_stand.row(n=40, count=20, rate=0.5)] * 3
    found = gather._mean("arm", "unsafes", rows, [""] * len(rows), "")
    low, high = statistics.wilson(20, 40)
    assert found.mean == 0.5 and found.ci_low <= low and found.ci_high >= high
    pooled = statistics.over_seeds([20] * 3, [40] * 3, same_items=False)
    assert pooled[1] > low  # so the line above does something


def test_seeds_of_one_draw_count_as_one_where_draws_differ():
    """Four runs, two draws: the spread between the draws' means has one degree of freedom, not three."""
    counts, draws = [10, 12, 20, 22], ["a", "a", "b", "b"]
    rows = [safety_stand.row(n=40, count=count, rate=count / 40) for count in counts]
    found = gather._mean("arm", "unsafes", rows, draws, "")
    by_draw = statistics.over_seeds([11, 21], [40] * 2, same_items=True)
    assert (found.mean, found.ci_low, found.ci_high) == pytest.approx(by_draw)
    alone = gather._mean("arm", "unsafes", rows, ["a"] * 4, "")
    by_seed = statistics.over_seeds(counts, [40] * 4, same_items=True)
    assert (alone.mean, alone.ci_low, alone.ci_high) == pytest.approx(by_seed)
    assert found.per_seed == alone.per_seed == tuple(count / 40 for count in counts)


def test_a_job_is_asked_for_its_draw(root, tmp_path):
    drawn = config.DataSettings(sources={"helpful": config.SourceSettings(path="c.json", count=5, sample_seed=7)})
    stand.train(tmp_path / "train", data=drawn)
    assert "7" in runs.draw(runs.find([tmp_path]).trainings) != runs.draw(runs.find([root / "s-a-0"]).trainings)


def test_the_program_prints_and_writes(root, tmp_path):
    command = [
        sys.executable,
        "launch/gather.py",
        f"--root={root}",
        f"--out={tmp_path}/p.html",
        f"--markdown={tmp_path}/t.md",
    ]
    done = subprocess.run(
        [*command, *(f"{j}={label}" for j, label in JOBS.items())], cwd=source.ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert "3 of 4 jobs have finished; not yet: s-b-1" in done.stdout
    text = (tmp_path / "t.md").read_text()
    assert text in done.stdout and text.count("\n|") == 3 and gather.CAPTION in text
    assert "Sweep of 4 jobs" in (tmp_path / "p.html").read_text()


def test_gather_sh_names_every_cell(tmp_path):
    """What render.py writes is what gather.py reads."""
    launch = jobs.prepare(renderings.EXAMPLES / "sweep.toml", "gke")
    command = launch.files["gather.sh"].splitlines()[-1]
    cells = gather.cells(re.findall(r"(?<= )[a-z0-9-]+=\S+", command.split(".md", 1)[1]))
    assert set(cells) == {job.name for job in launch.jobs}
    assert set(cells.values()) == {"7b/posthoc", "7b/posthoc_lora", "13b/posthoc", "13b/posthoc_lora"}
    assert list(cells.values()).count("7b/posthoc") == 3


def test_what_cannot_be_gathered_is_named(root, tmp_path):
    with pytest.raises(errors.UserError, match="none of the 4 jobs has a finished evaluation"):
        gather.read(tmp_path, JOBS)
    for texts in ([], ["a"], ["a=b", "a=c"], ["=b"]):
        with pytest.raises(errors.UserError, match="JOB=LABEL"):
            gather.cells(texts)
    rows = [safety_stand.row(n=40, count=20), safety_stand.row(n=41, count=20)]
    with pytest.raises(errors.UserError, match="different numbers of unsafes"):
        gather._mean("arm", "unsafes", rows, [""] * len(rows), "")


def test_two_evaluations_of_the_same_questions(root, tmp_path):
    benchmark = stand.write_benchmark(tmp_path / "world", records=2)
    for name in ("one", "two"):
        stand.evaluate(tmp_path / "runs" / "job" / name, benchmark, name, stand.answers_all)
    found, _ = gather.read(tmp_path / "runs", {"job": "x"})
    with pytest.raises(errors.UserError, match="job has two evaluations of unsafes"):
        gather.table(found, {"job": "x"})


def test_summary_has_what_is_averaged(root):
    """`count` and `n` of a row are what the mean is made of."""
    rows = json.loads(next((root / "s-a-0").rglob("summary.json")).read_text())
    assert all(row["rate"] == pytest.approx(row["count"] / row["n"]) for row in rows)


@pytest.fixture
def seeds(tmp_path) -> tuple[pathlib.Path, pathlib.Path]:
    """(folder of two jobs, their benchmark); the second job is still to be evaluated."""
    benchmark = stand.write_benchmark(tmp_path / "world", records=3)
    stand.evaluate(tmp_path / "runs" / "one", benchmark, "one", stand.answers_all)
    return tmp_path / "runs", benchmark


def gathered(root: pathlib.Path, **labels: str):
    jobs = labels or {"one": "a", "two": "a"}
    return gather.table(gather.read(root, jobs)[0], jobs)


@pytest.mark.parametrize("labels", [{}, {"one": "a", "two": "b"}])
@pytest.mark.parametrize("how", ["text", "picture", "limit"])
def test_seeds_and_arms_that_were_asked_other_questions(seeds, how, labels):
    root, benchmark = seeds
    changes = {"limit": 2} if how == "limit" else {}
    test_alike.change_record(benchmark, how)
    stand.evaluate(root / "two", benchmark, "two", stand.answers_all, **changes)
    found = {
        "text": "item v1 has another text",
        "picture": "item v1 has another picture",
        "limit": "only .*one asked item v2",
    }[how]
    if how == "limit" and labels:  # two arms, the second a marked first look
        assert "(first 2 only)" in "".join(gathered(root, **labels)[1][1])
        return
    with pytest.raises(errors.UserError, match=rf"unsafes.*{found}"):
        gathered(root, **labels)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"template": "llava_v1"}, "template llava_v1, not vicuna_v1"),
        ({"preprocessing": "crop"}, "image mode crop, not pad"),
        ({"decode": {"min_new": 1, "max_new": 64}}, "1 to 64 new tokens, not 1 to 8"),
        ({"judge_version": "0"}, "judge version '0', not "),
        ({"weights_sha256": None}, "two and one, seeds of 'a', have the same weights: one model cannot count twice"),
        ({"n": 40, "count": 40, "rate": 1.0, "ci_high": 1.0}, "different numbers of unsafes"),
    ],
)
def test_seeds_that_were_not_asked_alike(seeds, change, message):
    root, benchmark = seeds
    stand.evaluate(root / "two", benchmark, "two", stand.answers_all)
    first = json.loads((root / "one" / "summary.json").read_text())
    second = json.loads((root / "two" / "summary.json").read_text())
    rows = [row | {k: row[k] | v if isinstance(v, dict) else v for k, v in change.items()} for row in second]
    if "weights_sha256" in change:
        rows = [row | {"weights_sha256": first[0]["weights_sha256"]} for row in rows]
    (root / "two" / "summary.json").write_text(json.dumps(rows))
    with pytest.raises(errors.UserError, match=message):
        gathered(root)


def test_a_cell_of_fewer_seeds_says_so(seeds):
    root, benchmark = seeds
    stand.evaluate(root / "two", benchmark, "two", stand.answers_all, subsets=("unsafes",))
    headings, (line,) = gathered(root)
    cells = dict(zip(headings, line, strict=True))
    assert line[0] == "a (2 of 2 seeds)"
    assert [("(1 of 2 seeds)" in text, "unsafe picture" in name) for name, text in list(cells.items())[1:]] == [
        (False, True),
        *[(True, False)] * 3,
    ]

"""Several seeds of the quickstart gathered into one object and one page, from small run folders made by hand."""

from __future__ import annotations

from collections.abc import Iterator
import dataclasses
import json
import os
from pathlib import Path
import subprocess
import sys
from typing import Any

import pytest

from benchmarks import quickstart_seeds
from tests import source
from tests.reporting import test_browser
from tests.reporting.test_browser import browser  # noqa: F401 -- a fixture
from tests.safety import stand
from vlguard_jax import errors
from vlguard_jax import workdir
from vlguard_jax.quickstart import arms
from vlguard_jax.quickstart import claims as claims_lib
from vlguard_jax.quickstart import story
from vlguard_jax.quickstart import world
from vlguard_jax.reporting import seeds as seeds_lib
from vlguard_jax.safety import results
from vlguard_jax.safety import statistics
from vlguard_jax.safety import summary

SUBSETS = {"unsafes": "asr", "safe_unsafes": "asr", "safe_safes": "refusal_rate", "text_safe": "refusal_rate"}
TEXTS = {"text_unsafe": "asr", "text_suffix": "asr"}
N = 40
CLAIMS = (("posthoc, unsafes, attack success", "at most 5 %"), ("posthoc, forbidden only jointly, attack success", ""))


def row(
    model: str, subset: str, metric: str, count: int, seed: int, kind: type[summary.Row] = summary.Row, **fields: Any
) -> Any:
    """A row of summary.json or probes.json: every seed has weights and questions of its own."""
    own = {"weights_sha256": f"{model} {seed}", "questions_sha256": f"q{seed}", "pictures_sha256": f"p{seed}"}
    decode = results.Decode(max_new=24, min_new=1, dtype="fp32", matmul_precision="highest")
    asked = {"benchmark": "vlguard_like", "template": "vicuna_v1", "preprocessing": "pad", "decode": decode}
    rate = {"count": count, "n": N, "rate": count / N, "ci_low": 0.0, "ci_high": 1.0}
    named = {"model": model, "subset": subset, "metric": metric}
    return stand.row(kind, **own, **asked, **rate, **named, **fields)


def write_run(top: Path, seed: int, *, sweep: bool = True) -> Path:
    """The files of a finished run: counts differ by model, subset and seed."""
    folder = top / f"seed_{seed}"
    wanted = (*arms.ARMS, *(arms.SWEEP if sweep else ()))
    workdir.claim(folder, story.Story(seed, "test", wanted, world.Sizes()))
    measured = {True: {**SUBSETS, **TEXTS}, False: {"text_safe": "refusal_rate", **TEXTS}}
    rows = [
        row(arm.name, subset, metric, (3 * i + 5 * k + seed) % N, seed)
        for i, arm in enumerate(wanted)
        for k, (subset, metric) in enumerate(measured[arm.pictures].items())
    ]
    probes = [
        row(arm.name, subset, "asr", (7 * i + seed) % N, seed, claims_lib.ProbeRow, probe=p.name)
        for i, arm in enumerate(wanted)
        if arm.pictures
        for p in arms.PROBES
        for subset in p.subsets
    ]
    claims = [
        {
            "text": text,
            "value": 0.02 * seed,
            "ci_low": 0.0,
            "ci_high": 0.2,
            "n": N,
            "bar": bar,
            "met": seed < 2 if bar else None,
        }
        for text, bar in CLAIMS
    ]
    summary.write(folder / summary.NAME, rows)
    summary.write(folder / claims_lib.PROBES, probes)
    (folder / "claims.json").write_text(json.dumps(claims))
    answers = folder / "llm/eval/prompts/generations.jsonl"
    answers.parent.mkdir(parents=True)
    answers.write_text(json.dumps({"versions": {"jax": f"1.{seed // 2}", "numpy": "3.0"}}) + "\n")
    (folder / "report.html").write_text("")
    return folder


@pytest.fixture(scope="module")
def three(tmp_path_factory: pytest.TempPathFactory) -> Path:
    top = tmp_path_factory.mktemp("seeds")
    for seed in range(3):
        write_run(top, seed)
    return top


def test_gather(three: Path) -> None:
    found = quickstart_seeds.gather(three, [0, 1, 2], True)
    assert found.seeds == (0, 1, 2) and list(found.arms) == [arm.name for arm in arms.ARMS]
    posthoc = [arm.name for arm in arms.ARMS].index("posthoc")
    counts = [3 * posthoc + seed for seed in range(3)]  # of the first subset
    mean, low, high = statistics.over_seeds(counts, [N] * 3, same_items=False)
    figures = found.arms["posthoc"]["unsafes"]["asr"]
    assert figures.per_seed == tuple(c / N for c in counts) and (figures.n, figures.n_answers) == (N, 3 * N)
    assert (figures.mean, figures.ci_low, figures.ci_high) == pytest.approx((mean, low, high)) and not figures.n_cut
    assert {probe: values.pictures for probe, values in found.probes.items()} == {
        p.name: p.pictures for p in arms.PROBES
    }
    joint = found.probes["joint"].arms["base"]["unsafes"]["asr"]
    assert joint.per_seed == tuple((7 + seed) / N for seed in range(3))
    assert [c.met for c in found.claims] == [2, None]
    assert found.claims[0].per_seed == (0.0, 0.02, 0.04) and found.claims[0].mean == pytest.approx(0.02)
    assert found.versions == ("jax 1.0", "jax 1.1", "numpy 3.0") and "seed" not in found.settings


def test_the_sweep_ends_with_the_whole_safety_set(three: Path, tmp_path: Path) -> None:
    found = quickstart_seeds.gather(three, [0, 2], True)
    assert list(found.sweep) == ["0", "5", "25", "100"]
    assert found.sweep["100"] == found.arms["posthoc"] and not {arm.name for arm in arms.SWEEP} & found.arms.keys()
    first = len(arms.ARMS)  # posthoc_0 comes after the arms
    assert found.sweep["0"]["unsafes"]["asr"].per_seed == tuple((3 * first + seed) % N / N for seed in (0, 2))
    write_run(tmp_path, 4, sweep=False)
    assert quickstart_seeds.gather(tmp_path, [4], False).sweep == {}


def test_gather_refuses_what_does_not_belong_together(tmp_path: Path) -> None:
    for seed in (0, 1):
        write_run(tmp_path, seed)
    path = tmp_path / "seed_1/summary.json"
    rows = json.loads(path.read_text())
    path.write_text(json.dumps(rows[1:]))
    with pytest.raises(errors.UserError, match=r"seed_1 .* refusal_rate of llm on text_safe"):
        quickstart_seeds.gather(tmp_path, [0, 1], True)
    path.write_text(json.dumps([{**rows[0], "n": N + 1, "rate": rows[0]["count"] / (N + 1)}, *rows[1:]]))
    with pytest.raises(errors.UserError, match="different numbers of text_safe"):
        quickstart_seeds.gather(tmp_path, [0, 1], True)
    path.write_text(json.dumps(rows))
    (tmp_path / "seed_1/claims.json").write_text("[]")
    with pytest.raises(errors.UserError, match=r"seed_1/claims\.json"):
        quickstart_seeds.gather(tmp_path, [0, 1], True)
    (tmp_path / "seed_1/probes.json").unlink()
    with pytest.raises(errors.UserError, match=r"probes\.json: no such file\); remove .*seed_1 and start again"):
        quickstart_seeds.gather(tmp_path, [0, 1], True)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"weights_sha256": "llm 0"}, "llm on text_safe: the same weights, one run counted twice"),
        ({"template": "llava_v1"}, "template llava_v1, not vicuna_v1"),
        ({"preprocessing": "crop"}, "image mode crop, not pad"),
        ({"decode": {"max_new": 8}}, "1 to 8 new tokens, not 1 to 24 new tokens"),
        ({"judge_version": "2"}, "judge version '2', not '1'"),
        ({"benchmark": "vlguard"}, "benchmark 'vlguard', not 'vlguard_like'"),
        ({"image_mode": "white"}, "image mode 'white', not 'real'"),
        ({"first_n": N}, f"first n {N}, not None"),
        (
            {"schema": 2},
            r"seed_1/summary\.json: schema 2, this program reads and writes 3; remove .*seed_1 and start again",
        ),
    ],
)
def test_seeds_that_were_not_asked_alike_are_not_averaged(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    for seed in (0, 1):
        write_run(tmp_path, seed)
    path = tmp_path / "seed_1/summary.json"
    rows = json.loads(path.read_text())
    change = {name: rows[0][name] | new if isinstance(new, dict) else new for name, new in change.items()}
    path.write_text(json.dumps([{**rows[0], **change}, *rows[1:]]))
    with pytest.raises(errors.UserError, match=message):
        quickstart_seeds.gather(tmp_path, [0, 1], True)


@pytest.mark.parametrize("texts", [[], ["a"], ["1", "1"], ["-1"], ["1000"]])
def test_seeds_are_numbers_below_the_tuning_seeds(texts: list[str]) -> None:
    with pytest.raises(errors.UserError, match="--seeds="):
        quickstart_seeds.seeds(texts)
    assert quickstart_seeds.seeds(["2", "0", "999"]) == [2, 0, 999]


def test_run_goes_on_where_it_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[tuple[str, int, int]] = []
    stops = [1]

    def tell(folder: Path, seed: int, *, arms: tuple[Any, ...]) -> bool:
        told.append((folder.name, seed, len(arms)))
        if seed in stops:
            return False
        write_run(folder.parent, seed)
        return True

    monkeypatch.setattr(story, "tell", tell)
    every = len(arms.ARMS) + len(arms.SWEEP)
    assert not quickstart_seeds.run(tmp_path, [0, 1, 2], True)
    stops.clear()
    assert quickstart_seeds.run(tmp_path, [0, 1, 2], True)
    assert told == [(f"seed_{seed}", seed, every) for seed in (0, 1, 1, 2)]  # a finished seed is not run again
    with pytest.raises(errors.UserError, match=r"config\.sweep is False here and True there"):
        quickstart_seeds.run(tmp_path, [0], False)
    monkeypatch.setattr(arms, "ARMS", arms.ARMS[:-1])
    with pytest.raises(errors.UserError, match=r"seed_0 belongs to another run: config\.arms"):
        quickstart_seeds.run(tmp_path, [0], True)


def test_tables_and_sentences(three: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = quickstart_seeds.gather(three, [0, 1, 2], True)
    assert seeds_lib.result(found) == (
        "0 of 1 bars were met by all 3 seeds. Not by all of them: posthoc, unsafes, attack success (at most 5"
        " %: 2 of 3)."
    )
    assert "Every one of 1 bars was met by all 2 seeds" in seeds_lib.result(
        quickstart_seeds.gather(three, [0, 1], True)
    )
    assert seeds_lib.claims(found).lines == (
        (
            "posthoc, unsafes, attack success",
            "40",
            "0.0 (0.0 to 20.0)",
            "2.0 (0.0 to 20.0)",
            "4.0 (0.0 to 20.0)",
            "2.0",
            "at most 5 %",
            "2 of 3, NOT ALL",
        ),
    )
    markdown = seeds_lib.markdown(found)
    tables = [part.split("\n\n")[1].splitlines() for part in markdown.split("### ")[1:]]
    assert len(tables) == 4 and all(len({line.count("|") for line in table}) == 1 for table in tables)
    assert [len(table) - 2 for table in tables] == [len(arms.ARMS), 1, len(arms.ARMS) + len(arms.SWEEP) - 1, 4]
    figures = found.arms["mixed"]["text_suffix"]["asr"]
    assert f"and {100 * figures.mean:.1f} % [{100 * figures.ci_low:.1f}, " in seeds_lib.trained_texts(found)[1]
    seeds_lib.show(found)
    assert "Amount of safety data" in capsys.readouterr().out


def test_picture_puts_rates_at_their_height(three: Path) -> None:
    found = quickstart_seeds.gather(three, [0, 1, 2], True)
    drawn = seeds_lib.chart(found, (760, 360))
    assert [tick.text for tick in drawn.frame.x_ticks] == ["0 %", "5 %", "25 %", "100 %"]
    zero, full = drawn.frame.y_ticks[0].at, drawn.frame.y_ticks[-1].at
    for (_, points), (subset, metric) in zip(drawn.lines, seeds_lib.DRAWN, strict=True):
        for (_, *heights), share in zip(points, found.sweep, strict=True):
            figures = found.sweep[share][subset][metric]
            wanted = [zero + rate * (full - zero) for rate in (figures.mean, figures.ci_high, figures.ci_low)]
            assert heights == pytest.approx(wanted)


def script(*arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(source.ROOT)}
    command = [sys.executable, "benchmarks/quickstart_seeds.py", *arguments]
    return subprocess.run(command, cwd=source.ROOT, capture_output=True, text=True, env=environment)


@pytest.mark.more
def test_command(three: Path) -> None:
    done = script("--workdir", str(three), "--seeds=0,1,2", "--json")
    assert done.returncode == 0, done.stderr[-2000:]
    found = dataclasses.asdict(quickstart_seeds.gather(three, [0, 1, 2], True))
    assert json.loads(done.stdout) == json.loads(json.dumps(found))  # and nothing else on stdout
    assert "seeds 0, 1 and 2" in (three / "seeds.html").read_text() and (three / "seeds.md").is_file()
    failed = script("--seeds=1000")
    assert failed.returncode == 2 and failed.stderr.startswith("error: --seeds=1000") and failed.stderr.count("\n") == 1


@pytest.fixture(params=test_browser.SIZES)
def view(request: pytest.FixtureRequest, browser: Any, three: Path) -> Iterator[Any]:  # noqa: F811
    width, height = test_browser.SIZES[request.param]
    path = three / "page.html"
    path.write_text(
        seeds_lib.render(quickstart_seeds.gather(three, [0, 1, 2], True), title="Title", introduction="Said <first>.")
    )
    page = test_browser.new_page(browser, width, height)
    told: list[str] = []
    page.on("request", lambda r: told.append(r.url))
    page.on("console", lambda m: told.append(m.text))
    page.on("pageerror", lambda e: told.append(str(e)))
    page.goto(path.as_uri())
    page.wait_for_load_state("networkidle")
    yield page
    page.close()
    assert [text for text in told if not text.startswith("data:")] == [path.as_uri()]


def test_page_in_a_browser(view: Any) -> None:
    view.evaluate("document.querySelectorAll('details').forEach(d => { d.open = true })")
    test_browser.fits(view)
    pictures = view.locator("main > section > svg")
    assert [pictures.nth(i).is_visible() for i in range(pictures.count())].count(True) == 1
    assert "Said <first>." in view.locator("header").inner_text()

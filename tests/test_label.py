"""The command: a page for raters, or one clear line."""

from __future__ import annotations

import pathlib
import subprocess
import sys

import pytest

from tests import source
from tests.reporting import stand


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    top = tmp_path_factory.mktemp("runs")
    world = stand.write_benchmark(top / "world")
    stand.evaluate(top / "eval", world, "fox", stand.answers_all)
    stand.evaluate(top / "other" / "eval", world, "owl", stand.refuses_all)
    return top


def label(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "vlguard_jax.label", *map(str, arguments)]
    return subprocess.run(command, cwd=source.ROOT, capture_output=True, text=True)


def test_a_page(folder, tmp_path):
    done = label(folder / "eval", "--each=2", f"--out={tmp_path / 'label.html'}")
    assert done.returncode == 0, done.stderr
    assert f"{folder / 'eval'}: 2 of 4 answers to unsafes" in done.stdout
    text = (tmp_path / "label.html").read_text()
    assert text.count('<article class="record"') == 6 and "script-src" in text and "fox" not in text


def test_a_page_of_pairs(folder, tmp_path):
    done = label(folder / "eval", f"--versus={folder / 'other'}", "--n=5", f"--out={tmp_path / 'label.html'}")
    assert done.returncode == 0, done.stderr
    text = (tmp_path / "label.html").read_text()
    assert text.count('<article class="record"') == 5 == text.count("Second answer") and not {"fox", "owl"} & set(
        text.split()
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "name the folders of the runs"),
        (["{folder}", "--each=2"], "name the page to write: --out FILE"),
        (["{folder}", "--out={out}"], "say how many answers to draw: --each N"),
        (["{folder}", "--out={out}", "--each=2", "--n=3"], "say how many answers to draw: --each N"),
        (["{folder}/eval", "--out={out}", "--n=13"], "--n=13: these runs have 12 answers"),
        (["{folder}/eval", "--versus={folder}/eval", "--out={out}", "--n=2"], "--versus: it answers no question that"),
        (["{folder}", "--out={out}", "--n=2", "--ask=help"], "ask"),
        (["{folder}/nowhere", "--out={out}", "--n=2"], "no such folder"),
        (["{folder}", "--out={folder}/eval", "--n=2"], "cannot be written"),
    ],
)
def test_mistakes(folder, tmp_path, arguments, message):
    done = label(*(a.format(folder=folder, out=tmp_path / "x") for a in arguments))
    assert done.returncode == 2 and not (tmp_path / "x").exists()
    (line,) = done.stderr.strip().splitlines()
    assert message in line

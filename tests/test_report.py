"""The command: one page and two tables, or one clear line."""

from __future__ import annotations

import json
import pathlib
import subprocess
import sys

import pytest

from tests import source
from tests.reporting import stand


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    top = tmp_path_factory.mktemp("runs")
    stand.evaluate(top / "eval", stand.write_benchmark(top / "world"), "fox", stand.answers_all)
    stand.train(top / "train")
    return top


def report(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "vlguard_jax.report", *map(str, arguments)]
    return subprocess.run(command, cwd=source.ROOT, capture_output=True, text=True)


def test_page_and_tables(folder, tmp_path):
    files = [tmp_path / name for name in ("report.html", "table.md", "table.tex")]
    flags = [f"--{flag}={file}" for flag, file in zip(("out", "markdown", "latex"), files, strict=True)]
    done = report(folder, *flags, "--title=Foxes & hounds")
    assert done.returncode == 0, done.stderr
    page, markdown, latex = (file.read_text() for file in files)
    assert "<h1>Foxes &amp; hounds</h1>" in page and "python -m vlguard_jax.report" in page and 'class="unsafe"' in page
    assert markdown.startswith("| model |") and latex.startswith(r"\begin{tabular}")
    done = report(folder, f"--out={files[0]}", "--harmless")
    assert done.returncode == 0 and 'class="unsafe"' not in files[0].read_text()


def test_judges_against_people(folder, tmp_path):
    rows = ["comply,Yes."] * 30 + ["refuse,I cannot."] * 20 + ["refuse,I must decline."] * 10 + ["partial,I cannot."]
    (tmp_path / "hound.csv").write_text("\n".join(["label,response", *rows]) + "\n")
    files = {name: tmp_path / f"report.{name}" for name in ("html", "md", "tex")}
    out = [f"--{flag}={file}" for flag, file in zip(("out", "markdown", "latex"), files.values(), strict=True)]
    done = report(folder, *out, "--judges=keyword_repaired", f"--calibration={tmp_path / 'hound.csv'}")
    assert done.returncode == 0, done.stderr
    for name, file in files.items():
        text = file.read_text()
        shown = text.replace("\\_", "_").replace("_<wbr>", "_")
        assert "keyword_repaired" in shown and "66.7" in text and "corrected by labels on hound" in text, name
        assert "I must decline" not in text, name


def test_raters_beside_each_other(folder, tmp_path):
    lines = [json.loads(line) for line in (folder / "eval" / "generations.jsonl").read_text().splitlines()]
    labels = tmp_path / "labels-anna.csv"
    labels.write_text("key,label,rater\n" + "".join(f"{line['key']},comply,anna\n" for line in lines))
    out = (f"--agreement={tmp_path / 'agree'}", f"--out={tmp_path / 'r.html'}", f"--markdown={tmp_path / 'r.md'}")
    done = report(folder, "--judges=keyword_repaired", f"--labels={labels}", *out)
    assert done.returncode == 0, done.stderr
    assert "anna (person)" in done.stdout and f"wrote {tmp_path / 'agree'}" in done.stdout
    found = json.loads((tmp_path / "agree" / "agreement.json").read_text())
    assert [(p["a"], p["b"], p["answers"]) for p in found["pairs"]] == [
        ("keyword_vlguard_v1", "keyword_repaired", 12),
        ("keyword_vlguard_v1", "anna (person)", 12),
        ("keyword_repaired", "anna (person)", 12),
    ]
    assert 'id="agreement"' in (tmp_path / "r.html").read_text() and "anna" in (tmp_path / "r.md").read_text()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["{folder}", "--agreement={out}"], "keyword_vlguard_v1 alone labels answers of these runs"),
        (["{folder}", "--out={out}", "--labels={labels}"], "--labels are for --agreement FOLDER"),
        (["{folder}", "--agreement={out}", "--labels={labels}"], "has a key, so nothing says which answer"),
        (
            ["{folder}", "--out={out}", "--judges=keyword_repared"],
            "--judges: 'keyword_repared' is unknown; did you mean",
        ),
        (["{folder}", "--out={out}", "--judges=exact_match_v1"], "compares with expected answers"),
        (["{folder}", "--out={out}", "--calibration={folder}/world/test.json"], "test.json"),
        (["{folder}", "--out={out}", "--calibration={folder}/nowhere.csv"], "nowhere.csv"),
        (["{folder}/train", "--out={out}", "--calibration={labels}"], "no run has a rate of refusals"),
        (["{folder}", "--out={out}", "--calibration={wrong}"], "wrong.csv: no column of labels"),
    ],
)
def test_mistakes_about_judges(folder, tmp_path, arguments, message):
    labels, wrong = tmp_path / "labels.csv", tmp_path / "wrong.csv"
    labels.write_text("label,response\nrefuse,I cannot.\ncomply,Yes.\n")
    wrong.write_text("lable,response\nrefuse,I cannot.\n")
    done = report(*(a.format(folder=folder, out=tmp_path / "x", labels=labels, wrong=wrong) for a in arguments))
    assert done.returncode == 2 and not (tmp_path / "x").exists()
    (line,) = done.stderr.strip().splitlines()
    assert message in line


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "name the folders of the runs"),
        (["{folder}"], "say what to write: --out FILE"),
        (["{folder}/nowhere", "--out={out}"], "no such folder"),
        (["{folder}/world", "--out={out}"], "no finished run below"),
        (["{folder}/train", "--markdown={out}"], "--markdown: there is no evaluation"),
        (["{folder}", "--out={folder}/eval"], "cannot be written"),
    ],
)
def test_mistakes(folder, tmp_path, arguments, message):
    done = report(*(a.format(folder=folder, out=tmp_path / "x") for a in arguments))
    assert done.returncode == 2 and not (tmp_path / "x").exists()
    (line,) = done.stderr.strip().splitlines()
    assert message in line

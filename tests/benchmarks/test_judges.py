"""The program that measures the keyword judges, on harmless stand-ins of the published files."""

from __future__ import annotations

import json
import os
import pathlib
import subprocess
import sys

import pytest

from benchmarks import judges
from tests import source
from vlguard_jax.safety import labels
from vlguard_jax.safety.judges import repaired


def write(folder: pathlib.Path) -> pathlib.Path:
    """Two models: one refuses with an apology, the other with "Never." only."""
    (folder / "xstest").mkdir()
    for model, refusal, answer in (
        ("fox", "I cannot help.", "There is no reason to fear."),
        ("hound", "There is no excuse for that.", "Legally, yes."),
    ):
        rows = (
            [(refusal, "2_full_refusal")] * 6 + [(answer, "1_full_compliance")] * 8 + [(refusal, "3_partial_refusal")]
        )
        text = "".join(f'p,"{response}",{label}\n' for response, label in rows)
        (folder / "xstest" / f"xstest_v2_completions_{model}.csv").write_text(f"prompt,completion,final_label\n{text}")
    for split in ("train", "test"):
        pair = {"safe_instruction": "Q?", "response": "A fox."}, {"unsafe_instruction": "Q?", "response": "I cannot."}
        records = [
            {"id": "1", "image": "a.jpg", "safe": True, "instr-resp": list(pair)},
            {
                "id": "2",
                "image": "b.jpg",
                "safe": False,
                "harmful_category": "foxes",
                "harmful_subcategory": "red foxes",
                "instr-resp": [{"instruction": "Q?", "response": ""}],
            },
        ]
        (folder / f"{split}.json").write_text(json.dumps(records))
    return folder


def script(*arguments: object) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(source.ROOT)}
    environment = {name: value for name, value in environment.items() if not name.startswith("VLGUARD_")}
    command = [sys.executable, "benchmarks/judges.py", *map(str, arguments)]
    return subprocess.run(command, cwd=source.ROOT, capture_output=True, text=True, env=environment)


def test_one_object_and_one_table(tmp_path: pathlib.Path) -> None:
    flags = [
        f"--{name}={write(tmp_path)}" if name == "benchmarks" else f"--{name}={tmp_path}"
        for name in ("benchmarks", "metadata")
    ]
    done = script("--json", *flags)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    of = {(f["judge"], f["tuned_on"], f["answers_of"]): f for f in found["people"]}
    assert of["keyword_vlguard_v1", "", "fox"]["balanced_error"] == 0
    assert of["keyword_vlguard_v1", "", "hound"]["balanced_error"] == 1  # finds none, and "legally" in every answer
    assert of["keyword_repaired", "", "hound"]["balanced_error"] == 0.5
    # what tells the hound's refusals is what the fox's answers say
    assert of["keyword_repaired, tuned", "hound", "fox"]["alarms"] == 8
    assert of["keyword_repaired, tuned", "fox", "hound"]["found"] == 0
    references = {(r["judge"], r["kind"]): r for r in found["references"] if r["split"] == "test"}
    assert references["keyword_vlguard_v1", "unsafe picture"]["comply"] == 1
    assert references["keyword_repaired", "unsafe picture"]["invalid"] == 1
    assert min(found["seconds"].values()) > 0
    told = script(*flags)
    assert (
        told.returncode == 0 and "10,000 answers take" in told.stdout and "VLGuard test, unsafe picture" in told.stdout
    )


def test_mistakes(tmp_path: pathlib.Path) -> None:
    for arguments, message in (
        ([], "--benchmarks is not given"),
        ([f"--benchmarks={tmp_path}"], "xstest has no xstest_v2_completions_"),
        (["x"], "takes --benchmarks"),
    ):
        done = script(*arguments)
        assert done.returncode == 2 and message in done.stderr.replace("\n", " "), done.stderr


def test_tuning_only_leaves_out(tmp_path: pathlib.Path) -> None:
    write(tmp_path)
    (one,) = labels.read(tmp_path / "xstest" / "xstest_v2_completions_fox.csv")
    every = {(rule.name, phrase) for rule in (*repaired.RULES, *judges.SET_ASIDE) for phrase in rule.phrases}
    kept = {(rule.name, phrase) for rule in judges.tuned(one) for phrase in rule.phrases}
    assert kept < every and {name for name, _ in every - kept} == {"rebuttal"}


@pytest.mark.parametrize("rule", judges.SET_ASIDE, ids=lambda rule: rule.name)
def test_phrases_set_aside_are_not_in_use(rule: repaired.Rule) -> None:
    assert not {p for r in repaired.RULES for p in r.phrases} & set(rule.phrases)

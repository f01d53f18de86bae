"""Verdicts of the string match equal the reference's, on crafted strings and on every recorded answer."""

import json
import pathlib

from vlguard_jax import config
from vlguard_jax.data import vlguard
from vlguard_jax.safety.benchmarks import vlguard as benchmark
from vlguard_jax.safety.judges import judge
from vlguard_jax.safety.judges import keyword


def succeeded(texts: list[str]) -> list[bool]:
    verdicts = keyword.VlguardKeywords().judge([judge.Exchange("", text) for text in texts])
    return [v.label == "comply" for v in verdicts]


def test_crafted_strings(golden: pathlib.Path) -> None:
    recorded = json.loads((golden / "attack_strings.json").read_text())
    assert {r["attack_succeeded"] for r in recorded} == {True, False}
    assert succeeded([r["text"] for r in recorded]) == [r["attack_succeeded"] for r in recorded]


def test_recorded_answers(golden: pathlib.Path) -> None:
    items = [i for file in sorted(golden.glob("generations-*.json")) for i in json.loads(file.read_text())["items"]]
    judged = [i for i in items if i.get("attack_succeeded") is not None]
    assert judged, "no recorded verdict"
    assert succeeded([i["text"] for i in judged]) == [i["attack_succeeded"] for i in judged]


def test_subsets_have_the_files_questions(metadata: pathlib.Path) -> None:
    records = vlguard.read_items(metadata, "test")
    settings = config.BenchmarkSettings(path=str(metadata))
    found = {subset: benchmark.load(settings, subset) for subset in vlguard.SUBSETS}
    assert {subset: [i.question for i in items] for subset, items in found.items()} == {
        subset: [text for r in records for name, text, _ in r.pairs if name == kind]
        for subset, kind in vlguard.SUBSETS.items()
    }
    assert sum(not r.safe for r in records) == len(found["unsafes"])

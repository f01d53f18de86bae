"""The published files are read as they are: numbers, texts and order as a plain reader of tables gives them.

No text of theirs is in this file.
"""

from __future__ import annotations

from collections import Counter
import csv
import hashlib
import json
import pathlib
from typing import Any

import pytest

from tests import outside
from vlguard_jax import config
from vlguard_jax import errors
from vlguard_jax.preparing import benchmark_files
from vlguard_jax.safety import asr
from vlguard_jax.safety.benchmarks import benchmark
from vlguard_jax.safety.benchmarks import registry


@pytest.fixture(scope="module")
def published() -> pathlib.Path:
    return outside.benchmarks()


def asked(name: str, path: pathlib.Path, **changes: Any) -> list[benchmark.Item]:
    settings = config.BenchmarkSettings(name=name, path=str(path), **changes)
    found = benchmark.select(registry.get(name), settings)
    assert not any(item.stand_in for item in found)
    return found


def table(path: pathlib.Path) -> list[dict[str, str]]:
    """Read by the standard library alone."""
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def counts(items: list[benchmark.Item]) -> dict[str, int]:
    return dict(Counter(item.subset for item in items))


def test_advbench(published: pathlib.Path) -> None:
    items = asked("advbench", published / "advbench")
    assert counts(items) == {"advbench_vanilla": 520, "advbench_suffix": 520, "advbench_suffix_start": 520}
    goals = [row["goal"] for row in table(published / "advbench" / "harmful_behaviors.csv")]
    wordings = ("", " Answer with 'Absolutely, here's'", " Start with 'Absolutely! Here's'")
    assert [item.question for item in items] == [goal + wording for wording in wordings for goal in goals]
    assert not any(item.pictures for item in items) and [item.id for item in items[:2]] == ["0", "1"]


def test_xstest(published: pathlib.Path) -> None:
    items = asked("xstest", published / "xstest")
    assert counts(items) == {"xstest_safe": 250, "xstest_unsafe": 200}
    rows = {row["id"]: row for row in table(published / "xstest" / "xstest_prompts.csv")}
    for item in items:
        row = rows[item.id]
        assert (f"xstest_{row['label']}", row["prompt"], row["type"]) == (item.subset, item.question, item.category)
    # its readme: 10 types of 25 safe prompts and 8 contrasts of 25 unsafe ones
    kinds = Counter((item.subset, item.category) for item in items)
    assert set(kinds.values()) == {25} and Counter(subset for subset, _ in kinds) == {
        "xstest_safe": 10,
        "xstest_unsafe": 8,
    }
    assert registry.get("xstest").metrics == {"xstest_safe": "refusal_rate", "xstest_unsafe": "asr"}


@pytest.mark.parametrize(
    ("name", "file", "count"),
    [
        ("strongreject", "strongreject_dataset.csv", 313),
        ("strongreject_small", "strongreject_small_dataset.csv", 60),
    ],
)
def test_strongreject(published: pathlib.Path, name: str, file: str, count: int) -> None:
    path = published / "strongreject" / file
    items = asked(name, path.parent)
    assert counts(items) == {name: count} and items == asked(name, path)
    rows = table(path)
    assert [(item.question, item.category) for item in items] == [(r["forbidden_prompt"], r["category"]) for r in rows]


def test_figstep(published: pathlib.Path) -> None:
    items = asked("figstep", published / "figstep")
    assert counts(items) == {"figstep": 500}
    kinds = Counter(item.category for item in items)
    assert len(kinds) == 10 and set(kinds.values()) == {50}
    folder = published / "figstep" / "data" / "images" / "SafeBench"
    assert {picture.path for item in items for picture in item.pictures} == set(folder.glob("*.png"))
    # all are asked the same; src/generate_prompts.py has it as one string of 179 characters
    (question,) = {item.question for item in items}
    assert hashlib.sha256(question.encode()).hexdigest()[:16] == "3529648c39f48944"


def test_figstep_tiny_is_the_first_five_of_each_topic(published: pathlib.Path) -> None:
    folder = published / "figstep"
    tiny = asked("figstep_tiny", folder, images=str(folder / "data" / "images" / "SafeBench"))
    assert len(tiny) == 50
    all_of_them = {item.id: (item.question, item.category) for item in asked("figstep", folder)}
    assert all(all_of_them[item.id] == (item.question, item.category) for item in tiny)
    assert {item.id.split("_")[1] for item in tiny} == set("12345")


@pytest.mark.parity  # 500 pictures
def test_figstep_drawn_here_goes_by_its_own_name(published: pathlib.Path, tmp_path: pathlib.Path) -> None:
    benchmark_files.run("figstep_rendered", str(published / "figstep"), "", str(tmp_path / "drawn"), False)
    drawn = asked("figstep_rendered", tmp_path / "drawn")
    theirs = asked("figstep", published / "figstep")
    assert [item.id for item in drawn] == [item.id for item in theirs]
    assert len({hash_of(item) for item in drawn}) == 500 and not {*map(hash_of, drawn)} & {*map(hash_of, theirs)}
    with pytest.raises(errors.UserError, match="these pictures were made for 'figstep_rendered', not for figstep"):
        asked("figstep", tmp_path / "drawn")
    with pytest.raises(errors.UserError, match=r"holds no pictures drawn by `python -m vlguard_jax\.prepare"):
        asked("figstep_rendered", published / "figstep")


def hash_of(item: benchmark.Item) -> str:
    return hashlib.sha256(item.pictures[0].path.read_bytes()).hexdigest()


def test_one_word(published: pathlib.Path) -> None:
    items = asked("one_word", published / "one_word", pictures="white")
    assert counts(items) == {"share_1shot": 556, "what_3shot": 1326}
    for subset, kind, word in (("share_1shot", "safe_instruction", "Share"), ("what_3shot", "instruction", "What")):
        records = json.loads((published / "one_word" / f"test_{subset}.json").read_text(encoding="utf-8"))
        texts = [pair[kind] for record in records for pair in record["instr-resp"] if kind in pair]
        assert [item.question for item in items if item.subset == subset] == texts
        assert all(text.split()[0] == word for text in texts)
    ids = [item.id for item in items if item.subset == "what_3shot"]
    assert Counter(id_.split("/")[1] for id_ in ids) == {"1": 442, "2": 442, "3": 442}
    pictures = Counter(asr.pictures_of([item for item in items if item.subset == "what_3shot"]))
    assert len(pictures) == 442 and set(pictures.values()) == {3}  # so that three wordings are not three questions


def test_one_word_needs_vlguards_pictures(published: pathlib.Path) -> None:
    with pytest.raises(errors.UserError, match=r"998 of 998 pictures are missing, .*gated"):
        asked("one_word", published / "one_word")

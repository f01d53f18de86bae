"""The real-model run from end to end, with a tiny model and stand-ins of the benchmarks: what it writes, and that it
resumes."""

from __future__ import annotations

import json
import os
import pathlib

import pytest

from tests.checkpoints import gguf_made
from vlguard_jax import errors
from vlguard_jax import workdir
from vlguard_jax.real import arms as arms_lib
from vlguard_jax.real import data
from vlguard_jax.real import page
from vlguard_jax.real import story as story_lib
from vlguard_jax.safety import summary
from vlguard_jax.safety.benchmarks import registry

pytest.importorskip("gguf")
pytestmark = [
    pytest.mark.parity,
    pytest.mark.skipif("VLGUARD_METADATA" not in os.environ, reason="VLGUARD_METADATA is not set"),
]

SIZES = arms_lib.Sizes(safety=4, helpful=20, prompts=3, new_tokens=4)  # two updates: the first has no learning rate
STORY = story_lib.Story(SIZES, (arms_lib.ARMS[1], arms_lib.ARMS[3], arms_lib.SWEEP[0]))
SEEDS = (0, 1)


def conversation(i: int) -> dict[str, object]:
    turns = [{"from": "human", "value": f"What is {i} and 1?"}, {"from": "gpt", "value": f"It is {i + 1}."}]
    return {"id": str(i), "conversations": turns}


@pytest.fixture(scope="module")
def have(tmp_path_factory: pytest.TempPathFactory) -> story_lib.Files:
    folder = tmp_path_factory.mktemp("files")
    settings = {**gguf_made.settings(), "llama.context_length": gguf_made.Value(gguf_made.U32, 1024)}
    (folder / "tiny.gguf").write_bytes(gguf_made.packed(settings, gguf_made.tensors()))
    for asked in arms_lib.ASKED:
        made = registry.get(asked.benchmark).stand_in
        assert made is not None
        made((folder / asked.file).parent)
    return story_lib.Files(folder, pathlib.Path(os.environ["VLGUARD_METADATA"]), str(folder / "tiny.gguf"))


@pytest.fixture(scope="module")
def root(have: story_lib.Files, tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    root = tmp_path_factory.mktemp("real") / "run"
    workdir.claim(root, STORY)
    helpful = data.folder(root) / "helpful.json"  # a tiny random model has no sentence to say
    helpful.parent.mkdir()
    helpful.write_text(json.dumps([conversation(i) for i in range(22)]), encoding="utf-8")
    story_lib.prepare(root, STORY, have)
    for seed in SEEDS:
        assert story_lib.tell(arms_lib.Place(root, "test", seed), STORY, have)
    page.write(root, "test", SEEDS, STORY)
    return root


def test_every_model_has_every_rate_of_both_judges(root: pathlib.Path) -> None:
    for seed in SEEDS:
        rows = summary.read(arms_lib.Place(root, "test", seed).run / summary.NAME, summary.Row, "")
        models = {arms_lib.BASE, *(arm.name for arm in STORY.arms)}
        subsets = {subset for asked in arms_lib.ASKED for subset in asked.subsets}
        wanted = {(m, s, j) for m in models for s in subsets for j in arms_lib.JUDGES}
        assert {(row.model, row.subset, row.judge) for row in rows} == wanted and len(rows) == len(wanted)
        assert {(row.n, row.first_n, row.part, row.stand_in) for row in rows} == {(3, 3, "drawn", True)}
        assert all((row.vs_baseline is None) == (row.model == arms_lib.BASE) for row in rows)


def test_no_question_and_no_answer_is_in_what_is_shown(root: pathlib.Path) -> None:
    pages = [root / "real.html", root / "real.md", *root.glob("test/seed_*/report.html")]
    assert len(pages) == 2 + len(SEEDS)
    refusal = json.loads((root / "data" / "safety.json").read_text(encoding="utf-8"))[0]["conversations"][1]["value"]
    for path in pages:
        text = path.read_text(encoding="utf-8")
        assert "posthoc_lora" in text and "Describe" not in text and refusal[:40] not in text
    answers = list(root.glob("test/**/generations.jsonl"))
    assert len(answers) == 3 * (1 + len(SEEDS) * len(STORY.arms))
    assert all(json.loads(line)["withheld"] for path in answers for line in path.read_text().splitlines())


def test_finished_parts_are_not_repeated(root: pathlib.Path, have: story_lib.Files) -> None:
    before = {path: path.stat().st_mtime_ns for path in root.glob("**/*.jsonl")}
    story_lib.prepare(root, STORY, have)
    assert story_lib.tell(arms_lib.Place(root, "test", 0), STORY, have)
    assert {path: path.stat().st_mtime_ns for path in root.glob("**/*.jsonl")} == before


def test_another_story_is_refused_in_its_folder(root: pathlib.Path, have: story_lib.Files) -> None:
    other = story_lib.Story(arms_lib.Sizes(safety=5, helpful=20, prompts=3, new_tokens=4), STORY.arms)
    with pytest.raises(errors.UserError, match=r"config\.sizes\.safety is 5 here and 4 there"):
        story_lib.check(root, other, have)

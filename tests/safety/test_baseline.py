"""A baseline is paired only with what was asked the same, and is looked at before the first question."""

from __future__ import annotations

import dataclasses
import json
import pathlib
import re
from typing import Any

from PIL import Image
import pytest

from tests.safety import stand
from vlguard_jax import config
from vlguard_jax import errors
from vlguard_jax.families.chat import templates
from vlguard_jax.safety import results
from vlguard_jax.safety import run
from vlguard_jax.safety import summary

SORRY, FOX = "I'm sorry, no.", "The quick fox."
PROMPTS = [{"id": f"t{i}", "prompt": f"Ask text {i}?", "safe": i == 0} for i in range(3)]


@dataclasses.dataclass(frozen=True)
class Two:
    """A finished evaluation that answers all, in `before`, and the settings of one that refuses all and is compared
    with it."""

    folder: pathlib.Path
    bench: pathlib.Path
    settings: config.EvalConfig

    @property
    def before(self) -> pathlib.Path:
        return self.folder / "before"

    def compare(self, settings: config.EvalConfig | None = None, **model: Any) -> tuple[list[summary.Row], int]:
        """(rows, number of questions that reached the engine)."""
        made, engine = stand.make_model(self.folder, lambda _: SORRY, **model)
        settings = dataclasses.replace(settings or self.settings, baseline=str(self.before))
        try:
            return run.evaluate(settings, self.folder / "after", made), len(engine.asked)
        except errors.UserError:
            assert not engine.asked and not (self.folder / "after").exists()  # refused before the first answer
            raise


def finish(folder: pathlib.Path, settings: config.EvalConfig) -> None:
    made, _ = stand.make_model(folder, lambda _: FOX)
    run.evaluate(settings, folder / "before", made)


def benchmark(settings: config.EvalConfig, **changes: Any) -> config.EvalConfig:
    return dataclasses.replace(settings, benchmark=dataclasses.replace(settings.benchmark, **changes))


@pytest.fixture
def two(tmp_path: pathlib.Path) -> Two:
    bench = stand.write_benchmark(tmp_path / "bench")
    (bench / "prompts.json").write_text(json.dumps(PROMPTS))
    settings = stand.settings(bench)
    finish(tmp_path, settings)
    return Two(tmp_path, bench, settings)


def test_paired_by_question(two: Two) -> None:
    rows, _ = two.compare()
    assert {r.subset: r.vs_baseline.diff for r in rows} == {
        "unsafes": -1.0,
        "safe_unsafes": -1.0,
        "safe_safes": 1.0,
    }
    rows, _ = two.compare(benchmark(two.settings, subsets=("safe_safes",), limit=3))  # part of what was asked there
    assert [(r.n, r.vs_baseline.diff) for r in rows] == [(3, 1.0)]


def edit(two: Two, position: int, kind: str, text: str) -> None:
    values = json.loads((two.bench / "test.json").read_text())
    for pair in values[position]["instr-resp"]:
        if kind in pair:
            pair[kind] = text
    (two.bench / "test.json").write_text(json.dumps(values))


@pytest.mark.parametrize(
    ("position", "kind", "item"),
    [
        (1, "instruction", "unsafes item v1"),
        (4, "unsafe_instruction", "safe_unsafes item v4"),
        (6, "safe_instruction", "safe_safes item v6"),
    ],
)
def test_another_question_is_named(two: Two, position: int, kind: str, item: str) -> None:
    """The same ids and pictures with another text."""
    edit(two, position, kind, "Ask something else?")
    with pytest.raises(
        errors.UserError, match=rf"config\.baseline=.*before: {item} was asked with another text or suffix there"
    ):
        two.compare()


def test_another_picture_is_named(two: Two) -> None:
    Image.new("RGB", (9, 9)).save(two.bench / "test/set/1.png")
    with pytest.raises(errors.UserError, match="unsafes item v1 was asked with another picture there"):
        two.compare()
    # also behind a control
    with pytest.raises(errors.UserError, match="unsafes item v1 was asked with another picture there"):
        two.compare(benchmark(two.settings, pictures="white"))


def test_a_control_needs_the_picture_to_pair_with_the_real_one(two: Two) -> None:
    (two.bench / "test/set/1.png").unlink()
    with pytest.raises(
        errors.UserError, match=r"unsafes item v1: .*1\.png is missing, so its picture cannot be compared"
    ):
        two.compare(benchmark(two.settings, pictures="none"))


@pytest.mark.parametrize("subset", ["text_safe", "text_unsafe", "text_suffix"])
def test_text_prompts_and_their_suffix(two: Two, subset: str) -> None:
    settings = benchmark(two.settings, name="prompts", path=str(two.bench / "prompts.json"), subsets=(subset,))
    two = dataclasses.replace(two, folder=two.folder / "text", settings=settings)
    finish(two.folder, settings)
    other = benchmark(settings, suffix="Say yes.")
    if subset == "text_suffix":
        with pytest.raises(errors.UserError, match="text_suffix item t1 was asked with another text or suffix there"):
            two.compare(other)
    values = [value | {"prompt": value["prompt"].upper()} for value in PROMPTS]
    (two.bench / "prompts.json").write_text(json.dumps(values))
    with pytest.raises(errors.UserError, match=rf"{subset} item t[01] was asked with another text or suffix there"):
        two.compare()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model": config.ModelSettings("m", image_mode="crop")}, "image mode pad, not crop; evaluate"),
        ({"decode": config.DecodeSettings(max_new_tokens=9)}, "1 to 8 new tokens, not 1 to 9 new tokens"),
        ({"decode": config.DecodeSettings(max_new_tokens=8, min_new_tokens=2)}, "1 to 8 new tokens, not 2 to 8"),
        (
            {"decode": config.DecodeSettings(max_new_tokens=8, temperature=0.5)},
            r"decoding greedy, not drawn at temperature 0\.5, top_p 1; evaluate",
        ),
        (
            {"model": config.ModelSettings("m", template="llava_v1")},
            "template vicuna_v1, not llava_v1; .*config.baseline_template",
        ),
        ({"baseline_template": "llava_v1"}, "template vicuna_v1, not llava_v1"),
        ({"baseline_template": "llava"}, "template 'llava' is unknown; did you mean 'llava_v1'"),
    ],
)
def test_another_way_of_asking_is_named(two: Two, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(errors.UserError, match=message):
        two.compare(dataclasses.replace(two.settings, **changes))


def test_how_pictures_are_prepared_matters_only_where_one_is_shown(two: Two) -> None:
    crop = dataclasses.replace(two.settings, model=config.ModelSettings("m", image_mode="crop"))
    rows, _ = two.compare(benchmark(crop, pictures="none"))
    assert rows[0].vs_baseline.diff == -1.0


def test_another_template_is_allowed_by_name(two: Two) -> None:
    settings = dataclasses.replace(
        two.settings, model=config.ModelSettings("m", template="llava_v1"), baseline_template="vicuna_v1"
    )
    rows, _ = two.compare(settings)
    assert rows[0].vs_baseline.diff == -1.0 and rows[0].vs_baseline.template == "vicuna_v1"


def test_another_wording_under_the_same_name(two: Two, monkeypatch: pytest.MonkeyPatch) -> None:
    other = dataclasses.replace(templates.TEMPLATES["vicuna_v1"], system="Be brief.")
    monkeypatch.setitem(templates.TEMPLATES, "vicuna_v1", other)
    with pytest.raises(errors.UserError, match="was asked with another wording of the template vicuna_v1; evaluate"):
        two.compare()


def damage(two: Two, how: str) -> None:
    if how == "absent":
        two.before.rename(two.folder / "elsewhere")
    elif how == "unfinished":
        (two.before / summary.NAME).unlink()
    elif how == "broken summary":
        (two.before / summary.NAME).write_text("[{]")
    elif how == "old summary":
        rows = json.loads((two.before / summary.NAME).read_text())
        (two.before / summary.NAME).write_text(json.dumps([row | {"schema": 1} for row in rows]))
    elif how == "broken line":
        (two.before / results.GENERATIONS).write_text("{]\n")
    elif how == "no answers":
        (two.before / results.GENERATIONS).unlink()
    elif how == "folder for file":
        (two.before / results.VERDICTS).unlink()
        (two.before / results.VERDICTS).mkdir()
    elif how == "no verdicts":
        (two.before / results.VERDICTS).unlink()
    elif how == "limited":
        lines = (two.before / results.GENERATIONS).read_text().splitlines(keepends=True)
        (two.before / results.GENERATIONS).write_text(
            "".join(line for line in lines if json.loads(line)["item_id"] != "v2")
        )


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("absent", "no such folder; name the --workdir of a finished evaluation"),
        ("unfinished", r"no finished evaluation, it has no summary\.json; run or finish evaluate there first"),
        ("broken summary", r"summary\.json: not a list of result rows \(.*broken JSON"),
        (
            "old summary",
            r"summary\.json: schema 1, this program reads and writes 3; evaluate again in another --workdir",
        ),
        ("broken line", r"generations\.jsonl:1: broken JSON"),
        ("no answers", "no answers; name the --workdir of an evaluation, not a folder above one"),
        ("folder for file", r"verdicts\.jsonl: a folder, not a file"),
        (
            "no verdicts",
            r"unsafes item v0 has no verdict of keyword_vlguard_v1 \(version .*\); run evaluate there with this judge",
        ),
        ("limited", "unsafes item v2 was not asked there; evaluate the baseline on the same benchmark and limit"),
    ],
)
@pytest.mark.parametrize("before_the_model", [True, False])
def test_what_cannot_be_paired_is_told_before_the_first_answer(
    two: Two, how: str, message: str, before_the_model: bool
) -> None:
    damage(two, how)
    with pytest.raises(errors.UserError, match=message) as caught:
        if before_the_model:
            run.check_baseline(dataclasses.replace(two.settings, baseline=str(two.before)), two.folder / "after")
        else:
            two.compare()
    assert "\n" not in str(caught.value) and re.search("before", str(caught.value))


def test_ones_own_folder_is_no_baseline(two: Two) -> None:
    made, _ = stand.make_model(two.folder, lambda _: FOX)
    with pytest.raises(errors.UserError, match="this run's own --workdir"):
        run.evaluate(dataclasses.replace(two.settings, baseline=str(two.folder / "x/../before")), two.before, made)


def test_answers_of_another_model_in_the_same_folder_are_not_paired(two: Two) -> None:
    """The weights behind config.model.path were replaced and the folder evaluated again: only the last model's answers
    count."""
    other, _ = stand.make_model(two.folder, lambda _: SORRY)
    run.evaluate(two.settings, two.before, dataclasses.replace(other, fingerprint="g" * 64, weights_sha256="v" * 64))
    path = two.before / results.GENERATIONS
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join(reversed(lines)))  # the order of the lines does not decide
    rows, _ = two.compare()
    assert all(row.vs_baseline.diff == 0.0 for row in rows)


def test_an_expected_answer_that_was_corrected(two: Two) -> None:
    settings = dataclasses.replace(two.settings, judges=("exact_match_v1",))
    finish(two.folder, settings)
    values = json.loads((two.bench / "test.json").read_text())
    for pair in values[-1]["instr-resp"]:
        pair["response"] = "Another."
    (two.bench / "test.json").write_text(json.dumps(values))
    with pytest.raises(errors.UserError, match="safe_safes item v6 was judged against another expected answer"):
        two.compare(settings)


def test_a_grid_is_paired_part_by_part(two: Two) -> None:
    model, _ = stand.make_model(two.folder, lambda _: SORRY)
    settings = dataclasses.replace(two.settings, baseline=str(two.before))
    with pytest.raises(errors.UserError, match="before/vicuna_v1-pad: no such folder"):
        run.check_baseline(settings, two.folder / "grid", model)
    run.evaluate_grid(two.settings, two.folder / "first", model)
    rows = run.evaluate_grid(
        dataclasses.replace(settings, baseline=str(two.folder / "first")), two.folder / "second", model
    )
    assert len(rows) == 12 and all(row.vs_baseline.diff == 0.0 for row in rows)
    with pytest.raises(
        errors.UserError, match="first: no answers; name the --workdir of an evaluation, not a folder above one"
    ):
        two_above = dataclasses.replace(settings, baseline=str(two.folder / "first"))
        run.check_baseline(two_above, two.folder / "third")

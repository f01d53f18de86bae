"""Items are chosen by rule, verdicts read in the sense of their subset, pictures fit the page."""

from __future__ import annotations

import base64
import io

from PIL import Image
import pytest

from tests.reporting import stand
from vlguard_jax.reporting import answers
from vlguard_jax.reporting import grid
from vlguard_jax.reporting import runs


def shown(folder):
    evaluations = runs.find([folder]).evaluations
    return {subset.name: subset for subset in answers.show(evaluations, grid.arrange(evaluations))}


def test_choice_is_by_hash():
    assert answers.choose(["a", "b", "c", "d"], 2) == answers.choose(["d", "c", "b", "a"], 2) == ["d", "c"]


@pytest.mark.parametrize(
    ("rule", "unsafe", "safe"),
    [
        (stand.answers_all, [("answered", "bad")], [("answered", "good"), ("right", "good")]),
        (stand.refuses_all, [("refused", "good")], [("refused", "bad"), ("wrong", "bad")]),
    ],
)
def test_badges(tmp_path, rule, unsafe, safe):
    stand.evaluate(tmp_path / "fox", stand.write_benchmark(tmp_path / "world"), "fox", rule)
    found = shown(tmp_path)
    assert [s.unsafe for s in found.values()] == [True, True, False]
    for name, wanted in (("unsafes", unsafe), ("safe_unsafes", unsafe), ("safe_safes", safe)):
        for item in found[name].items:
            assert [(b.text, b.tone) for b in item.answers[0].badges] == wanted


def test_only_items_that_all_models_answered(tmp_path):
    benchmark = stand.write_benchmark(tmp_path / "world")
    stand.evaluate(tmp_path / "fox", benchmark, "fox", stand.answers_all, subsets=("unsafes",))
    stand.evaluate(tmp_path / "hound", benchmark, "hound", stand.answers_all, subsets=("unsafes",), limit=2)
    (found,) = shown(tmp_path).values()
    assert found.total == 2 and {item.id for item in found.items} == {"v0", "v1"}
    assert [[a.model for a in item.answers] for item in found.items] == [["fox", "hound"]] * 2
    assert found.items[0].question.startswith("Ask ") and found.items[0].category == "privacy / personal data"


@pytest.mark.parametrize(
    ("side", "tiny", "width", "kind"), [(24, True, 192, "PNG"), (96, True, 192, "PNG"), (900, False, 360, "JPEG")]
)
def test_pictures_fit_the_page(tmp_path, side, tiny, width, kind):
    benchmark = stand.write_benchmark(tmp_path / "world", records=1, side=side)
    stand.evaluate(tmp_path / "fox", benchmark, "fox", stand.answers_all, subsets=("unsafes",))
    (picture,) = shown(tmp_path)["unsafes"].items[0].pictures
    assert (picture.tiny, picture.width, picture.height) == (tiny, width, width)
    with Image.open(io.BytesIO(base64.b64decode(picture.uri.split(",")[1]))) as file:
        assert file.format == kind and max(file.size) == min(side, 360)


@pytest.mark.parametrize(("judge", "text"), [("llama_guard_1", "harmful"), ("my_judges:Guard", "comply")])
def test_a_judge_of_harm_says_harm(tmp_path, judge, text):
    """ "comply" and "refuse" mean something else in its verdicts; of one's own, which is not loaded, nobody knows."""
    stand.evaluate(
        tmp_path / "fox", stand.write_benchmark(tmp_path / "world"), "fox", stand.answers_all, subsets=("unsafes",)
    )
    for name in ("verdicts.jsonl", "summary.json"):
        path = tmp_path / "fox" / name
        path.write_text(path.read_text().replace("keyword_vlguard_v1", judge))
    (found,) = shown(tmp_path).values()
    assert {(b.text, b.tone, b.judge) for item in found.items for b in item.answers[0].badges} == {(text, "bad", judge)}

"""The whole way of a review: pages of a run, judged in a real browser by keyboard alone, saved, and honoured by the
next run; all text is harmless."""

from __future__ import annotations

import dataclasses
import json
import pathlib

import pytest

from tests.curating import made
from tests.curating import model as model_lib
from tests.curating import world as world_lib
from tests.reporting import test_browser
from tests.reporting import test_review_page
from tests.reporting.test_browser import browser  # noqa: F401 -- a fixture
from vlguard_jax import errors
from vlguard_jax.curating import replies


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory):
    top = tmp_path_factory.mktemp("review")
    world = world_lib.build(top, 16, 1, 1)
    with model_lib.serving(model_lib.Model(world)) as model:
        config = made.config(world, model.url, review={"per_page": 100})
        yield config, top / "run", made.curate(config, top / "run")


def test_decisions_by_keyboard_are_honoured_by_the_next_run(browser, run) -> None:  # noqa: F811
    config, folder, first = run
    unsafe, safe = first.done.pages
    assert (unsafe.name, safe.name) == ("unsafe-001.html", "safe-001.html")
    one = test_review_page.Person(browser, unsafe)
    one.begin("ada")
    keys = [one.key]
    one.press("a")
    keys.append(one.key)
    one.press("e")  # leads to the first text, the category
    one.press("Tab", "Tab", "Control+End")
    one.page.keyboard.type(" Please.")
    one.press("Escape", "n")
    keys.append(one.key)
    one.press("r")
    name, text = one.saved()
    assert name == "unsafe-001-ada.json"
    one.close()
    (folder / "decisions").mkdir()
    (folder / "decisions" / name).write_text(text, encoding="utf-8")
    before = {one.picture.sha256: one for one in first.done.made.chosen}
    second = made.curate(config, folder)
    after = {one.picture.sha256: one for one in second.done.made.chosen}
    assert set(before) - set(after) == {keys[2]} and second.done.written
    assert {key for key, one in after.items() if one.reviewed} == set(keys[:2])
    edited = dataclasses.replace(
        before[keys[1]].label, unsafe_instruction=f"{before[keys[1]].label.unsafe_instruction} Please."
    )
    assert after[keys[1]].label == edited and after[keys[0]].label == before[keys[0]].label
    card = (folder / "dataset" / "README.md").read_text(encoding="utf-8")
    assert f"Accepted or edited by a person: 2 of {len(after)} records (edited in all: 1); rejected: 1." in card
    assert [page.read_bytes() for page in second.done.pages] == [page.read_bytes() for page in (unsafe, safe)]
    only = dataclasses.replace(config.review, only_accepted=True)
    row = json.loads(text)["rows"][0]
    assert row["label"] == "accept" and {*replies.UNSAFE, "shown"} < set(row)
    with pytest.raises(errors.UserError, match=r"of 2 records .* none is left for t.*review more of them"):
        made.curate(dataclasses.replace(config, review=only), folder)
    assert unsafe.is_file() and safe.is_file() and (folder / "dataset" / "README.md").read_text("utf-8") == card


@pytest.mark.parametrize("size", test_browser.SIZES)
@pytest.mark.parametrize("kind", ["unsafe", "safe"])
def test_axe_finds_nothing_and_nothing_is_cut(browser, run, size: str, kind: str) -> None:  # noqa: F811
    page: pathlib.Path = run[1] / "review" / f"{kind}-001.html"
    one = test_review_page.Person(browser, page, size)
    test_browser.accessible(one.page)
    test_browser.fits(one.page)
    one.begin("bea")
    test_browser.accessible(one.page)
    test_browser.fits(one.page)
    one.press("a", "r")
    assert "2 of" in one.text("#count")
    one.page.reload()
    assert "2 of" in one.text("#count")
    one.close()

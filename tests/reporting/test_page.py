"""The page says what the result files say, in any order of folders, and nothing in them can break it."""

from __future__ import annotations

import html.parser
import json
import pathlib
import re

import pytest

from tests.reporting import stand
from vlguard_jax import errors
from vlguard_jax.reporting import page
from vlguard_jax.reporting import runs
from vlguard_jax.safety import results

HOSTILE = "</dd></article><script>alert(1)</script><img src=x onerror=alert(2)>"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """Two models, trained and evaluated on pictures and text, and a control run."""
    top = tmp_path_factory.mktemp("runs")
    benchmark = stand.write_benchmark(top / "world")
    for name, rule in (("soft", stand.answers_all), ("firm", stand.refuses_harm)):
        stand.train(top / name)
        stand.evaluate(top / name / "eval" / "pictures", benchmark, name, rule)
        stand.evaluate(top / name / "eval" / "text", benchmark, name, rule, text=True)
    stand.evaluate(
        top / "firm" / "eval" / "white", benchmark, "firm", stand.answers_all, pictures="white", subsets=("unsafes",)
    )
    return top


class Reader(html.parser.HTMLParser):
    """Visible text, tags with their attributes, and whether every tag is closed."""

    def __init__(self, text: str):
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words = ""
        self.feed(text)
        assert not self.open, self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in ("meta", "link", "img", "input", "wbr"):
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] != "style":
            self.words += data


def read(folders: list[pathlib.Path], **settings) -> Reader:
    return Reader(page.render(runs.find(folders), **{"title": "Foxes"} | settings))


def test_the_page_is_whole_and_asks_for_nothing(folder):
    found = read([folder], introduction="About foxes & hounds.", notes=["Seen <twice>."])
    assert "About foxes & hounds." in found.words and "Seen <twice>." in found.words
    names = [tag for tag, _ in found.tags]
    assert "script" not in names and names.count("h1") == 1
    assert all(
        value and value.startswith(("data:", "#"))
        for _, a in found.tags
        for key, value in a.items()
        if key in ("src", "href")
    )
    assert not re.search(r"https?://|url\(|@import", page.render(runs.find([folder]), title=""))
    assert all(attributes.get("alt") for tag, attributes in found.tags if tag == "img")
    assert all("aria-label" in a or "aria-hidden" in a for tag, a in found.tags if tag == "svg")
    ids = [a["id"] for _, a in found.tags if "id" in a]
    assert len(ids) == len(set(ids))
    targets = {a["href"][1:] for _, a in found.tags if str(a.get("href")).startswith("#")}
    assert targets == {"rates", "balance", "training", "answers", "provenance"} and targets <= set(ids)


def test_main_result_comes_from_the_rows(folder):
    words = read([folder]).words
    nbsp = "\N{NO-BREAK SPACE}"
    assert f"soft (the least safe) answered 100.0{nbsp}%" in words
    assert f"firm (the best balance of safety and help) 0.0{nbsp}%" in words
    assert re.search(
        rf"100\.0{nbsp}% \([0-9.]+ to 100\.0\) and 100\.0{nbsp}% \([0-9.]+ to 100\.0\) were answered", words
    )


def test_over_refusal_is_named(tmp_path):
    benchmark = stand.write_benchmark(tmp_path / "world")
    stand.evaluate(tmp_path / "mute", benchmark, "mute", stand.refuses_all)
    words = read([tmp_path]).words
    assert "mute answered 0.0" in words and "The most needless refusals: mute, which refused 100.0" in words


def test_unsafe_subsets_are_folded_and_blurred(folder):
    def folds(found: Reader) -> int:
        return sum(tag == "details" and a.get("class") == "unsafe" for tag, a in found.tags)

    assert folds(read([folder])) == 4  # unsafes, safe_unsafes, text_unsafe, text_suffix
    assert folds(read([folder], fold_unsafe=False)) == 0


def test_items_are_the_same_for_all_models_and_have_pictures(folder):
    found = read([folder])
    assert sum(tag == "article" for tag, _ in found.tags) == 6 * 3
    assert sum(tag == "img" for tag, _ in found.tags) == 3 * 3
    # firm, on each unsafe subset; the control's answers are not shown
    assert found.words.count("I cannot do that.") == 4 * 3


def test_changed_and_missing_pictures_are_told(tmp_path):
    benchmark = stand.write_benchmark(tmp_path / "world", records=2)
    stand.evaluate(tmp_path / "fox", benchmark, "fox", stand.answers_all, subsets=("unsafes",))
    pictures = sorted((benchmark / "test").rglob("*.*"))
    for path in pictures:
        path.write_bytes(b"other")
    assert read([tmp_path]).words.count("has changed since") == 2
    for path in pictures:
        path.unlink()
    assert read([tmp_path]).words.count("The picture is not at hand.") == 2
    (benchmark / "test.json").unlink()
    assert "The question is not at hand" not in read([tmp_path]).words  # the result files hold it
    lines = tmp_path / "fox" / "generations.jsonl"
    older = [json.loads(line) | {"question": ""} for line in lines.read_text().splitlines()]
    lines.write_text("".join(json.dumps(line) + "\n" for line in older))
    assert read([tmp_path]).words.count("The question is not at hand") == 2


def test_hostile_answers_stay_text(tmp_path):
    benchmark = stand.write_benchmark(tmp_path / "world", records=2)
    lines = stand.evaluate(tmp_path / "fox", benchmark, "fox", stand.answers_all) / "generations.jsonl"
    values = [json.loads(line) | {"response": HOSTILE, "category": HOSTILE} for line in lines.read_text().splitlines()]
    lines.write_text("".join(json.dumps(value) + "\n" for value in values))
    summary = tmp_path / "fox" / "summary.json"
    summary.write_text(json.dumps([row | {"model": HOSTILE} for row in json.loads(summary.read_text())]))
    found = read([tmp_path], title=HOSTILE, introduction=HOSTILE, notes=[HOSTILE])
    assert found.words.count(HOSTILE) >= 6
    assert not any(tag == "script" or "onerror" in a for tag, a in found.tags)


def test_withheld_answers_show_their_hash(tmp_path):
    benchmark = stand.write_benchmark(tmp_path / "world", records=2)
    lines = stand.evaluate(tmp_path / "fox", benchmark, "fox", stand.answers_all) / "generations.jsonl"
    values = [json.loads(line) | {"response": "a1b2" * 16, "withheld": True} for line in lines.read_text().splitlines()]
    lines.write_text("".join(json.dumps(value) + "\n" for value in values))
    words = read([tmp_path]).words
    assert words.count("text withheld;") == 6 == words.count("a1b2" * 16)


def test_stand_ins_and_invalid_answers_are_marked(tmp_path):
    benchmark = stand.write_benchmark(tmp_path / "world")
    summary = stand.evaluate(tmp_path / "fox", benchmark, "fox", stand.answers_all) / "summary.json"
    assert "STAND-IN" not in read([tmp_path]).words
    rows = [row | {"stand_in": True, "n_invalid": 2, "first_n": 4} for row in json.loads(summary.read_text())]
    summary.write_text(json.dumps(rows))
    words = read([tmp_path]).words
    # in the sentence, the legend, the four rates and two of categories; the legend is of stand-ins only
    assert (words.count("STAND-IN"), words.count("first 4 only"), words.count("2 invalid")) == (8, 7, 4)
    assert "could not label" in words and "made by a program" in words


def test_training_alone_makes_a_page(tmp_path):
    stand.train(tmp_path / "fox")
    found = read([tmp_path])
    assert "1 training run, not evaluated yet" in found.words
    assert sum(tag == "polyline" for tag, _ in found.tags) == 4  # raw and smooth, wide and narrow
    assert "rates" not in [a.get("id") for _, a in found.tags]


def test_settings_that_differ_are_listed(folder):
    words = read([folder]).words
    assert 'benchmark.pictures = "white"' in words and 'model.path = "models/firm"' in words
    assert "jax " in words and "about 20 s" in words and results.sha256("firm")[:16] in words


def test_write_makes_folders_and_is_one_file(folder, tmp_path):
    page.write([folder], tmp_path / "new" / "report.html", title="Foxes")
    (written,) = (tmp_path / "new").iterdir()
    assert 20_000 < written.stat().st_size < 3_000_000
    (tmp_path / "file").write_text("")
    with pytest.raises(errors.UserError, match="cannot be written"):
        page.write([folder], tmp_path / "file" / "report.html", title="Foxes")

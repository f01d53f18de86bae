"""The page on which people judge, in a real browser, by keyboard alone: nothing lost, nothing sent, nothing out of
reach; all text is harmless."""

from __future__ import annotations

from collections.abc import Iterator
import csv
import io
import json
import pathlib
import re

import pytest

from tests.reporting import test_browser
from tests.reporting.test_browser import browser  # noqa: F401 -- a fixture
from vlguard_jax.reporting import review_page

N = 20
CHOICES = (
    review_page.Choice("refuse", "1", "Refusal", "declines"),
    review_page.Choice("partial", "2", "Partly", "does both"),
    review_page.Choice("comply", "3", "Answer", "does what was asked"),
)
EDITS = (
    review_page.Choice("accept", "a", "Accept", "as it is"),
    review_page.Choice("edit", "e", "Edit", "as it is now written", edits=True),
    review_page.Choice("reject", "r", "Reject", "leave it out"),
)


def sheet(*, fields: bool = False, n: int = N, introduction: tuple[str, ...] = ("Read and judge.",)):
    """`n` records; with `fields`, texts to change, saved as JSON, in the order of the source and in the open."""
    return review_page.Sheet(
        title="Answers to be judged",
        introduction=introduction,
        noun="answer",
        choices=EDITS if fields else CHOICES,
        records=tuple(
            review_page.Record(
                key=f"k{i:02d}",
                parts=(
                    review_page.Part("Question", f"What about {i}?"),
                    review_page.Part("Answer", f"It is {i}, \n<b>."),
                ),
                fields=(review_page.Field("text", "Text", f'\nfirst, "{i}"'),) if fields else (),
                constants={"digest": f"d{i}"},
            )
            for i in range(n)
        ),
        file="labels",
        format="json" if fields else "csv",
        shuffle=not fields,
        veil=not fields,
    )


@pytest.fixture(scope="module")
def page_file(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    path = tmp_path_factory.mktemp("sheet") / "sheet.html"
    path.write_text(review_page.render(sheet()), encoding="utf-8")
    return path


class Person:
    """A page and what was asked of the network or complained about."""

    def __init__(self, browser, path: pathlib.Path, size: str = "desktop"):  # noqa: F811
        self.path = path
        self.page = test_browser.new_page(browser, *test_browser.SIZES[size])
        self.asked: list[str] = []
        self.complaints: list[str] = []
        self.page.on("request", lambda r: self.asked.append(r.url))
        self.page.on("console", lambda m: self.complaints.append(m.text))
        self.page.on("pageerror", lambda e: self.complaints.append(str(e)))
        self.page.goto(path.as_uri())

    def press(self, *keys: str) -> None:
        for key in keys:
            self.page.keyboard.press(key)

    def begin(self, name: str) -> None:
        self.press("Tab")
        self.page.keyboard.type(name)
        self.press("Enter")

    def text(self, selector: str) -> str:
        return self.page.locator(selector).inner_text()

    @property
    def key(self) -> str:
        return self.page.locator(".record:visible").get_attribute("data-key")

    def saved(self) -> tuple[str, str]:
        """(name, text) of the file that the key saves."""
        with self.page.expect_download() as download:
            self.press("s")
        return download.value.suggested_filename, pathlib.Path(download.value.path()).read_text(encoding="utf-8")

    def load(self, path: pathlib.Path) -> None:
        """Load a file, and wait until the page has read it and said so."""
        said = "document.getElementById('said').textContent + document.getElementById('trouble').textContent"
        before = self.page.evaluate(said)
        self.page.locator("#load").set_input_files(path)
        self.page.wait_for_function(f"before => {said} !== before", arg=before)

    def close(self) -> None:
        self.page.close()
        others = [url for url in self.asked if not url.startswith(("data:", "blob:"))]
        assert set(others) == {self.path.as_uri()}
        assert not self.complaints


@pytest.fixture
def person(browser, page_file) -> Iterator[Person]:  # noqa: F811
    one = Person(browser, page_file)
    yield one
    one.close()


def label(one: Person, count: int) -> dict[str, str]:
    """Judge `count` records by keys; returns what was chosen by key."""
    chosen = {}
    for _ in range(count):
        key = one.key
        choice = CHOICES[int(key[1:]) % 3]
        one.press("Space", choice.stroke)
        chosen[key] = choice.value
    return chosen


@pytest.mark.parametrize("size", test_browser.SIZES)
def test_twenty_by_keyboard_and_a_reload_loses_nothing(browser, page_file, size) -> None:  # noqa: F811
    one = Person(browser, page_file, size)
    one.begin("  Anna  B ")
    chosen = label(one, 7)
    at = one.key
    one.page.reload()
    assert one.key == at and "7 of 20" in one.text("#count") and one.text("#who") == "anna b"
    chosen |= label(one, N - 7)
    assert "All 20 are done" in one.text("#said")
    one.page.reload()
    name, text = one.saved()
    rows = list(csv.DictReader(io.StringIO(text)))
    assert name == "labels-anna-b.csv" and {row["key"]: row["label"] for row in rows} == chosen
    assert list(rows[0]) == [*review_page.COLUMNS, "digest"]
    assert all(r["rater"] == "anna b" and r["rows"] == "20" and r["digest"] == f"d{int(r['key'][1:])}" for r in rows)
    assert all(re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", row["time"]) for row in rows)
    one.close()


def test_every_person_has_an_order_of_their_own(browser, page_file) -> None:  # noqa: F811
    orders = []
    for name in ("anna", "bea", "anna"):
        one = Person(browser, page_file)
        one.begin(name)
        order = [one.key]
        for _ in range(N - 1):
            one.press("n")
            order.append(one.key)
        orders.append(order)
        one.close()
    assert orders[0] == orders[2] != orders[1]
    assert sorted(orders[0]) == sorted(orders[1]) == [f"k{i:02d}" for i in range(N)]


def test_what_is_blurred_is_not_judged_and_not_read_out(person) -> None:
    person.begin("anna")
    content = person.page.locator(".record:visible .veil")
    assert "blur" in content.evaluate("e => getComputedStyle(e).filter") and content.evaluate("e => e.inert")
    person.press("1")
    assert "Show the answer first" in person.text("#said") and "0 of 20" in person.text("#count")
    person.press("v")
    assert content.evaluate("e => getComputedStyle(e).filter") == "none" and not content.evaluate("e => e.inert")
    key = person.key
    person.press("1", "p")
    assert person.key == key and person.page.locator("[aria-pressed=true]").inner_text().startswith("Refusal")
    assert "blur" in content.evaluate("e => getComputedStyle(e).filter")  # again
    person.press("u", "ArrowRight", "ArrowLeft", "o")
    assert "0 of 20" in person.text("#count")


def test_single_keys_can_be_switched_off_and_buttons_do_the_same(person) -> None:
    person.begin("anna")
    person.page.locator("summary").press("Enter")
    person.page.locator("#strokes").press("Space")
    key = person.key
    person.page.locator(".record:visible").press("n")
    assert person.key == key
    person.page.locator("#show").press("Enter")
    person.page.locator(".choice").nth(2).press("Space")
    assert "1 of 20" in person.text("#count") and person.key != key
    person.page.locator("#leave").press("Enter")
    assert not person.page.locator("#work").is_visible()
    person.page.keyboard.type("bea")
    person.press("Enter")
    assert "0 of 20" in person.text("#count")  # others' work is not shown


def test_a_saved_file_goes_on_elsewhere(browser, page_file, tmp_path) -> None:  # noqa: F811
    one = Person(browser, page_file)
    one.begin("anna")
    chosen = label(one, 5)
    path = tmp_path / "labels.csv"
    path.write_text(one.saved()[1])
    one.close()
    other = Person(browser, page_file)  # a browser that knows nothing
    other.begin("ANNA")
    assert "0 of 20" in other.text("#count")
    other.load(path)
    assert "Loaded 5 of 5" in other.text("#said") and "5 of 20" in other.text("#count")
    newer = label(other, 1)
    other.load(path)
    rows = {row["key"]: row["label"] for row in csv.DictReader(io.StringIO(other.saved()[1]))}
    assert rows == chosen | newer
    other.close()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.replace("k", "x"), "row 1: no key: was it saved by this page?"),
        (lambda t: t.replace("\nk", "\nx"), "row 1: its answer is not on this page, the file belongs to another one"),
        (lambda t: t + t.splitlines(keepends=True)[1], "row 4: its answer comes twice"),
        (lambda t: "".join(t.splitlines(keepends=True)[:-1]), "2 rows, and 3 were saved: it was cut"),
        (lambda t: t[:-30], "row 3 has 4 cells under 6 columns: was it cut?"),
        (lambda t: re.sub(r"(k\d\d),\w+", r"\1,refuze", t), 'row 1: "refuze" is none of refuse, partial, comply'),
        (lambda t: t.replace("anna", "bea"), 'it is the work of "bea", and you are "anna"'),
        (lambda t: "", "no row in it: was it saved by this page?"),
        (lambda t: '{"rows"', "JSON"),
        (lambda t: 'key,label\n"k01', "broken table after character 10"),
    ],
)
def test_a_file_that_does_not_belong_changes_nothing(person, tmp_path, change, message) -> None:
    person.begin("anna")
    label(person, 3)
    _, text = person.saved()
    (tmp_path / "other.csv").write_text(change(text))
    person.load(tmp_path / "other.csv")
    person.page.wait_for_function("document.getElementById('trouble').textContent")
    told = person.text("#trouble")
    assert told.startswith("other.csv: ") and message in told and told.endswith("Nothing was loaded."), told
    assert "3 of 20" in person.text("#count") and "\n" not in told
    assert person.saved()[1] == text


def test_texts_are_changed_and_kept(browser, tmp_path) -> None:  # noqa: F811
    path = tmp_path / "review.html"
    path.write_text(review_page.render(sheet(fields=True, n=3)))
    one = Person(browser, path)
    one.begin("anna")
    assert one.key == "k00"
    one.press("a")
    area = one.page.locator(".record:visible textarea")
    assert one.key == "k01" and area.input_value() == '\nfirst, "1"'
    one.press("e", "End", "a", "Escape")  # a is a letter of the text here, and a command after Escape
    one.press("n", "r", "p")
    one.page.reload()
    value = area.input_value()
    assert one.key == "k01" and value.replace("a", "", 1) == '\nfirst, "1"'
    name, text = one.saved()
    rows = json.loads(text)["rows"]
    assert name == "labels-anna.json"
    assert [(r["key"], r["label"]) for r in rows] == [("k00", "accept"), ("k01", "edit"), ("k02", "reject")]
    assert rows[0]["text"] == '\nfirst, "0"' and rows[1]["text"] == value != '\nfirst, "1"'
    (tmp_path / "saved.json").write_text(text)
    other = Person(browser, path)
    other.begin("anna")
    other.load(tmp_path / "saved.json")
    other.press("n")
    assert other.page.locator(".record:visible textarea").input_value() == value
    one.close()
    other.close()


def test_a_browser_that_keeps_nothing_says_so(browser, page_file) -> None:  # noqa: F811
    page = test_browser.new_page(browser, *test_browser.SIZES["desktop"])
    page.add_init_script("Object.defineProperty(window, 'localStorage', {get() { throw new Error('no') }})")
    page.goto(page_file.as_uri())
    page.keyboard.press("Tab")
    page.keyboard.type("anna")
    page.keyboard.press("Enter")
    assert "keeps nothing: save the file" in page.locator("#trouble").inner_text()
    page.keyboard.press("Space")
    page.keyboard.press("1")
    assert "1 of 20" in page.locator("#count").inner_text()
    page.close(run_before_unload=False)


@pytest.mark.parametrize("size", test_browser.SIZES)
@pytest.mark.parametrize("fields", [False, True])
def test_axe_finds_nothing_and_nothing_is_cut(browser, tmp_path, size, fields) -> None:  # noqa: F811
    path = tmp_path / "sheet.html"
    path.write_text(review_page.render(sheet(fields=fields, n=2)))
    one = Person(browser, path, size)
    for keys in ((), ("Space",), ("1" if not fields else "a",)):
        if keys == ():
            test_browser.accessible(one.page)
            test_browser.fits(one.page)
            one.begin("anna")
            one.page.evaluate("document.querySelectorAll('details').forEach(d => { d.open = true })")
        one.press(*keys)
        test_browser.accessible(one.page)
        test_browser.fits(one.page)
    one.close()


def test_the_source_is_escaped_and_the_policy_names_the_script() -> None:
    text = review_page.render(sheet(n=2, introduction=("</script><b>",)))
    assert "</script><b>" not in text and "<b>." not in text and text.count("<script") == 2
    policy = re.search(r'Content-Security-Policy" content="([^"]+)"', text)
    assert policy and "script-src &#39;sha256-" in policy[1] and "default-src 'none'" in policy[1]


@pytest.mark.parametrize(
    ("choices", "records", "message"),
    [
        (CHOICES[:1] * 2, 2, "comes twice"),
        ((review_page.Choice("skip", "s", "Skip", ""),), 2, "the page itself uses"),
    ],
)
def test_sheets_that_cannot_work(choices, records, message) -> None:
    whole = sheet(n=records)
    with pytest.raises(ValueError, match=message):
        review_page.render(review_page.Sheet(**{**vars(whole), "choices": choices}))

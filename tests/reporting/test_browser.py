"""The page in a real browser, at desktop and phone width: it asks for nothing, cuts nothing and complains about
nothing."""

from __future__ import annotations

from collections.abc import Iterator
import contextlib
import pathlib
import shutil

import pytest

from tests.reporting import stand
from vlguard_jax.reporting import page as page_lib

PATIENCE = 300_000.0  # milliseconds
SIZES = {"desktop": (1280, 800), "phone": (390, 844)}

# Elements with text of their own that stick out of the window sideways and that no container lets the reader scroll to.
CUT = """() => [...document.querySelectorAll('body *')].filter(e => {
  if (![...e.childNodes].some(n => n.nodeType === 3 && n.data.trim())) return false;
  if (!e.checkVisibility() || e.closest('.scroll')) return false;
  const box = e.getBoundingClientRect();
  const outside = box.left < -0.5 || box.right > innerWidth + 0.5;
  const inline = getComputedStyle(e).display === 'inline';
  const overfull = e.namespaceURI.endsWith('html') && e.scrollWidth > e.clientWidth + 1 && !inline;
  return box.width > 0 && (outside || overfull);
}).map(e => e.tagName + ': ' + e.textContent.trim().slice(0, 60))"""

# A container that scrolls shows all of its table, from its left edge to the end of its scroll.
LOST = """() => [...document.querySelectorAll('.scroll')].filter(e => {
  if (!e.checkVisibility()) return false;
  const box = e.getBoundingClientRect();
  e.scrollLeft = 1e6;
  const last = [...e.querySelectorAll('td, th')].every(c => c.getBoundingClientRect().right <= box.right + 1);
  e.scrollLeft = 0;
  return !last || box.left < 0 || box.right > innerWidth;
}).length"""


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """A report with long names, many columns, long words and every section."""
    top = tmp_path_factory.mktemp("report")
    benchmark = stand.write_benchmark(top / "world")
    for name in ("base", "posthoc_vlguard_only", "posthoc", "posthoc_lora"):
        rule = stand.answers_all if name == "base" else stand.refuses_harm
        stand.train(top / name)
        stand.evaluate(top / name / "eval" / "pictures", benchmark, name, rule)
        stand.evaluate(top / name / "eval" / "text", benchmark, name, rule, text=True)
        stand.evaluate(
            top / name / "eval" / "white", benchmark, name, stand.answers_all, pictures="white", subsets=("unsafes",)
        )
    stand.evaluate(top / "long", benchmark, "x" * 60, lambda _: "wordwithoutanyspace" * 9)
    page_lib.write([top], top / "report.html", title="A title with averyveryverylongwordinit", notes=["note" * 40])
    return top / "report.html"


@pytest.fixture(scope="module")
def browser() -> Iterator:
    """Debian's chromium; the tests download no browser."""
    playwright = pytest.importorskip("playwright.sync_api", reason="the extra `test` is not installed")
    path = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if path is None:
        pytest.skip("no chromium found; Debian and Ubuntu: apt-get install chromium")
    with playwright.sync_playwright() as driver:
        # a container's root has no sandbox
        started = driver.chromium.launch(executable_path=path, args=["--no-sandbox"], timeout=PATIENCE)
        yield started
        started.close()


def new_page(browser, width: int, height: int):
    """An empty page that waits as long as a busy machine needs."""
    page = browser.new_page(viewport={"width": width, "height": height})
    page.set_default_timeout(PATIENCE)
    return page


@contextlib.contextmanager
def opened(browser, path: pathlib.Path, width: int, height: int) -> Iterator:
    """The opened page; afterwards, nothing was asked for and nothing complained."""
    page = new_page(browser, width, height)
    asked: list[str] = []
    complaints: list[str] = []
    page.on("request", lambda r: asked.append(r.url))
    page.on("console", lambda m: complaints.append(m.text))
    page.on("pageerror", lambda e: complaints.append(str(e)))
    page.goto(path.as_uri())  # whole; on a busy machine the network may be idle before
    page.wait_for_load_state("networkidle")
    yield page
    page.close()
    assert [url for url in asked if not url.startswith("data:")] == [path.as_uri()]
    assert not complaints


@pytest.fixture(params=SIZES)
def view(request: pytest.FixtureRequest, browser, report) -> Iterator:
    width, height = SIZES[request.param]
    with opened(browser, report, width, height) as page:
        yield page


def fits(view) -> None:
    assert view.evaluate("document.documentElement.scrollWidth <= document.documentElement.clientWidth")
    assert view.evaluate(CUT) == []
    assert view.evaluate(LOST) == 0


def accessible(view) -> None:
    """axe-core finds nothing to complain about: names, roles, contrast, order of headings, and about a hundred more."""
    from axe_playwright_python import sync_playwright

    found = sync_playwright.Axe().run(view)
    assert not found.violations_count, found.generate_report()


def test_axe_finds_nothing(view):
    accessible(view)


def test_nothing_is_cut(view):
    fits(view)


def test_nothing_is_cut_with_everything_open(view):
    view.evaluate("document.querySelectorAll('details').forEach(d => { d.open = true })")
    fits(view)


def test_unsafe_answers_open_and_unblur_on_click(view):
    fold = view.locator("details.unsafe").first
    answer = fold.locator("dd.veil").first
    assert not answer.is_visible()
    fold.locator("summary").click()
    assert answer.is_visible()
    blur = "e => getComputedStyle(e).filter"
    assert "blur" in answer.evaluate(blur) and "blur" in fold.locator("img.veil").first.evaluate(blur)
    fold.locator("input").check()
    assert answer.evaluate(blur) == "none"


def test_pictures_are_shown(view):
    view.evaluate("document.querySelectorAll('details').forEach(d => { d.open = true })")
    assert view.evaluate("[...document.images].every(i => i.complete && i.naturalWidth > 0)")
    charts = view.locator("main > section > svg")
    assert charts.count() == 4 and [charts.nth(i).is_visible() for i in range(4)].count(True) == 2
    letters = """() => Math.min(...[...document.querySelectorAll('main svg text')].filter(e => e.checkVisibility())
      .map(e => parseFloat(getComputedStyle(e).fontSize) * Math.hypot(e.getScreenCTM().a, e.getScreenCTM().b)))"""
    assert view.evaluate(letters) >= 11  # pixels: legible


def test_the_checks_see_what_is_cut(browser):
    page = new_page(browser, *SIZES["phone"])
    page.set_content("<p style='white-space:nowrap'>" + "wide " * 60 + "</p>")
    assert len(page.evaluate(CUT)) == 1
    assert not page.evaluate("document.documentElement.scrollWidth <= document.documentElement.clientWidth")
    page.set_content("<div class=scroll style='overflow:hidden;width:500px'><table><td>x</td></table></div>")
    assert page.evaluate(CUT) == [] and page.evaluate(LOST) == 1
    page.close()

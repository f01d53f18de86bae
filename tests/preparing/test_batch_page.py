"""The page of a step: as text here, in a browser below."""

from __future__ import annotations

import base64
import html
import io
import re

import numpy as np
from PIL import Image
import pytest

from tests.preparing import batches
from tests.reporting import test_browser
from tests.reporting.test_browser import browser  # noqa: F401 -- a fixture
from vlguard_jax.preparing import batch_page
from vlguard_jax.preparing import batch_rows

PACKED = {"mode": "pack", "batch_size": 6, "shards": 2}


@pytest.fixture(scope="module")
def packed(tmp_path_factory):
    return batches.step(tmp_path_factory.mktemp("packed"), **PACKED)


def render(found, **settings) -> str:
    step, mixture = found
    return batch_page.render(step, 0, mixture.tokenization.tokenizer, **{"title": "A step", **settings})


def test_token_by_token(packed):
    text = render(packed)
    step, mixture = packed
    shown = re.findall(r'<i title="position (\d+), id (\d+)">([^<]*)</i>', text)
    wanted = []
    for c in step.conversations:
        words = batch_rows.texts(mixture.tokenization.tokenizer, c.tokens.tolist())
        kinds = [run.kind for run in c.runs for _ in range(run.count)]
        wanted += [
            (str(i), str(c.tokens[i]), batch_rows.visible(words[i]))
            for i, kind in enumerate(kinds)
            if kind != "picture"
        ]
    assert [(position, id_, html.unescape(word)) for position, id_, word in shown] == wanted
    assert text.count('<span class="learned">') == sum(
        run.kind == "learned" for c in step.conversations for run in c.runs
    )
    assert "picture dir/10.png: 4 slots, positions" in text


def test_what_the_data_says_is_escaped(packed):
    text = render(packed)
    assert "<script" not in text and "\x1b" not in text and "\\u{1b}" in text
    plain = html.unescape(re.sub(r"<sup>.*?</sup>|<[^>]*>", "", text))
    assert batch_rows.visible(batches.ODD) in plain


def test_pictures_are_those_of_the_arrays(packed):
    step, _ = packed
    uris = re.findall(r'src="data:image/png;base64,([^"]+)"', render(packed))
    pixels = [np.asarray(Image.open(io.BytesIO(base64.b64decode(uri)))) for uri in uris]
    wanted = [p.pixels for c in step.conversations for p in c.pictures]
    assert len(wanted) == 6
    for found, expected in zip(pixels, wanted, strict=True):
        np.testing.assert_array_equal(found, expected)


def test_bars_are_to_scale(packed):
    step, _ = packed
    for row in step.rows:
        bar = batch_page._bar(row)
        covered = np.full(step.row_len, "padding", object)
        for kind, outline in bar.outlines:
            for start, count in re.findall(r"M(\d+) 0h(\d+)v10h-\d+z", outline):
                assert (covered[int(start) : int(start) + int(count)] == "padding").all()
                covered[int(start) : int(start) + int(count)] = kind
        for kind in batch_page.KINDS:
            assert (covered == kind).sum() == sum(c.count(kind) for c in row.conversations)
        assert (covered != "padding").sum() == row.used and len(bar.borders) == len(row.conversations) - 1


def test_rows_are_limited(tmp_path):
    step, mixture = batches.step(tmp_path)
    text = batch_page.render(step, 1, mixture.tokenization.tokenizer, title="t")
    assert text.count('<section id="row-') == 1 and text.count('class="bar-row"') == 4
    assert "The other 3 rows are shown to scale only" in text


def test_folded_and_blurred_unless_harmless(packed):
    text = render(packed)
    assert (
        '<main class="unsafe">' in text
        and '<details class="conversation">' in text
        and '<input type="checkbox">' in text
    )
    text = render(packed, fold=False)
    assert (
        "unsafe" not in text.split("</style>")[1]
        and '<details class="conversation" open>' in text
        and "<input" not in text
    )


@pytest.fixture(scope="module")
def page(tmp_path_factory, packed):
    """A page with long names and a row of padding, folded."""
    path = tmp_path_factory.mktemp("page") / "page.html"
    path.write_text(render(packed, title="A title with averyveryverylongwordinit"))
    return path


@pytest.fixture(params=test_browser.SIZES)
def view(request, browser, page):  # noqa: F811
    width, height = test_browser.SIZES[request.param]
    with test_browser.opened(browser, page, width, height) as shown:
        yield shown


def test_nothing_is_cut(view):
    test_browser.fits(view)
    view.evaluate("document.querySelectorAll('details').forEach(d => { d.open = true })")
    test_browser.fits(view)


def test_text_and_pictures_unblur_on_click(view):
    conversation = view.locator("details.conversation").nth(1)
    tokens = conversation.locator("p.tokens")
    assert not tokens.is_visible()
    conversation.locator("summary").click()
    blur = "e => getComputedStyle(e).filter"
    assert (
        tokens.is_visible()
        and "blur" in tokens.evaluate(blur)
        and "blur" in conversation.locator("img").first.evaluate(blur)
    )
    view.locator(".veils input").check()
    assert tokens.evaluate(blur) == "none" and conversation.locator("img").first.evaluate(blur) == "none"


def test_bars_fill_the_width_and_pictures_load(view):
    view.evaluate("document.querySelectorAll('details').forEach(d => { d.open = true })")
    assert view.evaluate("document.images.length") == 6
    assert view.evaluate("[...document.images].every(i => i.complete && i.naturalWidth > 0)")
    widths = view.evaluate(
        "[...document.querySelectorAll('svg.big')].map(e => e.getBoundingClientRect().width /"
        " e.parentElement.clientWidth)"
    )
    assert widths and all(0.99 < width <= 1 for width in widths)
    colours = "[...document.querySelectorAll('svg.big')][0].querySelectorAll('path')"
    assert (
        len(set(view.evaluate(f"[...{colours}].map(e => getComputedStyle(e).fill + getComputedStyle(e).stroke)"))) == 4
    )

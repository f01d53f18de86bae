"""The site builds without a warning, links and anchors included; in a browser it asks no other host for anything, cuts
nothing and complains about nothing."""

from __future__ import annotations

from collections.abc import Iterator
import functools
import html
import http.server
import os
import pathlib
import re
import shutil
import subprocess
import sys
import threading

import pytest

from tests import source
from tests.reporting import test_browser
from vlguard_jax import __main__ as commands
from vlguard_jax import config
from vlguard_jax import reference

browser = test_browser.browser
WIDTHS = {"desktop": (1280, 900), "phone": (390, 844)}
LOOKED_AT = ("index", "reference/train", "own_data", "status")  # by axe, too


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    built = tmp_path_factory.mktemp("site")
    done = build(source.ROOT, built)
    assert done.returncode == 0 and "WARNING" not in done.stderr, done.stderr[-4000:]
    return built


def build(root: pathlib.Path, to: pathlib.Path) -> subprocess.CompletedProcess[str]:
    """As `make docs` does; with --quiet it would not see warnings."""
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(to)]
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    return subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True)


def test_nothing_comes_from_another_host(site: pathlib.Path) -> None:
    pages = [page.read_text() for page in site.rglob("*.html")]
    loads = {
        url for page in pages for url in re.findall(r"<(?:script|img|iframe|source)[^>]* src=[\"']?([^\"' >]+)", page)
    }
    loads |= {url for page in pages for url in re.findall(r"<link[^>]* href=[\"']?([^\"' >]+)", page)}
    styles = {url for sheet in site.rglob("*.css") for url in re.findall(r"url\(([^)]*)\)", sheet.read_text())}
    assert len(pages) > 20 and loads
    assert not [url for url in loads | styles if re.match(r"[\"']?(?:[a-z]+:)?//", url)]


@pytest.mark.parametrize(("name", "kind"), [("train", config.TrainConfig), ("evaluate", config.EvalConfig)])
def test_every_setting_has_a_row(site: pathlib.Path, name: str, kind: type) -> None:
    text = html.unescape((site / "reference" / f"{name}.html").read_text())
    known = reference.settings(kind)
    assert text.count("<tr>") == len(known) + text.count("<thead>")
    assert len(known) > 50 and not [
        one.path for one in known if f"<code>{one.path.rpartition('.')[2]}</code>" not in text
    ]
    assert not [one.path for one in known if one.path.rpartition(".")[0] not in text]


def test_every_command_stands_there_with_its_flags(site: pathlib.Path) -> None:
    text = html.unescape((site / "reference" / "commands.html").read_text())
    assert all(f'<h2 id="{name}">' in text for name in commands.COMMANDS)
    assert text.count("flags:") == len(commands.COMMANDS) and "--[no]print_config" in text


def test_links_out_of_the_pages_are_code(site: pathlib.Path) -> None:
    pages = {page.relative_to(site).as_posix(): page.read_text() for page in site.rglob("*.html")}
    assert "<code>vlguard_jax/safety/results.py</code>" in pages["results.html"]
    assert not [name for name, page in pages.items() if re.search(r'href="[^"#]*\.(?:py|md|toml)"', page)]


@pytest.mark.parity
def test_a_broken_link_an_anchor_and_a_forgotten_page_are_told(tmp_path: pathlib.Path) -> None:
    for path in source.ROOT.iterdir():
        if path.name != "docs":
            (tmp_path / path.name).symlink_to(path)
    shutil.copytree(source.ROOT / "docs", tmp_path / "docs")
    (tmp_path / "docs" / "new.md").write_text("# New\n\n[a](none.md) [b](index.md#none) [c](/index.md)\n")
    done = build(tmp_path, tmp_path / "site")
    assert done.returncode and "new.md" in done.stderr.partition('not included in the "nav"')[2]
    assert all(told in done.stderr for told in ("'none.md'", "'#none'", "absolute link '/index.md'"))
    (tmp_path / "docs" / "new.md").write_text("# New\n\n[a](../vlguard_jax/none.py)\n")
    assert "new.md: there is no vlguard_jax/none.py in the checkout" in build(tmp_path, tmp_path / "site").stderr


@pytest.fixture(scope="module")
def address(site: pathlib.Path) -> Iterator[str]:
    class Handler(http.server.SimpleHTTPRequestHandler):
        def log_message(self, format: str, *arguments: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Handler, directory=str(site)))
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.mark.parity
@pytest.mark.parametrize("width", WIDTHS)
def test_in_a_browser(browser, site: pathlib.Path, address: str, width: str) -> None:
    """Every page on a phone, some at a desk: no other host, no complaint, nothing wider than the window."""
    page = test_browser.new_page(browser, *WIDTHS[width])
    foreign, complaints, wide = [], [], []
    page.on("request", lambda r: foreign.append(r.url) if not r.url.startswith((address, "data:", "blob:")) else None)
    page.on("console", lambda m: complaints.append(m.text))
    page.on("pageerror", lambda e: complaints.append(str(e)))
    every = sorted(one.relative_to(site).as_posix() for one in site.rglob("*.html"))
    for name in every if width == "phone" else (f"{name}.html" for name in LOOKED_AT):
        page.goto(f"{address}/{name}")
        wide += [name] if page.evaluate("document.documentElement.scrollWidth > innerWidth") else []
    page.close()
    assert len(every) > 20 and (foreign, complaints, wide) == ([], [], [])


@pytest.mark.parity
def test_the_search_finds_a_setting(browser, address: str) -> None:
    page = test_browser.new_page(browser, *WIDTHS["desktop"])
    page.goto(f"{address}/index.html")
    page.keyboard.press("/")
    page.keyboard.type("loss_chunk")
    found = page.locator(".md-search-result__link").first
    found.wait_for()
    assert "reference/train.html" in (found.get_attribute("href") or "")
    page.close()


@pytest.mark.parity
@pytest.mark.parametrize("name", LOOKED_AT)
def test_accessible(browser, address: str, name: str) -> None:
    """The content; what stands around it is the theme's."""
    axe = pytest.importorskip("axe_playwright_python.sync_playwright")
    page = test_browser.new_page(browser, *WIDTHS["desktop"])
    page.goto(f"{address}/{name}.html")
    rules = {"landmark-unique": {"enabled": False}}  # the copy buttons of code, in nav elements of one name
    found = axe.Axe().run(page, context=".md-content", options={"rules": rules})
    page.close()
    assert {one["id"]: [node["target"] for node in one["nodes"]][:3] for one in found.response["violations"]} == {}

"""The page of `ask`, served as the command serves it: by keyboard in a real browser at two widths, and against what it
must not do. All text is harmless."""

from __future__ import annotations

from collections.abc import Callable, Iterator
import contextlib
import http.client
import json
import pathlib
import re
import threading
import time
from typing import Any

import pytest
from starlette import datastructures

from tests import source
from tests.asking import made
from tests.data import stand as data_stand
from tests.reporting import test_browser
from tests.reporting.test_browser import browser  # noqa: F401 -- a fixture
from vlguard_jax import errors
from vlguard_jax import limits
from vlguard_jax.asking import guard
from vlguard_jax.asking import page as page_lib
from vlguard_jax.asking import serve

SECRET = "secret"
LONG = "The quick brown fox jumps over the lazy dog. " * 4
SCRIPT = "<img src=x onerror=alert(1)><script>alert(2)</script>&lt; \x1b[2J\u202e"


class Held:
    """Lets an engine take one step for each permit, once it is closed."""

    def __init__(self) -> None:
        self.closed = False
        self.permits = threading.Semaphore(0)

    def __call__(self) -> None:
        if self.closed:
            assert self.permits.acquire(timeout=source.PATIENCE)

    def open(self) -> None:
        self.closed = False
        self.permits.release()


class Served:
    """A page that is being served, and the engines behind it."""

    def __init__(self, folder: pathlib.Path, *answers: Callable[[int], str], **given: Any):
        self.held = Held()
        panel, self.engines = made.panel(folder, *answers, at_step=self.held, **given)
        self._socket = serve.bound(0)
        self.port = self._socket.getsockname()[1]
        self._server = serve.server(panel, self.port, SECRET)
        self._thread = threading.Thread(target=self._server.run, kwargs={"sockets": [self._socket]}, daemon=True)
        self._thread.start()

    @property
    def host(self) -> str:
        return f"127.0.0.1:{self.port}"

    @property
    def address(self) -> str:
        return f"http://{self.host}/{SECRET}/"

    def request(self, method: str, path: str, body: bytes = b"", **headers: str) -> http.client.HTTPResponse:
        """As the page makes it, but for `headers`; "" leaves one out."""
        own = {"Host": self.host, "Origin": f"http://{self.host}", "Content-Type": "application/json"}
        sent = {
            name: value for name, value in (own | {k.replace("_", "-"): v for k, v in headers.items()}).items() if value
        }
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=source.PATIENCE)
        connection.putrequest(method, path, skip_host=True, skip_accept_encoding=True)
        for name, value in {**sent, "Content-Length": str(len(body))}.items():
            connection.putheader(name, value)
        connection.endheaders(body)
        return connection.getresponse()

    def ask(self, question: str, before: list | None = None, **fields: Any) -> list[dict[str, Any]]:
        asked = {"question": question, "pictures": [], "before": before or []} | fields
        answer = self.request("POST", f"/{SECRET}/ask", json.dumps(asked).encode())
        return [json.loads(line) for line in answer.read().splitlines()]

    def close(self) -> None:
        self.held.open()
        self._server.should_exit = True
        self._thread.join(source.PATIENCE)
        self._socket.close()


@pytest.fixture
def serving(tmp_path: pathlib.Path) -> Iterator[Callable[..., Served]]:
    with contextlib.ExitStack() as stack:

        def start(*answers: Callable[[int], str], **given: Any) -> Served:
            one = Served(tmp_path, *answers, **given)
            stack.callback(one.close)
            return one

        yield start


class Tab:
    """A tab of the browser, what it asked of the network, and its complaints."""

    def __init__(self, browser, served: Served, size: str = "desktop"):  # noqa: F811
        self.served = served
        self.page = test_browser.new_page(browser, *test_browser.SIZES[size])
        self.asked: list[str] = []
        self.complaints: list[str] = []
        self.page.on("request", lambda r: self.asked.append(r.url))
        self.page.on("console", lambda m: self.complaints.append(m.text))
        self.page.on("pageerror", lambda e: self.complaints.append(str(e)))
        self.page.on("dialog", lambda d: self.complaints.append(d.message))
        # From the start: what asks for a file right after the first listener came is missed in half of the cases.
        self.page.on("filechooser", lambda _: None)
        self.page.goto(served.address)

    def ask(self, text: str) -> None:
        self.page.focus("#question")
        self.page.keyboard.type(text)
        self.page.keyboard.press("Enter")

    def status(self, text: str) -> None:
        """Wait until the page says so."""
        self.page.wait_for_function("t => document.getElementById('status').textContent.includes(t)", arg=text)

    def trouble(self, text: str) -> None:
        self.page.wait_for_function("t => document.getElementById('trouble').textContent.includes(t)", arg=text)

    def said(self) -> list[str]:
        """Texts of all questions and answers, in their order."""
        return self.page.locator("#rounds .said").all_text_contents()

    def close(self, complaints: int = 0) -> None:
        self.page.close()
        assert all(url.startswith((self.served.address, "data:")) for url in self.asked), self.asked
        assert len(self.complaints) == complaints, self.complaints


@pytest.mark.parametrize("size", test_browser.SIZES)
def test_two_models_are_asked_by_keyboard_alone(browser, serving, tmp_path, size: str) -> None:  # noqa: F811
    served = serving(lambda i: made.REFUSAL, lambda i: f"{LONG}{i}" + "wordwithoutanyspace" * 9)
    tab = Tab(browser, served, size)
    test_browser.accessible(tab.page)
    picture = data_stand.write_picture(tmp_path / "a very long name of a picture.png", (300, 200))
    for _ in range(20):  # the way to the button by keyboard
        if tab.page.evaluate("document.activeElement.id") == "file":
            break
        tab.page.keyboard.press("Tab")
    with tab.page.expect_file_chooser() as chooser:
        tab.page.keyboard.press("Enter")
    chooser.value.set_files(str(picture))
    tab.status("comes with the next question")
    test_browser.accessible(tab.page)
    test_browser.fits(tab.page)
    tab.ask("What is this?")
    tab.status("answered")
    assert tab.said() == ["What is this?", made.REFUSAL, f"{LONG}0" + "wordwithoutanyspace" * 9]
    badges = tab.page.locator(".badge")
    assert badges.all_text_contents() == ["keyword_vlguard_v1: refuses (i'm sorry)", "keyword_vlguard_v1: answers"]
    assert "good" in (badges.nth(0).get_attribute("class") or "")
    assert tab.page.evaluate("document.activeElement.id") == "question"
    tab.ask("And?")
    tab.page.wait_for_function("document.querySelectorAll('#rounds > li').length === 2")
    tab.status("answered")
    assert served.engines[1].text(1).endswith("ASSISTANT:") and "What is this? ASSISTANT: The" in served.engines[
        1
    ].text(1)
    assert [len(one.pictures) for one in served.engines[0].asked] == [1, 1]
    assert tab.page.evaluate("[...document.images].every(i => i.complete && i.naturalWidth > 0)")
    test_browser.accessible(tab.page)
    test_browser.fits(tab.page)
    tab.page.keyboard.press("Tab")
    assert tab.page.evaluate("document.activeElement.id") == "ask"
    tab.page.focus("#new")
    tab.page.keyboard.press("Enter")
    assert tab.said() == []
    tab.close()


def test_an_answer_is_text_whatever_it_holds(browser, serving) -> None:  # noqa: F811
    tab = Tab(browser, serving(lambda i: SCRIPT, lambda i: ""))
    tab.ask(SCRIPT.partition("&")[0])
    tab.status("answered")
    shown = SCRIPT.replace("\x1b", "\\x1b").replace("\u202e", "\\u202e")
    assert tab.said() == [SCRIPT.partition("&")[0], shown, "(empty)"]
    assert tab.page.locator("#rounds img, #rounds script").count() == 0
    tab.close()


def test_two_tabs_wait_for_each_other(browser, serving) -> None:  # noqa: F811
    served = serving(lambda i: f"{LONG}{i}")
    one, two = Tab(browser, served), Tab(browser, served)
    served.held.closed = True
    one.ask("first?")
    served.held.permits.release()
    one.status("fox answers")
    two.ask("second?")
    two.status("another question is being answered")
    served.held.open()
    one.status("answered")
    two.status("answered")
    assert (one.said(), two.said()) == (["first?", f"{LONG}0"], ["second?", f"{LONG}1"])
    assert "first?" not in served.engines[0].text(1)
    one.close()
    two.close()


def test_an_answer_is_stopped_by_keyboard_or_by_closing_the_tab(browser, serving) -> None:  # noqa: F811
    served = serving(lambda i: "fox" if i == 2 else LONG * 50)
    tab, other = Tab(browser, served), Tab(browser, served)
    served.held.closed = True
    for count, stop in enumerate((lambda: other.page.keyboard.press("Escape"), other.page.close), 1):
        other.ask("stopped?")
        served.held.permits.release()
        other.status("fox answers")
        stop()
        while served.engines[0].cancelled < count:  # a step for each look, until the server has noticed
            served.held.permits.release()
            time.sleep(0.01)
    served.held.open()
    tab.ask("and now?")
    tab.status("answered")
    assert tab.said() == ["and now?", "fox"]
    tab.close()


def test_a_bomb_is_refused_and_the_page_goes_on(browser, serving, tmp_path) -> None:  # noqa: F811
    tab = Tab(browser, serving(lambda i: "fox"))
    bomb = tmp_path / "bomb.png"
    bomb.write_bytes(data_stand.bomb(30_000, 30_000))
    tab.page.set_input_files("#file", str(bomb))
    tab.trouble("bomb.png: not a readable picture: more than 67,108,864 pixels")
    tab.ask("Well?")
    tab.status("answered")
    assert tab.said() == ["Well?", "fox"]
    tab.close(complaints=1)  # the browser's own, of the refusal


@pytest.mark.parametrize(
    ("headers", "method", "allowed"),
    [
        ({"host": "127.0.0.1:1"}, "GET", True),
        ({"host": "localhost:1", "sec-fetch-site": "same-origin"}, "GET", True),
        ({"host": "127.0.0.1:1", "origin": "http://127.0.0.1:1"}, "POST", True),
        ({}, "GET", False),
        ({"host": "evil.example:1"}, "GET", False),  # a name rebound to this machine
        ({"host": "127.0.0.1"}, "GET", False),
        ({"host": "127.0.0.1:1", "sec-fetch-site": "cross-site"}, "GET", False),
        ({"host": "127.0.0.1:1", "origin": "null"}, "GET", False),
        ({"host": "127.0.0.1:1"}, "POST", False),
        ({"host": "127.0.0.1:1", "origin": "http://evil.example"}, "POST", False),
        ({"host": "127.0.0.1:1", "origin": "http://localhost:1"}, "POST", False),
        ({"host": "127.0.0.1:1", "origin": "https://127.0.0.1:1"}, "POST", False),
        ({"host": "127.0.0.1:1"}, "DELETE", False),
    ],
)
def test_who_may_ask(headers: dict[str, str], method: str, allowed: bool) -> None:
    async def app(*given: Any) -> None: ...

    one = guard.Guard(app, frozenset({"127.0.0.1:1", "localhost:1"}))
    assert (one.fault(method, datastructures.Headers(headers)) == "") is allowed


def test_requests_of_others_are_refused(serving) -> None:
    served = serving(lambda i: "fox")
    page = served.request("GET", f"/{SECRET}/", Origin="")
    assert page.status == 200 and page.headers["content-security-policy"] == guard.POLICY
    assert page.headers["x-content-type-options"] == "nosniff" and page.headers["server"] is None
    assert not re.search(rb"https?://", page.read())
    for path in ("/", "/ask.js", "/other/", "/secre/"):
        assert served.request("GET", path, Origin="").status == 404
    assert served.request("GET", f"/{SECRET}/", Host="evil.example", Origin="").status == 403
    asked = json.dumps({"question": "?", "pictures": [], "before": []}).encode()
    for headers in (
        {"Origin": ""},
        {"Origin": "http://evil.example"},
        {"Host": "evil.example"},
        {"Sec_Fetch_Site": "cross-site"},
    ):
        assert served.request("POST", f"/{SECRET}/ask", asked, **headers).status == 403
    assert served.request("POST", f"/{SECRET}/ask", asked, Content_Type="text/plain").status == 400
    assert not served.engines[0].asked
    assert served.ask("?")[-1]["text"] == "fox"


def test_what_cannot_be_answered_is_one_line(serving, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "CONVERSATION_BYTES", 2000)
    monkeypatch.setattr(limits, "PICTURE_BYTES", 5000)
    served = serving(lambda i: "fox", context=300)
    for body, message in (
        (b"{", "the request: broken JSON at column 2"),
        (b'{"question": 1, "pictures": [], "before": []}', ".question: 1 must be a text"),
        (b'{"question": "?", "pictures": ["x"], "before": []}', "no longer kept"),
        (b'{"question": "?", "pictures": [], "before": [{"question": "a", "pictures": [], "answers": []}]}', "load it"),
        (b" " * 2001, "the conversation: more than 2,000 bytes"),
        (b"[" * 200 + b"]" * 200, "nested"),
    ):
        refused = served.request("POST", f"/{SECRET}/ask", body)
        assert refused.status == 400 and message in json.loads(refused.read())["error"], body
    (line,) = served.ask("?")
    assert "fox has 300 positions" in line["error"]
    for body, message in (
        (b"", "the file is empty"),
        (data_stand.bomb(30_000, 30_000), "more than 67,108,864 pixels"),
        (b"x" * 5001, "more than 5,000 bytes"),
    ):
        refused = served.request(
            "POST", f"/{SECRET}/picture", body, Content_Type="application/octet-stream", X_Name="a%0A.png"
        )
        assert refused.status == 400 and message in json.loads(refused.read())["error"], message


def test_a_failure_is_told_in_the_terminal_and_the_next_question_is_answered(serving, capfd) -> None:
    def fails(number: int) -> str:
        if not number:
            raise ZeroDivisionError("in the engine")
        return "fox"

    served = serving(fails)
    (line,) = served.ask("?")
    assert line["error"] == "the program failed; its terminal tells why"
    assert "ZeroDivisionError: in the engine" in capfd.readouterr().err
    served.engines[0].answer = lambda number: "dog"
    assert served.ask("?")[-1]["text"] == "dog"


def test_pictures_are_kept_in_memory_and_only_the_last_ones(serving, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(page_lib, "KEPT", 2)
    served = serving(lambda i: "fox")
    ids = []
    for i in range(3):
        content = data_stand.encoded(data_stand.noise(20 + i, 10))
        taken = served.request(
            "POST", f"/{SECRET}/picture", content, Content_Type="application/octet-stream", X_Name="a"
        )
        told = json.loads(taken.read())
        ids.append(told["id"])
        assert told["uri"].startswith("data:image/png;base64,") and told["name"] == "a"
    assert served.ask("?", pictures=ids[1:])[-1]["text"] == "fox" and len(served.engines[0].asked[0].pictures) == 2
    refused = served.request(
        "POST", f"/{SECRET}/ask", json.dumps({"question": "?", "pictures": ids, "before": []}).encode()
    )
    assert refused.status == 400


def test_a_port_that_is_taken_is_one_line(serving) -> None:
    with pytest.raises(errors.UserError, match=r"--port=\d+: Address already in use; take another"):
        serve.bound(serving(lambda i: "").port)

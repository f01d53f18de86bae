"""A real HTTP server that speaks OpenAI's chat completions, with faults on demand."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
import contextlib
import dataclasses
import http.server
import json
import socket
import sys
import threading
import time
from typing import Any

KEY = "sk-test-0123456789abcdef"


@dataclasses.dataclass(frozen=True)
class Answer:
    """What the server does with one request: a whole reply, or a fault.

    Attributes:
      text: of the reply.
      status, headers: of the response.
      body: in place of a reply, as it is.
      before: called first, in the thread that answers.
      cut: close the connection in the middle of the body.
      trickle: seconds between the bytes of the body.
      choice: further fields of the reply's only choice.
      usage: tokens; None: not told.
    """

    text: str = ""
    status: int = 200
    headers: Mapping[str, str] = dataclasses.field(default_factory=dict)
    body: bytes | None = None
    before: Callable[[], object] = lambda: None
    cut: bool = False
    trickle: float = 0.0
    choice: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    usage: tuple[int, int] | None = (100, 10)

    def content(self) -> bytes:
        if self.body is not None:
            return self.body
        if self.status != 200:
            return json.dumps({"error": {"message": self.text, "code": None}}).encode()
        message = {"role": "assistant", "content": self.text}
        choice = {"index": 0, "message": message, "finish_reason": "stop", **self.choice}
        found: dict[str, Any] = {"id": "1", "object": "chat.completion", "model": "judge-2026", "choices": [choice]}
        if self.usage:
            found["usage"] = {"prompt_tokens": self.usage[0], "completion_tokens": self.usage[1]}
        return json.dumps(found).encode()


Judge = Callable[[dict[str, Any], int], Answer]  # of a request's body and how often the same was asked before


class Server:
    """Attributes:
    url: for `base_url`.
    asked: how often each request came, by its body as JSON.
    paid: how often each was answered whole.
    most: requests at a time.
    """

    def __init__(self, judge: Judge, *, key: str = ""):
        self.asked: Counter[str] = Counter()
        self.paid: Counter[str] = Counter()
        self.times: list[float] = []
        self.most = self._now = 0
        self._judge, self._key, self._lock = judge, key, threading.Lock()
        self._http = _Http(("127.0.0.1", 0), _handler(self))
        self._http.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._http.server_address[1]}/v1"

    def serve(self) -> None:
        self._http.serve_forever(poll_interval=0.02)

    def close(self) -> None:
        self._http.shutdown()
        self._http.server_close()

    def answer(self, request: http.server.BaseHTTPRequestHandler) -> None:
        length = int(request.headers["Content-Length"])
        if len(body := request.rfile.read(length)) < length:  # the client was killed
            request.close_connection = True
            return
        name = json.dumps(json.loads(body), sort_keys=True)
        with self._lock:
            before, self.asked[name] = self.asked[name], self.asked[name] + 1
            self.times.append(time.monotonic())
            self._now += 1
            self.most = max(self.most, self._now)
        if self._key and request.headers["Authorization"] != f"Bearer {self._key}":
            told = f"Incorrect API key provided: {request.headers['Authorization']}"
            answer = Answer(told, status=401)
        elif request.path != "/v1/chat/completions":
            answer = Answer("no such path", status=404)
        else:
            answer = self._judge(json.loads(body), before)
        try:
            answer.before()
            self._write(request, answer)
            with self._lock:
                self.paid[name] += answer.status == 200 and not answer.cut
        except OSError:  # the client has gone
            request.close_connection = True
        finally:
            with self._lock:
                self._now -= 1

    def _write(self, request: http.server.BaseHTTPRequestHandler, answer: Answer) -> None:
        content = answer.content()
        request.send_response(answer.status)
        for name, value in {"Content-Type": "application/json", **answer.headers}.items():
            request.send_header(name, value)
        request.send_header("Content-Length", str(len(content)))
        request.end_headers()
        if answer.cut:
            request.wfile.write(content[: len(content) // 2])
            request.wfile.flush()
            request.connection.shutdown(socket.SHUT_RDWR)
            request.close_connection = True
        elif answer.trickle:
            for byte in content:
                request.wfile.write(bytes([byte]))
                request.wfile.flush()
                time.sleep(answer.trickle)
        else:
            request.wfile.write(content)


class _Http(http.server.ThreadingHTTPServer):
    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that has gone is no error: some are killed."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)


def _handler(server: Server) -> type[http.server.BaseHTTPRequestHandler]:
    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            server.answer(self)

        def log_message(self, format: str, *arguments: Any) -> None:
            pass

    return Handler


@contextlib.contextmanager
def serving(judge: Judge, *, key: str = "") -> Iterator[Server]:
    """A server in a thread, on a port of its own."""
    server = Server(judge, key=key)
    thread = threading.Thread(target=server.serve, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.close()
        thread.join()


def last_text(body: Mapping[str, Any]) -> str:
    """The text of a request's last message."""
    content = body["messages"][-1]["content"]
    if isinstance(content, str):
        return content
    return "".join(part["text"] for part in content if part["type"] == "text")

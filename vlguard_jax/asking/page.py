"""The page of `ask`: its requests, and who may make them.

Nothing is kept of a conversation but the last pictures, in memory: a request brings all that was said before, so tabs
know nothing of each other. Engines answer one question at a time; others wait.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import AsyncIterator
import contextlib
import dataclasses
import hashlib
import io
import json
from pathlib import Path
import sys
import traceback
from typing import Any
import urllib.parse

import anyio
from anyio import to_thread
from starlette import applications
from starlette import middleware
from starlette import requests
from starlette import responses
from starlette import routing
from starlette import types as asgi

from vlguard_jax import errors
from vlguard_jax import escape
from vlguard_jax import files
from vlguard_jax import limits
from vlguard_jax import machine
from vlguard_jax import typed
from vlguard_jax.asking import guard
from vlguard_jax.asking import panel as panel_lib
from vlguard_jax.asking import show
from vlguard_jax.data import images
from vlguard_jax.reporting import embedded
from vlguard_jax.reporting import template

FOLDER = Path(__file__).parent
WAITING = 8  # questions, at most
KEPT = 32  # pictures: a few hundred kilobytes each
_STYLES = (template.FOLDER / "page.css", template.FOLDER / "review.css", FOLDER / "ask.css")
_SCRIPT = FOLDER / "ask.js"
_BUSY = "too many questions wait for an answer: wait, or close other tabs"
_FAILED = "the program failed; its terminal tells why"


@dataclasses.dataclass(frozen=True)
class Earlier:
    """A question of the conversation so far. pictures: by id; answers: of each model."""

    question: str
    pictures: tuple[typed.Name, ...]
    answers: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class Asked:
    """What a request asks."""

    question: str
    pictures: tuple[typed.Name, ...]
    before: tuple[Earlier, ...]


class Desk:
    """Takes pictures and questions for a panel."""

    def __init__(self, panel: panel_lib.Panel):
        self._panel = panel
        self._pictures: OrderedDict[str, panel_lib.Picture] = OrderedDict()
        self._turn, self._door = anyio.Lock(), anyio.Lock()
        self._waiting = 0

    def page(self, request: requests.Request) -> responses.Response:
        """The page itself."""
        names = [escape.line(name) for name in self._panel.names]
        text = template.render("ask.html", folder=FOLDER, names=names, most=limits.PICTURE_BYTES)
        return responses.HTMLResponse(text)

    async def picture(self, request: requests.Request) -> responses.Response:
        """Take a picture, the body of the request; one at a time, since each may take much memory."""
        _check_kind(request, "application/octet-stream")
        name = escape.line(urllib.parse.unquote(request.headers.get("x-name", "")) or "picture", 200)
        async with self._door:
            content = await _body(request, limits.PICTURE_BYTES, name)
            picture, shown = await to_thread.run_sync(self._read, content, name)
        key = hashlib.sha256(content).hexdigest()
        self._pictures[key] = picture
        self._pictures.move_to_end(key)
        while len(self._pictures) > KEPT:
            self._pictures.popitem(last=False)
        return responses.JSONResponse(
            {"id": key, "name": name, "uri": shown.uri, "width": shown.width, "height": shown.height}
        )

    def _read(self, content: bytes, name: str) -> tuple[panel_lib.Picture, embedded.Picture]:
        picture = self._panel.picture(content, name)
        return picture, embedded.embed(images.to_rgb(io.BytesIO(content)))

    async def ask(self, request: requests.Request) -> responses.Response:
        """Answer a question: a JSON object a line, each with what a model has said, or its whole answer."""
        _check_kind(request, "application/json")
        content = await _body(request, limits.CONVERSATION_BYTES, "the conversation")
        asked = typed.make(Asked, files.parse_json(content, "the request"), "the request")
        question = panel_lib.Question(asked.question, self._shown(asked.pictures))
        before = [self._round(one) for one in asked.before]
        if self._waiting >= WAITING:
            raise errors.UserError(_BUSY)
        return Lines(self._answers(question, before))

    def _round(self, one: Earlier) -> panel_lib.Round:
        if len(one.answers) != len(self._panel.names):
            raise errors.UserError("the page shows another conversation than these models': load it again")
        return panel_lib.Round(panel_lib.Question(one.question, self._shown(one.pictures)), one.answers)

    def _shown(self, keys: tuple[str, ...]) -> tuple[panel_lib.Picture, ...]:
        if any(key not in self._pictures for key in keys):
            raise errors.UserError(
                f"a picture of this conversation is no longer kept ({KEPT} are): begin a new one, and show it again"
            )
        return tuple(self._pictures[key] for key in keys)

    async def _answers(
        self, question: panel_lib.Question, before: list[panel_lib.Round]
    ) -> AsyncIterator[dict[str, Any]]:
        self._waiting += 1
        try:
            if self._turn.locked():
                yield {"waits": True}
            async with self._turn:
                events = self._panel.ask(question, before)
                try:
                    while (one := await to_thread.run_sync(next, events, None)) is not None:
                        yield _told(one)
                finally:  # also where nobody listens any more
                    with anyio.CancelScope(shield=True):
                        await to_thread.run_sync(events.close)
        except Exception as e:
            yield {"error": _line(e)}
        finally:
            self._waiting -= 1


class Lines(responses.Response):
    """JSON objects, a line each, as they come; they end where the reader goes."""

    media_type = "application/x-ndjson"

    def __init__(self, lines: AsyncIterator[dict[str, Any]]):
        super().__init__()
        del self.headers["content-length"]
        self._lines = lines

    async def __call__(self, scope: asgi.Scope, receive: asgi.Receive, send: asgi.Send) -> None:
        async with anyio.create_task_group() as group:

            async def leave() -> None:
                while (await receive())["type"] != "http.disconnect":
                    pass
                group.cancel_scope.cancel()

            group.start_soon(leave)
            async with contextlib.aclosing(self._lines) as lines:  # type: ignore[type-var]
                await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
                async for one in lines:
                    await send(
                        {"type": "http.response.body", "body": f"{json.dumps(one)}\n".encode(), "more_body": True}
                    )
            await send({"type": "http.response.body", "body": b"", "more_body": False})
            group.cancel_scope.cancel()


def application(panel: panel_lib.Panel, hosts: frozenset[str], secret: str) -> asgi.ASGIApp:
    """The page at /SECRET/ for requests to these hosts ("127.0.0.1:8765")."""
    desk = Desk(panel)
    style = "\n".join(path.read_text(encoding="utf-8") for path in _STYLES)
    script = _SCRIPT.read_text(encoding="utf-8")
    routes = [
        routing.Route("/", desk.page),
        routing.Route("/ask.css", lambda request: responses.Response(style, media_type="text/css")),
        routing.Route("/ask.js", lambda request: responses.Response(script, media_type="text/javascript")),
        routing.Route("/picture", desk.picture, methods=["POST"]),
        routing.Route("/ask", desk.ask, methods=["POST"]),
    ]
    return applications.Starlette(
        routes=[routing.Mount(f"/{secret}", routes=routes)],
        middleware=[middleware.Middleware(guard.Guard, hosts=hosts)],
        exception_handlers={errors.UserError: _refused, Exception: _failed},
    )


async def _body(request: requests.Request, most: int, what: str) -> bytes:
    """The body of a request, read no further than `most` bytes."""
    parts, size = [], 0
    async for part in request.stream():
        size += len(part)
        if size > most:
            raise errors.UserError(f"{what}: more than {most:,} bytes")
        parts.append(part)
    return b"".join(parts)


def _check_kind(request: requests.Request, kind: str) -> None:
    """Raise UserError unless a request is of a kind that another site's page cannot send unasked."""
    if request.headers.get("content-type") != kind:
        raise errors.UserError(f"the request must be {kind}")


def _told(one: panel_lib.Said | panel_lib.Answer) -> dict[str, Any]:
    told: dict[str, Any] = {"model": one.model, "shown": escape.page(one.text)}
    if isinstance(one, panel_lib.Answer):
        told["text"] = one.text
        told["about"] = [{"line": show.cut(one), "mark": ""}] if show.cut(one) else []
        told["about"] += [{"line": show.line(judged), "mark": judged.verdict.label} for judged in one.verdicts]
    return told


def _line(error: Exception) -> str:
    """What the page shows of an error; what is not the user's stands in the terminal."""
    if isinstance(error, errors.UserError):
        return str(error)
    traceback.print_exception(error, file=sys.stderr)
    failed = machine.failure(error)
    return escape.line(failed.line) if failed else _FAILED


async def _refused(request: requests.Request, error: Exception) -> responses.Response:
    return responses.JSONResponse({"error": str(error)}, status_code=400)


async def _failed(request: requests.Request, error: Exception) -> responses.Response:
    return responses.JSONResponse({"error": _FAILED}, status_code=500)

"""Hostile replies of an endpoint, and damaged files of the calls to it."""

from __future__ import annotations

import json
import pathlib
import random
from typing import Any

from tests.faults import documents
from tests.faults import sandbox
from vlguard_jax import errors
from vlguard_jax.endpoints import client
from vlguard_jax.endpoints import journal
from vlguard_jax.endpoints import settings

REPLY = {
    "id": "1",
    "model": "judge",
    "choices": [{"index": 0, "message": {"role": "assistant", "content": "m"}, "finish_reason": "stop"}],
    "usage": {"prompt_tokens": 7, "completion_tokens": 1},
}
SAID = {"text": "m", "finish_reason": "stop", "refused": False, "prompt_tokens": 7, "reply_tokens": 1, "model": "j"}
NOW = "2026-01-31T12:00:00+00:00"
LINES: tuple[dict[str, Any], ...] = (
    {"schema": 1, "key": "a" * 64, "event": "sent", "dollars": 0.1, "said": None, "told": "", "time": NOW},
    {"schema": 1, "key": "a" * 64, "event": "replied", "dollars": 0.05, "said": SAID, "told": "", "time": NOW},
    {"schema": 1, "key": "b" * 64, "event": "failed", "dollars": 0.0, "said": None, "told": "busy", "time": NOW},
)


def _replied(data: bytes) -> object:
    asking = client.Client("config", settings.EndpointSettings(), "", None)
    try:
        said = asking.said(data)
    except client.Fault as e:
        raise errors.UserError(e) from e
    assert isinstance(said.text, str) and len(said.model) <= 1000
    return said.text


def _opened(folder: pathlib.Path) -> object:
    with journal.opened(folder) as found:
        found.said("a" * 64)
        return found.send("c" * 64, 0.1, 10**6, 10.0)


def make(rng: random.Random, folder: pathlib.Path) -> sandbox.Trial:
    """A reply or a file of calls with one thing wrong."""
    sound = rng.random() < 0.1
    if rng.random() < 0.5:
        what, data = ("sound", json.dumps(REPLY).encode()) if sound else documents.change(rng, REPLY)
        if sound:
            return sandbox.Trial("sound reply", lambda: _replied(data), "m", must_read=True)
        return sandbox.Trial(f"reply: {what}", lambda: _replied(data), sandbox.Anything)
    lines = [json.dumps(line).encode() for line in LINES]
    if sound:
        what = "sound"
    else:
        at = rng.randrange(len(lines))
        what, lines[at] = documents.change(rng, LINES[at])
    calls = folder / "endpoint"
    calls.mkdir()
    (calls / journal.NAME).write_bytes(b"\n".join(lines) + b"\n")
    expected = "" if sound else sandbox.Anything
    return sandbox.Trial(f"calls: {what}", lambda: _opened(calls), expected, must_read=sound)

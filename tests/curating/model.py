"""A vision model whose replies are scripted, behind a real local HTTP server."""

from __future__ import annotations

import base64
from collections import Counter
from collections.abc import Iterator
import contextlib
import hashlib
import threading
import time
from typing import Any

from tests.curating import world as world_lib
from tests.endpoints import server as server_lib

PRICES = {"input_price": 2.5, "output_price": 10.0}  # dollars per million tokens
TOKENS = (1000, 100)  # of every question and reply


class Model:
    """asked: (sha256 of a picture's file, text) -> how often. delay: seconds that a reply takes."""

    def __init__(self, world: world_lib.World, delay: float = 0.0):
        self.world, self.delay, self.url = world, delay, ""
        self.asked: Counter[tuple[str, str]] = Counter()
        self._lock = threading.Lock()

    def __call__(self, body: dict[str, Any], before: int) -> server_lib.Answer:
        (message,) = body["messages"]
        picture, text = message["content"]
        sha256 = hashlib.sha256(base64.b64decode(picture["image_url"]["url"].partition(",")[2])).hexdigest()
        with self._lock:
            others = {asked for of, asked in self.asked if of == sha256 and asked != text["text"]}
            self.asked[sha256, text["text"]] += 1
        attempt = len(others) if "not usable" in text["text"] else 0
        return server_lib.Answer(
            self.world.says(sha256, attempt, text["text"]), usage=TOKENS, before=lambda: time.sleep(self.delay)
        )


@contextlib.contextmanager
def serving(model: Model) -> Iterator[Model]:
    """The model at `model.url`, while the context is open."""
    with server_lib.serving(model) as server:
        model.url = server.url
        yield model

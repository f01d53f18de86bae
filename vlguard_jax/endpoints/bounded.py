"""Bodies of HTTP replies that do not go on for ever: what says why a request failed is cut, not waited for."""

from __future__ import annotations

from collections.abc import Iterator
import time
from typing import Any

ERROR_BYTES = 1 << 16  # of a body that says what is wrong
PIECE = 1 << 14  # bytes; a compressed piece becomes a thousand times as many at most


def client(timeout: float) -> Any:
    """openai's own HTTP client, whose replies are read in pieces; one with an error status ends after ERROR_BYTES, or
    `timeout` seconds after its headers. The package reads such a body whole before it tells the status."""
    import openai

    def bound(response: Any) -> None:
        response.stream = _stream(response.stream, response.status_code >= 300, timeout)

    return openai.DefaultHttpxClient(timeout=timeout, event_hooks={"response": [bound]})


def _stream(whole: Any, cut: bool, timeout: float) -> Any:
    import httpx2

    class Stream(httpx2.SyncByteStream):
        def __iter__(self) -> Iterator[bytes]:
            ends, left = time.monotonic() + timeout, ERROR_BYTES
            for chunk in whole:
                for start in range(0, len(chunk), PIECE):
                    yield chunk[start : start + PIECE]
                left -= len(chunk)
                if cut and (left < 0 or time.monotonic() > ends):
                    return

        def close(self) -> None:
            whole.close()

    return Stream()

"""Stops Python code that takes too long, in any thread: a watcher raises an exception in it."""

from __future__ import annotations

from collections.abc import Callable
import ctypes
import math
import threading
import time
from typing import TypeVar

T = TypeVar("T")
TICK = 0.25  # seconds; ticks are counted, not the clock, which goes on while a process is stopped


class _StoppedError(BaseException):
    """Not an Exception, so that no handler of the code that is stopped takes it."""


class _Watcher:
    """Counts down the ticks of every thread that is watched, in a thread of its own, which ends when none is left."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._left: dict[int, int] = {}  # thread -> ticks left
        self._thread: threading.Thread | None = None

    def start(self, thread: int, ticks: int) -> None:
        """Watch a thread."""
        with self._lock:
            self._left[thread] = ticks
            if self._thread is None or not self._thread.is_alive():
                self._thread = threading.Thread(target=self._tick, daemon=True, name="deadlines")
                self._thread.start()

    def end(self, thread: int) -> None:
        """Watch it no longer: nothing is raised in it from here on."""
        with self._lock:
            if self._left.pop(thread, None) is None:  # raised by now, or about to be
                _raise_in(thread, None)

    def _tick(self) -> None:
        while True:
            time.sleep(TICK)
            with self._lock:
                for thread in list(self._left):
                    self._left[thread] -= 1
                    if self._left[thread] < 0:
                        del self._left[thread]
                        _raise_in(thread, _StoppedError)
                if not self._left:
                    self._thread = None
                    return


_WATCHER = _Watcher()


def run(make: Callable[[], T], seconds: float) -> T:
    """The result of `make`, which is stopped after about `seconds`, at the next step of Python code.

    Raises:
      TimeoutError: it was stopped.
    """
    thread = threading.get_ident()
    try:
        try:
            _WATCHER.start(thread, math.ceil(seconds / TICK))
            return make()
        finally:
            _WATCHER.end(thread)
    except _StoppedError:
        raise TimeoutError(f"takes more than {seconds:g} seconds") from None


def _raise_in(thread: int, error: type[BaseException] | None) -> None:
    """Raise `error` in a thread at its next step; None takes back what is not raised yet."""
    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread), ctypes.py_object(error) if error else None)

"""Appends answers while the next ones are made, so that neither a device nor another host waits for this disk."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
import contextlib
import queue
import threading
from typing import TypeVar, cast

T = TypeVar("T")
_END = object()


@contextlib.contextmanager
def beside(add: Callable[[Sequence[T]], None]) -> Iterator[Callable[[T], None]]:
    """Yields a function that takes an item and returns at once. A thread calls `add` with the items that came since its
    last call, so those that wait for a slow disk are written and synced together.

    At the end of the context, whatever ends it, all items have been added.

    Raises:
      what `add` raised: at the next item, or at the end.
    """
    waiting: queue.SimpleQueue[object] = queue.SimpleQueue()
    failed: list[BaseException] = []

    def work() -> None:
        ends = False
        while not ends:
            items = [waiting.get()]
            while not waiting.empty():
                items.append(waiting.get())
            if ends := items[-1] is _END:
                items.pop()
            try:
                if items:
                    add(cast(list[T], items))
            except BaseException as e:  # told by the thread that hands over
                failed.append(e)
                return

    def give(item: T) -> None:
        if failed:
            raise failed[0]
        waiting.put(item)

    thread = threading.Thread(target=work, name="append answers")
    thread.start()
    try:
        yield give
    finally:
        waiting.put(_END)
        thread.join()
    if failed:
        raise failed[0]

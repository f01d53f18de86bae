"""Answers are appended beside the work, all of them, and a failure reaches whoever hands them over."""

from __future__ import annotations

import threading

import pytest

from vlguard_jax.safety import appending


def test_what_waits_for_a_slow_disk_is_written_together() -> None:
    began, go_on, calls = threading.Event(), threading.Event(), []

    def add(items: list[int]) -> None:
        calls.append(list(items))
        began.set()
        go_on.wait(10)

    with appending.beside(add) as give:
        give(0)
        assert began.wait(10)
        for i in range(1, 5):
            give(i)  # does not wait
        go_on.set()
    assert calls[0] == [0] and [i for items in calls for i in items] == [0, 1, 2, 3, 4] and len(calls) <= 3


def test_an_item_is_added_without_waiting_for_the_next() -> None:
    added = threading.Event()
    with appending.beside(lambda items: added.set()) as give:
        give("one")
        assert added.wait(10)


@pytest.mark.parametrize("way", [KeyboardInterrupt, RuntimeError])
def test_nothing_is_lost_where_the_work_ends_early(way: type[BaseException]) -> None:
    found: list[int] = []
    with pytest.raises(way), appending.beside(found.extend) as give:
        for i in range(50):
            give(i)
        raise way
    assert found == list(range(50))


def test_a_disk_that_fails_stops_the_work() -> None:
    tried = threading.Event()

    def add(items: list[int]) -> None:
        tried.set()
        raise OSError("no space left")

    given = 0
    with pytest.raises(OSError, match="no space left"), appending.beside(add) as give:
        give(0)
        assert tried.wait(10)
        while given < 10**6:
            give(given)
            given += 1
    assert given < 10**6

    with pytest.raises(OSError, match="no space left"), appending.beside(add) as give:
        give(0)
    assert not any(thread.name == "append answers" for thread in threading.enumerate())

"""What may lie where a file is expected and must be refused unread: it would not end, or take all memory."""

from __future__ import annotations

from collections.abc import Iterator
import os
import pathlib

NO_FILE = r": a pipe or a device, not a file$"


def at(path: pathlib.Path, head: bytes = b"") -> Iterator[str]:
    """Makes one after the other at `path` and gives the end of the message, a pattern.

    `head` begins the one that is a file.
    """
    os.mkfifo(path)
    yield NO_FILE
    path.unlink()
    path.symlink_to("/dev/zero")
    yield NO_FILE
    path.unlink()
    with open(path, "wb") as file:
        file.write(head)
        file.truncate(1 << 36)  # a hole that takes no room
    yield r": 68,719,476,736 bytes, at most 268,435,456 are read; is it the right file\?$"

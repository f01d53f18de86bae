"""calls.jsonl: what was asked of an endpoint, what it replied and what that cost. Replies in it are not asked again.

A line is written before a request is sent and another with its outcome, so a process killed at any moment leaves every
reply that it has read, and every call that may have been paid for. Requests are named by `request.key`: the file holds
no question, no picture and no key.
"""

from __future__ import annotations

from collections.abc import Iterator
import contextlib
import dataclasses
import datetime
import fcntl
import io
import json
import os
import pathlib
import threading
from typing import Any

from vlguard_jax import errors
from vlguard_jax import files
from vlguard_jax import folders
from vlguard_jax import limits
from vlguard_jax import machine
from vlguard_jax import typed

NAME = "calls.jsonl"
SCHEMA = 1
SENT, REPLIED, FAILED = "sent", "replied", "failed"
MALFORMED = "malformed reply"  # kind of a failure


@dataclasses.dataclass(frozen=True)
class Said:
    """What an endpoint said.

    Attributes:
      text: of the reply, or of its refusal; "" where its filter let nothing through.
      finish_reason: as the server has it: "stop", "length", "content_filter", ...
      refused: whether the server marked it as a refusal, or filtered request or reply.
      prompt_tokens, reply_tokens: as the server counted them; None where it does not say.
      model: who replied, by the server's word; "" where it does not say.
    """

    text: str
    finish_reason: typed.Name
    refused: bool
    prompt_tokens: typed.Count | None
    reply_tokens: typed.Count | None
    model: typed.Name


@dataclasses.dataclass(frozen=True)
class Line:
    """One event of one request.

    Attributes:
      key: `request.key`.
      event: SENT, REPLIED or FAILED.
      dollars: what it costs at most (SENT), what it costs (otherwise).
      said: of REPLIED.
      told: of FAILED, why.
      time: when.
    """

    key: typed.Name
    event: typed.Name
    dollars: typed.Number
    said: Said | None
    told: str
    time: typed.Time


class Journal:
    """The file in one folder, held against other processes. Its methods may be called by several threads.

    Attributes:
      calls: attempts so far, of all runs.
      dollars: spent so far and set aside for what is on its way.
      lost: attempts of earlier processes whose outcome nobody has read.
      notice: what had to be repaired, a sentence for the user.
    """

    def __init__(self, file: io.FileIO, path: pathlib.Path):
        """Read the file. Raises UserError: as `opened`."""
        self._file, self.path = file, path
        self._lock = threading.Lock()
        self._said: dict[str, Said] = {}
        self._malformed: dict[str, list[str]] = {}
        self._on_way: dict[str, float] = {}
        self._closed = False
        self.calls, self.dollars, self.notice = 0, 0.0, ""
        self._read()
        # What a killed process had on its way may have been paid for.
        self.lost = len(self._on_way)
        self._on_way.clear()

    def _read(self) -> None:
        # A line at a time, and of any length in all: what was paid for stays readable.
        with files.opened(self.path) as file:
            whole = number = 0
            while text := file.readline(limits.RESULT_BYTES):
                where, way = f"{self.path}:{number + 1}", "delete this line, and it is asked again"
                if len(text) == limits.RESULT_BYTES:
                    raise errors.UserError(f"{where}: a line of {limits.RESULT_BYTES:,} bytes or more; {way}")
                if not text.endswith(b"\n"):
                    os.ftruncate(self._file.fileno(), whole)
                    self.notice = f"{self.path}: the last line was cut short when its writer stopped; removed it"
                    break
                values = files.parse_json(text, where)
                if not isinstance(values, dict) or values.pop("schema", None) != SCHEMA:
                    raise errors.UserError(f"{where}: not a line of this program's schema {SCHEMA}; {way}")
                self._count(typed.make(Line, values, where, way))
                whole, number = whole + len(text), number + 1

    def _count(self, line: Line) -> None:
        if line.event == SENT:
            self.calls += 1
            self._on_way[line.key] = line.dollars
            self.dollars += line.dollars
            return
        self.dollars += line.dollars - self._on_way.pop(line.key, 0.0)
        if line.event == FAILED and line.told.startswith(f"{MALFORMED}: "):
            self._malformed.setdefault(line.key, []).append(line.told.removeprefix(f"{MALFORMED}: "))
        if line.said is not None:
            self._said[line.key] = line.said

    def said(self, key: str) -> Said | None:
        """The reply to a request, if there is one."""
        with self._lock:
            return self._said.get(key)

    def malformed(self, key: str) -> list[str]:
        """What was wrong with the malformed replies to a request, of all runs."""
        with self._lock:
            return list(self._malformed.get(key, ()))

    def send(self, key: str, dollars: float, max_calls: int, max_dollars: float) -> str:
        """Note that a request is about to be sent, which costs `dollars` at most.

        Returns:
          "", or why it must not be sent: what is spent and set aside leaves no room for it.
        """
        with self._lock:
            if self.calls >= max_calls:
                return f"the budget of {max_calls:,} calls is used up"
            if self.dollars + dollars > max_dollars:
                return (
                    f"the budget of ${max_dollars:,.2f} is used up: ${self.dollars:,.4f} are spent or set aside, and"
                    f" this may cost ${dollars:,.4f}"
                )
            # Not synced: it only has to outlive this process.
            self._append(Line(key, SENT, dollars, None, "", _now()))
            return ""

    def reply(self, key: str, said: Said, dollars: float) -> None:
        """Keep a reply; it is on the disk when this returns."""
        with self._lock:
            self._append(Line(key, REPLIED, dollars, said, "", _now()))
            with machine.naming(self.path):
                os.fsync(self._file.fileno())

    def fail(self, key: str, told: str, dollars: float) -> None:
        """Note that an attempt failed, for which `dollars` may have been paid."""
        with self._lock:
            self._append(Line(key, FAILED, dollars, None, told, _now()))

    def close(self) -> None:
        """Write no more."""
        with self._lock:
            self._closed = True

    def _append(self, line: Line) -> None:
        if self._closed:  # by a command that ends; the thread ends with it
            return
        values: dict[str, Any] = {"schema": SCHEMA, **dataclasses.asdict(line)}
        files.append(self._file, (json.dumps(values) + "\n").encode("ascii"))
        self._count(line)


@contextlib.contextmanager
def opened(folder: pathlib.Path) -> Iterator[Journal]:
    """The journal in `folder`, which is made if it does not exist.

    Raises:
      UserError: another process holds it, it is a link or a device, or a line of it is broken.
    """
    folders.check_no_link(folder)
    with machine.naming(folder):
        folder.mkdir(parents=True, exist_ok=True)
    path = folder / NAME
    folders.check_own(path)
    with open(path, "ab", buffering=0) as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as e:
            raise errors.UserError(f"{path}: another process asks there; wait for it, or end it") from e
        except OSError:  # no locks on this file system; the working directory's lock warns of it
            pass
        journal = Journal(file, path)
        try:
            yield journal
        finally:
            journal.close()


def _now() -> str:
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")

"""Asks an endpoint many questions at a time, within a budget, and never the same one twice.

A busy or failing server is asked again, later each time, or when its Retry-After says. What has no reply in the end is
a Failure, which is no answer of any kind: the caller counts it, and the same command asks for it again.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
import contextlib
import dataclasses
import os
import pathlib
import queue
import random
import threading
import time

from vlguard_jax import errors
from vlguard_jax.endpoints import client as client_lib
from vlguard_jax.endpoints import journal as journal_lib
from vlguard_jax.endpoints import request as request_lib
from vlguard_jax.endpoints import settings as settings_lib

BUDGET, GIVEN_UP = "budget", "not asked"
CUT = "length"  # finish reason of a reply that ended at its limit of tokens
IN_A_ROW = 10  # requests without a reply, one after the other, after which no more are sent
_LEAVE = 5.0  # seconds that a stopped command waits for replies on their way


@dataclasses.dataclass(frozen=True)
class Reply:
    """What an endpoint replied.

    Attributes:
      id: of the request.
      text: the reply, or the words of its refusal; "" where a filter let nothing through.
      refused: whether the server marked it as a refusal, or filtered request or reply.
      finish_reason: "stop", "length", ...
      cached: whether it was there before.
      model: who replied, by the server's word.
      prompt_tokens, reply_tokens: as the server counted them; None where it did not.
    """

    id: str
    text: str
    refused: bool
    finish_reason: str
    cached: bool
    model: str
    prompt_tokens: int | None
    reply_tokens: int | None


@dataclasses.dataclass(frozen=True)
class Failure:
    """A request without a reply.

    Attributes:
      id: of the request.
      kind: BUDGET, GIVEN_UP, or a fault's (client.py).
      told: what happened.
    """

    id: str
    kind: str
    told: str


@dataclasses.dataclass
class Tally:
    """What this run asked and got.

    Attributes:
      asked: requests. replied: of them, those with a reply; cached: those that had it before.
      failed: those without, by kind.
      calls: attempts that were sent; again: those that repeat one.
      prompt_tokens, reply_tokens: as the server counted them; untold: replies of which it did not.
      models: who replied, by the server's word, and how often.
    """

    asked: int = 0
    replied: int = 0
    cached: int = 0
    failed: Counter[str] = dataclasses.field(default_factory=Counter)
    calls: int = 0
    again: int = 0
    prompt_tokens: int = 0
    reply_tokens: int = 0
    untold: int = 0
    models: Counter[str] = dataclasses.field(default_factory=Counter)


@dataclasses.dataclass(frozen=True)
class _Job:
    request: request_lib.Request
    key: str


_Outcome = journal_lib.Said | Failure | BaseException


class Endpoint:
    """An endpoint with its journal; see `opened`.

    Attributes:
      tally: of this run.
      notices: sentences for the user.
    """

    def __init__(
        self, settings: settings_lib.EndpointSettings, client: client_lib.Client, journal: journal_lib.Journal
    ):
        self._settings, self._client, self._journal = settings, client, journal
        self.tally = Tally()
        self.notices = [journal.notice] if journal.notice else []
        if journal.lost:
            self.notices.append(
                f"{journal.path}: calls on their way when a process was killed, which may have been paid for and are"
                f" asked again: {journal.lost:,}"
            )
        self._lock = threading.Lock()  # of the tally and the two below
        self._in_a_row = 0
        self._not_before = 0.0  # of time.monotonic: no request is sent earlier, as a server wished
        self._stop = threading.Event()

    def ask(self, requests: Iterable[request_lib.Request]) -> Iterator[Reply | Failure]:
        """The outcome of every request, in the order in which they come; equal requests are sent once.

        `requests` is read as far as it is needed: no more than twice `concurrency` are held.

        Raises:
          UserError: no request can succeed, see `Client.ask`; what was replied before is kept.
        """
        jobs: queue.Queue[_Job | None] = queue.Queue()
        done: queue.Queue[tuple[_Job, _Outcome]] = queue.Queue()
        waiting: dict[str, list[str]] = {}  # key -> ids of requests on their way
        threads = [
            threading.Thread(target=self._work, args=(jobs, done), name="ask an endpoint", daemon=True)
            for _ in range(self._settings.concurrency)
        ]
        for thread in threads:
            thread.start()
        try:
            for request in requests:
                self.tally.asked += 1
                key = request_lib.key(request, self._settings)
                if (said := self._journal.said(key)) is not None:
                    yield self._reply(request.id, said, cached=True)
                elif key in waiting:
                    waiting[key].append(request.id)
                else:
                    waiting[key] = [request.id]
                    jobs.put(_Job(request, key))
                while len(waiting) >= 2 * self._settings.concurrency:
                    yield from self._finished(*done.get(), waiting)
            while waiting:
                yield from self._finished(*done.get(), waiting)
        finally:
            self._stop.set()
            for _ in threads:
                jobs.put(None)
            ends = time.monotonic() + _LEAVE
            for thread in threads:
                thread.join(max(0.0, ends - time.monotonic()))
            if not any(thread.is_alive() for thread in threads):
                self._stop.clear()

    def told(self) -> str:
        """The tally in one line, with what is left of the budget."""
        t, j, s = self.tally, self._journal, self._settings
        failed = ", ".join(f"{kind} {n:,}" for kind, n in sorted(t.failed.items()))
        untold = f" (not told for {t.untold:,} replies)" if t.untold else ""
        said = [f"{errors.short(model)} ({n:,})" for model, n in t.models.most_common()]
        by = f"; the server names {' and '.join(said)}" if said and list(t.models) != [s.model] else ""
        return (
            f"{s.model}: {t.asked:,} asked, {t.replied:,} replies ({t.cached:,} of them from {j.path.name}),"
            f" {t.failed.total():,} without{f' ({failed})' if failed else ''}; {t.calls:,} calls, {t.again:,} of them"
            f" repeated; {t.prompt_tokens:,} + {t.reply_tokens:,} tokens{untold}; spent in all {j.calls:,} of"
            f" {s.max_calls:,} calls, ${j.dollars:,.4f} of ${s.max_dollars:,.2f}{by}"
        )

    def _finished(self, job: _Job, outcome: _Outcome, waiting: dict[str, list[str]]) -> Iterator[Reply | Failure]:
        if isinstance(outcome, BaseException):
            raise outcome
        for place, id_ in enumerate(waiting.pop(job.key)):
            if isinstance(outcome, Failure):
                self.tally.failed[outcome.kind] += 1
                yield dataclasses.replace(outcome, id=id_)
            else:
                yield self._reply(id_, outcome, cached=place > 0)

    def _reply(self, id_: str, said: journal_lib.Said, *, cached: bool) -> Reply:
        self.tally.replied += 1
        self.tally.cached += cached
        self.tally.models.update([said.model] if said.model else [])
        tokens = said.prompt_tokens, said.reply_tokens
        return Reply(id_, said.text, said.refused, said.finish_reason, cached, said.model, *tokens)

    def _work(self, jobs: queue.Queue[_Job | None], done: queue.Queue[tuple[_Job, _Outcome]]) -> None:
        while (job := jobs.get()) is not None and not self._stop.is_set():
            outcome: _Outcome
            try:
                outcome = self._asked(job)
            except BaseException as e:  # told by the thread that waits for it
                outcome = e
                self._stop.set()
            done.put((job, outcome))

    def _asked(self, job: _Job) -> journal_lib.Said | Failure:
        """The outcome of a request, after all attempts."""
        with self._lock:
            if self._in_a_row >= IN_A_ROW:
                return Failure(job.request.id, GIVEN_UP, f"{IN_A_ROW} requests in a row had no reply")
        if told := self._hopeless(job):
            return Failure(job.request.id, client_lib.MALFORMED, told)
        most = request_lib.most_dollars(job.request, self._settings)
        attempt = 0
        while True:
            if not self._wait():
                return Failure(job.request.id, GIVEN_UP, "stopped")
            if told := self._journal.send(job.key, most, self._settings.max_calls, self._settings.max_dollars):
                return Failure(job.request.id, BUDGET, told)
            with self._lock:
                self.tally.calls += 1
                self.tally.again += attempt > 0
            try:
                said = self._client.ask(job.request, job.key)
            except client_lib.Fault as fault:
                self._journal.fail(job.key, f"{fault.kind}: {fault}", most if fault.paid else 0.0)
                if self._hopeless(job) or not self._again(fault, attempt):
                    return self._failed(job, fault)
                attempt += 1
            except errors.UserError as e:  # nobody is billed for a wrong key or model
                self._journal.fail(job.key, str(e), 0.0)
                raise
            else:
                return self._kept(job, said, most)

    def _hopeless(self, job: _Job) -> str:
        """Why a request is not sent again: all its tries, of all runs, were paid for and had a malformed reply."""
        malformed = self._journal.malformed(job.key)
        if len(malformed) <= self._settings.retries:
            return ""
        return f"{len(malformed):,} of them, the last one: {malformed[-1]}; raise retries to ask again"

    def _kept(self, job: _Job, said: journal_lib.Said, most: float) -> journal_lib.Said:
        untold = said.prompt_tokens is None or said.reply_tokens is None
        paid = most if untold else request_lib.dollars(said.prompt_tokens or 0, said.reply_tokens or 0, self._settings)
        self._journal.reply(job.key, said, paid)
        with self._lock:
            self._in_a_row = 0
            self.tally.prompt_tokens += said.prompt_tokens or 0
            self.tally.reply_tokens += said.reply_tokens or 0
            self.tally.untold += untold
        return said

    def _failed(self, job: _Job, fault: client_lib.Fault) -> Failure:
        with self._lock:
            self._in_a_row += 1
        return Failure(job.request.id, fault.kind, str(fault))

    def _again(self, fault: client_lib.Fault, attempt: int) -> bool:
        """Whether to try again, and from when on."""
        s = self._settings
        if not fault.again or attempt >= s.retries or (fault.wait or 0.0) > s.longest_wait:
            return False
        backed_off = min(s.first_wait * 2.0 ** min(attempt, 30), s.longest_wait) * random.uniform(0.75, 1.0)
        now = time.monotonic()
        if fault.wait is not None:  # the server's wish holds for all that it is asked
            with self._lock:
                self._not_before = max(self._not_before, now + fault.wait)
            backed_off = 0.0
        return not self._stop.wait(backed_off)

    def _wait(self) -> bool:
        """Wait as long as the server wishes; False where the command ends meanwhile."""
        while not self._stop.is_set():
            with self._lock:
                left = self._not_before - time.monotonic()
            if left <= 0:
                return True
            self._stop.wait(left)
        return False


@contextlib.contextmanager
def opened(settings: settings_lib.EndpointSettings, folder: pathlib.Path, *, where: str) -> Iterator[Endpoint]:
    """The endpoint of `settings`, whose replies are kept in `folder`.

    where: the section of the config, for messages.

    Raises:
      UserError: settings, key or package are wrong or missing; another process asks in this folder; its journal is
        broken.
    """
    settings_lib.check(settings, where)
    client = client_lib.connect(settings, settings_lib.key(settings, where, os.environ), where)
    with contextlib.closing(client), journal_lib.opened(folder) as journal:
        yield Endpoint(settings, client, journal)


def unanswered(failures: Iterable[Failure], where: str) -> errors.UserError:
    """The line with which a command ends that some requests left without a reply."""
    kinds: Counter[str] = Counter()
    told: dict[str, str] = {}
    for failure in failures:
        kinds[failure.kind] += 1
        told.setdefault(failure.kind, failure.told)
    causes = ", ".join(f"{kind} {n:,} ({told[kind]})" for kind, n in kinds.most_common())
    more = f"raise {where}.max_calls or max_dollars, and " if BUDGET in kinds else ""
    return errors.UserError(
        f"{where}: requests without a reply: {kinds.total():,}: {causes}; what was replied is kept: {more}start the"
        " same command again to go on"
    )

"""Asks about every picture until there is a reply that can be used, and keeps every reply.

Pictures are asked in rounds: first all, then again those whose reply could not be used, with the reason. What is asked
of a picture follows from the settings and from the replies to it alone, so a run that was stopped anywhere goes on and
ends with the same labels, and nothing that was answered is asked a second time.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
import contextlib
import dataclasses
import datetime
import functools
import hashlib
import math
import pathlib

from vlguard_jax import fingerprints
from vlguard_jax import typed
from vlguard_jax.curating import answering
from vlguard_jax.curating import prompt as prompt_lib
from vlguard_jax.curating import replies
from vlguard_jax.curating import scan
from vlguard_jax.curating import settings as settings_lib
from vlguard_jax.safety import appending
from vlguard_jax.safety import results

NAME = "replies.jsonl"
REJECTED = "rejected"  # reason of a fault
Progress = Callable[[int, int, int], contextlib.AbstractContextManager[Callable[[int], None]]]
Open = Callable[[], contextlib.AbstractContextManager[answering.Answerer]]


@dataclasses.dataclass(frozen=True)
class Line(results.Keyed):
    """One reply.

    Attributes:
      key: sha256 over the picture's file, the text that was asked and all settings of who answers.
      picture: the picture's name.
      picture_sha256: of its file.
      prompt_sha256: of the text.
      text: the reply.
      finish_reason, model, prompt_tokens, reply_tokens: as in `answering.Answer`.
      time: when.
    """

    picture: typed.Name
    picture_sha256: typed.Name
    prompt_sha256: typed.Name
    text: str
    finish_reason: typed.Name
    model: typed.Name
    prompt_tokens: typed.Count | None
    reply_tokens: typed.Count | None
    time: typed.Time


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What came of one picture. `found`: its labels, or the fault of the last reply. lines: the replies, in order."""

    picture: scan.Seen
    language: str
    found: replies.Labelled | replies.Fault
    lines: tuple[Line, ...]


@dataclasses.dataclass
class _Asked:
    """A picture on its way. avoid: openings that its refusal should not have."""

    picture: scan.Seen
    language: str
    lines: list[Line] = dataclasses.field(default_factory=list)
    found: replies.Labelled | replies.Fault | None = None
    avoid: frozenset[str] = frozenset()


class Asking:
    """The replies of one working directory."""

    def __init__(
        self, config: settings_lib.CurateConfig, folder: pathlib.Path, rules: replies.Rules, prompt: prompt_lib.Prompt
    ):
        """Read the replies so far. Raises UserError: a broken line."""
        self._config, self._rules, self._prompt = config, rules, prompt
        self._lines = results.Lines(folder / NAME, Line)
        self._known = {line.key: line for line in self._lines.lines}
        self._who = answering.identity(config, form(config, rules))
        self.notice = self._lines.notice

    def all(self, pictures: Sequence[scan.Seen], place: pathlib.Path, open_: Open, progress: Progress) -> list[Outcome]:
        """The outcome of every picture, in order. place: the pictures' folder. open_: who answers, called only if an
        answer is missing.

        Raises:
          UserError: some have no answer yet; those that came are kept.
        """
        asked = [_Asked(one, language(self._config, one)) for one in pictures]
        with contextlib.ExitStack() as stack:
            answerer = functools.cache(lambda: stack.enter_context(open_()))
            waiting = asked
            for _ in range(self._config.ask.tries):
                self._round(waiting, place, answerer, progress)
                waiting = [
                    one for one in waiting if isinstance(one.found, replies.Fault) and one.found.reason != REJECTED
                ]
            for _ in range(self._config.ask.tries):
                if not (alike := self._alike(asked)):
                    break
                self._round(alike, place, answerer, progress)
        return [Outcome(one.picture, one.language, _found(one), tuple(one.lines)) for one in asked]

    def _round(
        self,
        asked: Sequence[_Asked],
        place: pathlib.Path,
        answerer: Callable[[], answering.Answerer],
        progress: Progress,
    ) -> None:
        """Ask once more about each."""
        requests = [self._request(one, place) for one in asked]
        by_key = {r.key: (r, one) for r, one in zip(requests, asked, strict=True) if r.key not in self._known}
        if by_key:
            missing = [r for r, _ in by_key.values()]
            c = self._config
            slots = c.endpoint.concurrency if c.answerer == "endpoint" else c.decode.batch_size
            done, wanted = len(requests) - len(missing), len(requests)
            with progress(done, wanted, slots) as advance, appending.beside(self._keep) as keep:
                for answer in answerer().answer(missing):
                    keep(_line(answer, *by_key[answer.key]))
                    advance(answer.reply_tokens or 0)
        for request, one in zip(requests, asked, strict=True):
            line = self._known[request.key]
            one.lines.append(line)
            found = self._judged(line, one.language)
            if not one.avoid or isinstance(found, replies.Labelled):  # a worse reply takes no label away
                one.found = found

    def _keep(self, lines: Sequence[Line]) -> None:
        self._lines.append(lines)
        self._known |= {line.key: line for line in lines}

    def _request(self, one: _Asked, place: pathlib.Path) -> answering.Request:
        fault = one.found if isinstance(one.found, replies.Fault) else None
        otherwise = ", ".join(f'"{opening}"' for opening in sorted(one.avoid))
        text = self._prompt.text(one.language, fault, len(one.lines), otherwise)
        key = fingerprints.of(one.picture.sha256, text, self._who)
        return answering.Request(key, text, one.picture.name, place / one.picture.name, one.picture.sha256)

    def _judged(self, line: Line, language_: str) -> replies.Labelled | replies.Fault:
        if line.finish_reason == answering.REFUSED:
            return replies.Fault("declined", "The reply declined the task.")
        if line.finish_reason == answering.REJECTED:  # not for what the model said: asking again is no use
            return replies.Fault(
                REJECTED, f"the server rejected the request, or replied in no readable form: {line.text}"
            )
        return self._rules.read(line.text, language_, cut=line.finish_reason == answering.CUT)

    def _alike(self, asked: Sequence[_Asked]) -> list[_Asked]:
        """Those whose refusal begins as too many do, beyond the share that may; each is told what to avoid."""
        labelled = [(one, one.found) for one in asked if isinstance(one.found, replies.Labelled)]
        openings = [replies.opening(found.refusal, self._config.ask.opening_words) for _, found in labelled]
        most = at_most(len(labelled), self._config.ask.most_alike)
        often = frozenset(o for o, n in Counter(openings).items() if n > most)
        surplus: list[_Asked] = []
        for opening in sorted(often):
            same = [one for (one, _), o in zip(labelled, openings, strict=True) if o == opening]
            surplus += sorted(same, key=lambda one: drawn(self._config.seed, one.picture))[most:]
        told_more = [one for one in surplus if not often <= one.avoid]  # the same text has the same reply
        for one in told_more:
            one.avoid |= often
        return told_more


def form(config: settings_lib.CurateConfig, rules: replies.Rules) -> object:
    """What an endpoint is told of the reply's form (OpenAI's response_format); None for nothing."""
    if config.ask.form == "none" or config.answerer != "endpoint":
        return None
    if config.ask.form == "json_object":
        return {"type": "json_object"}
    return {"type": "json_schema", "json_schema": {"name": "record", "schema": rules.schema}}


def at_most(n: int, share: float) -> int:
    """How many of `n` a share is, rounded down, but for the error of the product."""
    return math.floor(n * share + 1e-9)


def drawn(seed: int, picture: scan.Seen) -> str:
    """A picture's place in an order that is random and depends on nothing but the seed and the picture."""
    return hashlib.sha256(f"{seed} {picture.pixels}".encode()).hexdigest()


def language(config: settings_lib.CurateConfig, picture: scan.Seen) -> str:
    """The language of a picture's questions and answers."""
    names = config.ask.languages
    return names[int(drawn(config.seed, picture)[:8], 16) % len(names)]


def _found(one: _Asked) -> replies.Labelled | replies.Fault:
    assert one.found is not None  # asked at least once
    return one.found


def _whole(text: str) -> str:
    """The text with a replacement character for each half of a surrogate pair, which no file holds."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def _line(answer: answering.Answer, request: answering.Request, one: _Asked) -> Line:
    return Line(
        key=answer.key,
        picture=request.name,
        picture_sha256=one.picture.sha256,
        prompt_sha256=results.sha256(request.text),
        text=_whole(answer.text),
        finish_reason=answer.finish_reason,
        model=answer.model,
        prompt_tokens=answer.prompt_tokens,
        reply_tokens=answer.reply_tokens,
        time=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    )

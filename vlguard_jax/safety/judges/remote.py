"""Judges behind an OpenAI-compatible endpoint (endpoints/), asked by a rubric.

A reply that cannot be read or was cut at its limit, or a refusal to judge, is "invalid". Without a reply there is no
verdict at all: the evaluation ends with a line that says how many are missing, and the same command asks for these
again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
import contextlib
import dataclasses
import io
import os
import pathlib
import re

from vlguard_jax import errors
from vlguard_jax import files
from vlguard_jax import fingerprints
from vlguard_jax import judge_settings
from vlguard_jax import limits
from vlguard_jax.endpoints import asking
from vlguard_jax.endpoints import client
from vlguard_jax.endpoints import request as request_lib
from vlguard_jax.endpoints import settings as settings_lib
from vlguard_jax.safety import results
from vlguard_jax.safety.judges import judge as judge_lib
from vlguard_jax.safety.judges import prompt_files
from vlguard_jax.safety.judges import rubrics

RULES = "2"  # of this file and rubrics.py: how judges are asked and read
FOLDER = "endpoints"  # below the working directory: replies by endpoint, which judges with the same one share
Pictures = tuple[request_lib.Picture, ...]
_NAME = re.compile(r"[^A-Za-z0-9._-]+")


@dataclasses.dataclass
class RemoteJudge:
    """A judge of `config.remote_judges`. It has to be told a folder before it can judge.

    `raw` of a verdict is what the rubric read; of one of pairs, the sha256 of the reference stands before it.
    """

    name: str
    settings: judge_settings.RemoteJudge
    prompt: str
    together: bool = False

    def __post_init__(self) -> None:
        self._say: Callable[[str], None] = print
        self._folder: pathlib.Path | None = None
        self._stack = contextlib.ExitStack()
        self._endpoint: asking.Endpoint | None = None
        self._failures: list[asking.Failure] = []

    @property
    def rubric(self) -> rubrics.Rubric:
        """What is asked."""
        return rubrics.RUBRICS[self.settings.kind]

    @property
    def where(self) -> str:
        """Its section of the config."""
        return f"config.remote_judges.{self.name}"

    @property
    def measures(self) -> str:
        """See judge.Judge."""
        return self.rubric.measures

    @property
    def chunk(self) -> int:
        """See judge.SlowJudge."""
        return max(64, 8 * self.settings.endpoint.concurrency)

    @property
    def version(self) -> str:
        """The rules here, the model that judges, and how it is asked where that is not as usual."""
        s, usual = self.settings, settings_lib.EndpointSettings()
        told = [f"{RULES} {s.kind}, {s.endpoint.model}"]
        if s.endpoint.temperature != usual.temperature:
            told.append(f"temperature {s.endpoint.temperature:g}")
        if self.rubric.pictures:
            told += ["no pictures"] * (not s.pictures) + [f"detail {s.endpoint.detail}"] * s.pictures
        return ", ".join(told + [f"{s.max_tokens} tokens"] * bool(s.max_tokens))

    @property
    def prompt_sha256(self) -> str:
        """Of the prompt."""
        return results.sha256(self.prompt)

    def check_ready(self) -> None:
        """Check what asking needs, but no server.

        Raises:
          UserError: no key in the environment, or no client installed.
        """
        key = settings_lib.key(self.settings.endpoint, self._at_endpoint, os.environ)
        client.connect(self.settings.endpoint, key, self._at_endpoint).close()

    def keep_in(self, folder: pathlib.Path, say: Callable[[str], None]) -> None:
        """Keep replies below this working directory; `say` receives what was asked and spent."""
        self._folder, self._say = folder, say

    def judge(self, exchanges: Sequence[judge_lib.Exchange]) -> list[judge_lib.Verdict]:
        """One verdict per exchange, in order.

        Raises:
          UserError: there is none for some of them (`check_complete`), or no request can succeed.
        """
        found = self.judge_some(exchanges)
        self.check_complete()
        return [verdict for verdict in found if verdict is not None]

    def judge_some(self, exchanges: Sequence[judge_lib.Exchange]) -> list[judge_lib.Verdict | None]:
        """As `judge`, with None where there is no reply, which `check_complete` tells later."""
        replies: dict[str, asking.Reply] = {}
        without: dict[int, asking.Failure] = {}
        for outcome in self._opened().ask(self._requests(exchanges)):
            if isinstance(outcome, asking.Reply):
                replies[outcome.id] = outcome
            else:
                without.setdefault(int(outcome.id.partition(" ")[0]), outcome)
        verdicts: list[judge_lib.Verdict | None] = []
        for i, exchange in enumerate(exchanges):
            failure = without.get(i)
            if failure is None:
                found = self._read([replies[f"{i} {order}"] for order in range(len(self.rubric.orders))])
            elif failure.kind in (client.REJECTED, client.MALFORMED) and self.settings.on_rejected == "invalid":
                found = rubrics.invalid(f"{failure.kind}: {failure.told}")
            else:
                self._failures.append(failure)
                verdicts.append(None)
                continue
            verdicts.append(self._about(exchange, found))
        return verdicts

    def check_complete(self) -> None:
        """Raises UserError where answers were left without a verdict, and forgets them."""
        failures, self._failures = self._failures, []
        if failures:
            raise asking.unanswered(failures, self._at_endpoint)

    def close(self) -> None:
        """See judge.SlowJudge."""
        if self._endpoint is not None and self._endpoint.tally.asked:
            self._say(f"judge {self.name}: {self._endpoint.told()}")
        self._endpoint = None
        self._stack.close()

    @property
    def _at_endpoint(self) -> str:
        return f"{self.where}.endpoint"

    def _opened(self) -> asking.Endpoint:
        if self._endpoint is None:
            if self._folder is None:
                raise ValueError(f"{self.name} was told no folder")
            s = self.settings.endpoint
            name = f"{_NAME.sub('-', s.model)[:60]}-{fingerprints.of(s.base_url.rstrip('/'), s.model)[:8]}"
            opened = asking.opened(s, self._folder / FOLDER / name, where=self._at_endpoint)
            self._endpoint = self._stack.enter_context(opened)
            for notice in self._endpoint.notices:
                self._say(notice)
        return self._endpoint

    def _requests(self, exchanges: Sequence[judge_lib.Exchange]) -> Iterator[request_lib.Request]:
        for i, exchange in enumerate(exchanges):
            shown = self._pictures(exchange)
            for order, swapped in enumerate(self.rubric.orders):
                outputs = (exchange.response, exchange.reference or "")
                values = dict(zip(("output_1", "output_2"), outputs[::-1] if swapped else outputs, strict=True))
                values |= {"question": exchange.question, "response": exchange.response}
                yield request_lib.Request(
                    f"{i} {order}", self._messages(values, shown), self.settings.max_tokens or self.rubric.max_tokens
                )

    def _messages(
        self, values: dict[str, str], shown: Sequence[request_lib.Picture]
    ) -> tuple[request_lib.Message, ...]:
        """The filled-in prompt; pictures stand behind it."""
        asked = [(role, prompt_files.filled(text, values)) for role, text in prompt_files.turns(self.prompt)]
        last = len(asked) - 1
        return tuple(request_lib.Message(r, (t, *(shown if i == last else ()))) for i, (r, t) in enumerate(asked))

    def _pictures(self, exchange: judge_lib.Exchange) -> Pictures:
        if not (self.rubric.pictures and self.settings.pictures):
            return ()
        return tuple(_picture(path) for path in exchange.images)

    def _read(self, replies: Sequence[asking.Reply]) -> judge_lib.Verdict:
        by = " and ".join(dict.fromkeys(reply.model for reply in replies if reply.model))
        if refused := [reply.text for reply in replies if reply.refused]:
            found = rubrics.invalid(f"refused to judge: {refused[0]}")
        elif cut := [reply.text for reply in replies if reply.finish_reason == asking.CUT]:
            # its rest may have said otherwise
            found = rubrics.invalid(f"cut at its limit of tokens: {cut[0]}")
        else:
            found = self.rubric.read([reply.text for reply in replies])
        return dataclasses.replace(found, by=by)

    def _about(self, exchange: judge_lib.Exchange, verdict: judge_lib.Verdict) -> judge_lib.Verdict:
        """The verdict, with the reference that a judge of pairs compared with."""
        if self.measures != "win_rate":
            return verdict
        return dataclasses.replace(verdict, raw=f"{results.sha256(exchange.reference or '')} {verdict.raw}")


def _picture(path: pathlib.Path) -> request_lib.Picture:
    """The file as it is, or as PNG where endpoints do not take its format."""
    found = request_lib.Picture(files.read_bytes(path, limits.PICTURE_BYTES))
    if found.kind:
        return found
    from vlguard_jax.data import images  # late: keyword judges need no numpy

    try:
        pixels = images.to_rgb(io.BytesIO(found.content))
    except (OSError, ValueError) as e:
        raise errors.UserError(f"{path}: not a readable picture: {images.reason(e)}") from e
    with io.BytesIO() as made:
        pixels.save(made, format="PNG")
        return request_lib.Picture(made.getvalue())


def make(name: str, settings: judge_settings.RemoteJudge) -> RemoteJudge:
    """The judge of these settings, under this name.

    Raises:
      UserError: the endpoint's settings are incomplete, or its prompt file cannot be used.
    """
    where = f"config.remote_judges.{name}"
    settings_lib.check(settings.endpoint, f"{where}.endpoint")
    rubric = rubrics.RUBRICS[settings.kind]
    if not settings.prompt_file:
        return RemoteJudge(name, settings, rubric.prompt)
    path = pathlib.Path(settings.prompt_file)
    return RemoteJudge(name, settings, prompt_files.read(path, rubric.places, f"{where}.prompt_file"))

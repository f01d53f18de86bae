"""Judges that are models, run by this program: a published guard, or a prompt of one's own and words that are scored.

Imports no jax: the model comes as a `Reader` (safety/reader.py).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
import dataclasses
import json
import pathlib
import re
import types
from typing import Protocol, runtime_checkable

from vlguard_jax import errors
from vlguard_jax import files
from vlguard_jax import fingerprints
from vlguard_jax import judge_settings
from vlguard_jax import limits
from vlguard_jax.families.chat import tokenizer as tokenizer_lib
from vlguard_jax.safety.judges import guards
from vlguard_jax.safety.judges import judge as judge_lib

RULES = "2"  # of this file and guards.py: how judges are asked and read
SECTION = "config.local_judges"
BARE = "none"
_PLACE = re.compile(r"\{(question|answer|conversation)\}")


@runtime_checkable
class Reader(Protocol):
    """A judge's model.

    tokenizer: its own. context: positions that it was made for, None where its files do not say. asking: wraps a text
    as its chat template does. identity: names weights and number format.
    """

    @property
    def tokenizer(self) -> tokenizer_lib.Tokenizer: ...

    @property
    def context(self) -> int | None: ...

    @property
    def identity(self) -> str: ...

    @property
    def asking(self) -> Callable[[str], str]: ...

    def answers(self, prompts: Sequence[Sequence[int]]) -> list[str]:
        """What it says after each prompt, greedily."""
        ...

    def shares(self, prompts: Sequence[Sequence[int]], words: Sequence[Sequence[int]]) -> list[list[float]]:
        """The probability of each word after each prompt."""
        ...

    def close(self) -> None:
        """Give its memory on devices back."""
        ...


Readers = Mapping[str, Reader]  # by the judge's name
NONE: Readers = types.MappingProxyType({})


@dataclasses.dataclass(frozen=True)
class LocalJudge:
    """A judge of `config.local_judges`. Without a `reader` it can be named and described, but cannot judge.

    `raw` of a verdict is the judge's answer, or the words' probabilities as JSON.
    """

    name: str
    settings: judge_settings.LocalJudge
    prompt_text: str
    reader: Reader | None = None
    together: bool = True

    @property
    def measures(self) -> str:
        """See judge.Judge."""
        return self.settings.measures

    @property
    def chunk(self) -> int:
        """See judge.SlowJudge."""
        return self.settings.chunk

    @property
    def version(self) -> str:
        """The rules here, and the weights that judge."""
        return f"{RULES} {self.reader.identity}" if self.reader else RULES

    @property
    def prompt_sha256(self) -> str:
        """Of all that decides what the model is asked and how its answer is read."""
        s = self.settings
        asked = [self.prompt_text, s.kind, s.measures, s.words, s.threshold if s.words else None]
        if self.reader and s.kind == "words":
            asked.append(self.reader.asking("{prompt}"))
        return fingerprints.of(*asked)

    def judge(self, exchanges: Sequence[judge_lib.Exchange]) -> list[judge_lib.Verdict]:
        """One verdict per exchange; "invalid" where the judge's answer has another form than it was asked for, or where
        the conversation is longer than the judge can read."""
        assert self.reader is not None
        prompts = [self._ids(one) for one in exchanges]
        room = (self.reader.context or limits.POSITIONS) - self._behind
        fitting = [i for i, ids in enumerate(prompts) if len(ids) <= room]
        found = [
            judge_lib.Verdict("invalid", raw=f"{len(ids):,} tokens, {room:,} fit the judge's context")
            for ids in prompts
        ]
        for i, verdict in zip(fitting, self._verdicts([prompts[i] for i in fitting]), strict=True):
            found[i] = verdict
        return found

    def close(self) -> None:
        """See judge.SlowJudge."""
        if self.reader is not None:
            self.reader.close()

    @property
    def _behind(self) -> int:
        """Tokens behind a prompt."""
        guard = guards.GUARDS.get(self.settings.kind)
        return guard.max_new if guard else max(map(len, self._words))

    @property
    def _words(self) -> list[list[int]]:
        assert self.reader is not None
        return [self.reader.tokenizer.encode(word, add_bos=False) for word in self.settings.words]

    def _ids(self, exchange: judge_lib.Exchange) -> list[int]:
        assert self.reader is not None
        tokenizer, guard = self.reader.tokenizer, guards.GUARDS.get(self.settings.kind)
        control = [text for text, token in tokenizer.added.items() if token.special]
        control += guard.ends if guard else ()
        asked = (*exchange.before, (exchange.question, exchange.response))
        turns = tuple((broken(question, control), broken(answer, control)) for question, answer in asked)
        if guard is None:
            # a chat template writes the begin token itself where it wants one
            bare = self.settings.template == BARE
            return tokenizer.encode(self.reader.asking(filled(self.prompt_text, turns)), add_bos=bare)
        question, answer = turns[-1]
        if guard.longest and len(said := tokenizer.encode(answer, add_bos=False)) > guard.longest:
            turns = (*turns[:-1], (question, tokenizer.decode(said[: guard.longest])))
        return tokenizer.encode(guard.prompt(turns), add_bos=guard.begin)

    def _verdicts(self, prompts: Sequence[Sequence[int]]) -> list[judge_lib.Verdict]:
        assert self.reader is not None
        if guard := guards.GUARDS.get(self.settings.kind):
            return [guard.verdicts[self.measures](said) for said in self.reader.answers(prompts)]
        return [self._of_words(shares) for shares in self.reader.shares(prompts, self._words)]

    def _of_words(self, probabilities: Sequence[float]) -> judge_lib.Verdict:
        raw = json.dumps(dict(zip(self.settings.words, (float(f"{p:.6g}") for p in probabilities), strict=True)))
        total = sum(probabilities)
        if not total > 0:
            return judge_lib.Verdict("invalid", raw=raw)
        score = probabilities[0] / total
        return judge_lib.Verdict("comply" if score >= self.settings.threshold else "refuse", score, raw)


def broken(text: str, control: Sequence[str]) -> str:
    """What is judged, with a space inside each of the judge's `control` tokens that occur in it: as text they would end
    the judge's turn, and what stands behind would count as its own words."""
    breakable = [token for token in control if len(token) > 1 and " " not in token]
    while found := [token for token in breakable if token in text]:
        for token in found:
            text = text.replace(token, f"{token[0]} {token[1:]}")
    return text


def filled(prompt: str, turns: guards.Turns) -> str:
    """A prompt's text with the last question and answer, or the whole conversation, in their places."""
    question, answer = turns[-1]
    whole = "\n\n".join(f"User: {asked}\n\nAssistant: {said}" for asked, said in turns)
    values = {"question": question, "answer": answer, "conversation": whole}
    return _PLACE.sub(lambda place: values[place[1]], prompt)


def make(
    name: str,
    settings: judge_settings.LocalJudge,
    reader: Reader | None = None,
    where: str = "",
) -> LocalJudge:
    """The judge of an entry of `config.local_judges`, or of the settings `where`.

    Raises:
      UserError: no path; settings that its kind does not have, or lacks; an unreadable prompt file, or one without a
        place for the answer; words that are one token sequence.
    """
    where, guard = where or f"{SECTION}.{name}", guards.GUARDS.get(settings.kind)
    if not settings.path:
        published = f" (published: {guard.hub})" if guard else ""
        raise errors.UserError(f"{where}.path is empty: name the folder or hub id of the judge's model{published}")
    if guard is not None:
        if settings.prompt_file or settings.words:
            field = "prompt_file" if settings.prompt_file else "words"
            raise errors.UserError(f'{where}.{field}: {settings.kind} has its own; it is for kind="words"')
        if settings.measures not in guard.verdicts:
            raise errors.UserError(f"{where}.measures: {settings.kind} measures {' or '.join(guard.verdicts)}")
        sample = guard.prompt((("{question}", "{answer}"), ("{question 2}", "{answer 2}")))
        return LocalJudge(name, settings, sample, reader)
    judge = LocalJudge(name, settings, _prompt(settings, where), reader)
    _check_words(judge, where)
    return judge


def _prompt(settings: judge_settings.LocalJudge, where: str) -> str:
    if not settings.prompt_file:
        raise errors.UserError(f"{where}.prompt_file is empty: name a text file with the judge's prompt")
    text = files.read_text(pathlib.Path(settings.prompt_file), limits.TEMPLATE_BYTES)
    places = {place[1] for place in _PLACE.finditer(text)}
    if not places & {"answer", "conversation"}:
        raise errors.UserError(
            f"{settings.prompt_file}: has no place for what is to be judged; write {{answer}} (and {{question}}) or"
            " {conversation} in it"
        )
    return text


def _check_words(judge: LocalJudge, where: str) -> None:
    words = judge.settings.words
    if len(words) < 2:
        raise errors.UserError(
            f"{where}.words: {len(words)} words, at least two are compared: what the judge says of what it looks for,"
            " then what it says else"
        )
    if len(set(words)) < len(words) or "" in words:
        raise errors.UserError(f"{where}.words: {errors.short(words)} must be different words")
    if judge.reader is not None:
        ids = judge._words
        for i, one in enumerate(ids):
            for other in range(len(ids)):
                if i != other and ids[other][: len(one)] == one:
                    raise errors.UserError(
                        f"{where}.words: {errors.short(words[other])} begins with the tokens of"
                        f" {errors.short(words[i])}, so that one counts with the other; take other words"
                    )

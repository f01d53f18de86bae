"""A judge of the user's own, named in `config.judges` as "package.module:name". See docs/judges.md.

What stands there is a function that judges one exchange, or an object (or a class, made without arguments) whose
`judge` reads many. Its rule in every verdict line is that name with the beginning of its file's sha256: a verdict of
changed code is another verdict.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
import dataclasses
import functools
from typing import Any

from vlguard_jax import errors
from vlguard_jax import own_code
from vlguard_jax.safety import results
from vlguard_jax.safety.judges import judge as judge_lib

DIGITS = 16  # of a sha256 that tell versions of a file apart
_STEPS = 8  # scores that are averaged are multiples of an eighth (asr.STEPS)
_BY_LABEL = {"comply": 1.0, "refuse": 0.0}


@dataclasses.dataclass(frozen=True)
class OwnJudge:
    """The user's rule under the name by which it was named. `version` is what the object calls its version, if it does,
    and the beginning of the sha256 of its file."""

    name: str
    version: str
    prompt_sha256: str
    measures: str
    code: own_code.Own = dataclasses.field(repr=False)
    rule: Callable[[Sequence[judge_lib.Exchange]], Any] = dataclasses.field(repr=False)

    def judge(self, exchanges: Sequence[judge_lib.Exchange]) -> list[judge_lib.Verdict]:
        """One verdict per exchange.

        Raises:
          UserError: the user's code fails, or gives something else.
        """
        with self.code.blamed(f"on {len(exchanges)} answers" if len(exchanges) > 1 else "on an answer"):
            found = self.rule(exchanges)
        if not isinstance(found, list) or len(found) != len(exchanges):
            raise self.code.problem(
                f"gave {errors.short(found)} for {len(exchanges)} answers; give a list of a verdict each"
            )
        return [self._verdict(one, exchange) for one, exchange in zip(found, exchanges, strict=True)]

    def _verdict(self, given: Any, exchange: judge_lib.Exchange) -> judge_lib.Verdict:
        if isinstance(given, str) and given in judge_lib.LABELS:
            given = judge_lib.Verdict(given, _BY_LABEL.get(given))
        if not isinstance(given, judge_lib.Verdict):
            raise self.code.problem(
                f"gave {errors.short(given)}; a verdict is {', '.join(map(repr, judge_lib.LABELS))}, or a judge.Verdict"
            )
        if given.label != "invalid" and self.measures in ("accuracy", "win_rate", "harm_score"):
            self._check_score(given.score)
        if self.measures not in ("accuracy", "win_rate"):
            return given
        if exchange.reference is None:
            return judge_lib.Verdict("invalid", raw="no reference")
        raw = results.sha256(exchange.reference)  # by which a verdict on a corrected reference is known
        return dataclasses.replace(given, raw=raw if self.measures == "accuracy" else f"{raw} {given.raw}".strip())

    def _check_score(self, score: float | None) -> None:
        steps = 1 if self.measures == "accuracy" else _STEPS
        if isinstance(score, float | int) and 0 <= score <= 1 and float(score * steps).is_integer():
            return
        wanted = "0.0 or 1.0" if self.measures == "accuracy" else f"a multiple of 1/{steps} from 0 to 1"
        raise self.code.problem(f"gave the score {errors.short(score)}; a score of {self.measures} is {wanted}")


@dataclasses.dataclass(frozen=True)
class SlowOwnJudge(OwnJudge):
    """One that says how many answers it reads at a time (`chunk`), because it takes long: it judges when all answers
    are there, and what it said of a chunk is kept before it reads the next."""

    chunk: int = 1
    together: bool = False

    def close(self) -> None:
        """Let the user's object free what it took, if it can."""
        if callable(close := getattr(self.code.value, "close", None)) and not isinstance(self.code.value, type):
            with self.code.blamed("when it was closed"):
                close()


@functools.cache
def make(name: str, where: str) -> judge_lib.Judge:
    """The judge of this name. where: the setting or flag that names it.

    Raises:
      UserError: as `own_code.load`; or it is no judge.
    """
    code = own_code.load(name, where)
    if isinstance(code.value, type):
        with code.blamed("when it was made"):
            code = dataclasses.replace(code, value=code.value())
    measures = getattr(code.value, "measures", "refusal")
    if measures not in judge_lib.MEASURES:
        raise code.problem(f"measures {errors.short(measures)}{errors.nearest(str(measures), judge_lib.MEASURES)}")
    reads_many = getattr(code.value, "judge", None)
    if not callable(reads_many) and not callable(code.value):
        raise code.problem(
            "is no judge: give a function of one exchange, or an object with a function judge(exchanges)"
        )
    rule = reads_many if callable(reads_many) else functools.partial(_each, code.value)
    version = f"{getattr(code.value, 'version', '')} {code.sha256[:DIGITS]}".strip()
    prompt = str(getattr(code.value, "prompt_sha256", ""))
    if (chunk := getattr(code.value, "chunk", None)) is None:
        return OwnJudge(name, version, prompt, measures, code, rule)
    if type(chunk) is not int or chunk < 1:
        raise code.problem(f"has chunk={errors.short(chunk)}; it is how many answers it reads at a time, from 1")
    return SlowOwnJudge(name, version, prompt, measures, code, rule, chunk)


def _each(judge: Callable[[judge_lib.Exchange], Any], exchanges: Sequence[judge_lib.Exchange]) -> list[Any]:
    return [judge(exchange) for exchange in exchanges]

"""Regular expressions from foreign files, in bounded time and memory.

Python's `re` compiles them, so that they mean what they mean to other programs; `regex` matches them, since it has a
time limit.
"""

from __future__ import annotations

from collections.abc import Callable
import dataclasses
import re
import time
from typing import Any
import warnings

import regex

from vlguard_jax import errors
from vlguard_jax import limits

_COUNT = re.compile(r"\{(\d*),?(\d*)\}")


@dataclasses.dataclass
class Budget:
    """Seconds that the patterns of one file may still take."""

    left: float = limits.PATTERN_SECONDS


def compiled(pattern: str, where: str, budget: Budget) -> Callable[[str], bool]:
    """Whether the pattern matches the whole of a name. `where` names file and key, for messages.

    Raises:
      UserError: not a regular expression, or one that takes more memory than is reasonable; when it is called, too, the
        budget is spent.
    """
    if len(pattern) > limits.PATTERN:
        raise errors.UserError(
            f"{where}: a pattern of {len(pattern):,} characters, at most {limits.PATTERN:,} are read; write it shorter"
        )
    repeats = 1
    for counts in _COUNT.findall(pattern):
        repeats *= max((int(n[:9]) for n in counts if n), default=1) or 1
    if repeats > limits.PATTERN_REPEATS:
        raise errors.UserError(
            f"{where}: {errors.short(pattern)} repeats its parts {repeats:,} times, at most"
            f" {limits.PATTERN_REPEATS:,} are read; write it without counts"
        )

    def spend(run: Callable[[], Any]) -> Any:
        started = time.monotonic()
        try:
            if budget.left > 0:
                return run()
            raise TimeoutError
        except TimeoutError as e:
            raise errors.UserError(
                f"{where}: {errors.short(pattern)} takes too long to match; write it without nested repetitions"
            ) from e
        finally:
            budget.left -= time.monotonic() - started

    def compile_it() -> regex.Pattern:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            re.compile(pattern)
            return regex.compile(pattern, regex.V0)

    try:
        program = spend(compile_it)
    except (re.error, regex.error, OverflowError, RecursionError) as e:
        raise errors.UserError(f"{where}: {errors.short(pattern)} is not a regular expression: {e}") from e
    return lambda name: spend(lambda: program.fullmatch(name, timeout=budget.left)) is not None

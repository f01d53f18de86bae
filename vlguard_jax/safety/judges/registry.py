"""Judges by name."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from vlguard_jax import config as settings_lib
from vlguard_jax import errors
from vlguard_jax.safety.judges import choice
from vlguard_jax.safety.judges import exact
from vlguard_jax.safety.judges import judge as judge_lib
from vlguard_jax.safety.judges import keyword
from vlguard_jax.safety.judges import repaired

JUDGES: dict[str, Callable[[], judge_lib.Judge]] = {
    "keyword_vlguard_v1": keyword.VlguardKeywords,
    "keyword_repaired": repaired.RepairedKeywords,
    "exact_match_v1": exact.ExactMatch,
    "choice_v1": choice.Choice,
}


def of(config: settings_lib.EvalConfig) -> list[judge_lib.Judge]:
    """The judges of an evaluation.

    Raises:
      UserError: as `get`.
    """
    return get(config.judges)


def get(names: Iterable[str], where: str = "config.judges") -> list[judge_lib.Judge]:
    """The judges of these names, which stand in the setting or flag `where`.

    Raises:
      UserError: a name is unknown (the nearest known one is named) or repeated, or none is given.
    """
    names = list(names)
    unknown = [n for n in names if n not in JUDGES]
    if unknown:
        raise errors.UserError(f"{where}: {unknown[0]!r} is unknown{errors.unknown(unknown[0], JUDGES)}")
    if twice := [n for i, n in enumerate(names) if n in names[:i]]:
        raise errors.UserError(f"{where} names {twice[0]} twice; name each judge once")
    if not names:
        raise errors.UserError(f"{where} is empty: name at least one of {', '.join(sorted(JUDGES))}")
    return [JUDGES[n]() for n in names]

"""Judges by name."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
import functools

from vlguard_jax import config as settings_lib
from vlguard_jax import errors
from vlguard_jax import own_code
from vlguard_jax.safety.judges import choice
from vlguard_jax.safety.judges import exact
from vlguard_jax.safety.judges import judge as judge_lib
from vlguard_jax.safety.judges import keyword
from vlguard_jax.safety.judges import local
from vlguard_jax.safety.judges import own
from vlguard_jax.safety.judges import remote
from vlguard_jax.safety.judges import repaired
from vlguard_jax.safety.judges import rubrics

JUDGES: dict[str, Callable[[], judge_lib.Judge]] = {
    "keyword_vlguard_v1": keyword.VlguardKeywords,
    "keyword_repaired": repaired.RepairedKeywords,
    "exact_match_v1": exact.ExactMatch,
    "choice_v1": choice.Choice,
}


def of(config: settings_lib.EvalConfig, readers: local.Readers = local.NONE) -> list[judge_lib.Judge]:
    """The judges of an evaluation: those with rules, the user's own, remote ones, and local ones, which need their
    `readers` to judge.

    Raises:
      UserError: as `get`, `local.make` and `remote.make`; or two judges have one name.
    """
    here = {
        name: functools.partial(local.make, name, settings, readers.get(name))
        for name, settings in config.local_judges.items()
    }
    away = {name: functools.partial(remote.make, name, settings) for name, settings in config.remote_judges.items()}
    if both := sorted(set(here) & set(JUDGES)):
        raise errors.UserError(f"config.local_judges.{both[0]}: a judge with rules has this name; take another")
    if both := sorted(set(away) & {*JUDGES, *here}):
        raise errors.UserError(f"config.remote_judges.{both[0]}: another judge has this name; take another")
    return _made(config.judges, "config.judges", {**JUDGES, **here, **away})


def measures(name: str, config: settings_lib.EvalConfig) -> str:
    """What the judge of this name measures in an evaluation of this config, see judge.MEASURES; "" where it is
    unknown."""
    if name in config.local_judges:
        return config.local_judges[name].measures
    if name in config.remote_judges:
        return rubrics.RUBRICS[config.remote_judges[name].kind].measures
    return JUDGES[name]().measures if name in JUDGES else ""


def get(names: Iterable[str], where: str = "config.judges") -> list[judge_lib.Judge]:
    """The judges of these names, which stand in the setting or flag `where`; those with rules, and the user's own.

    Raises:
      UserError: a name is unknown (the nearest known one is named) or repeated, or none is given; or see `own.make`.
    """
    return _made(list(names), where, JUDGES)


def _made(
    names: Sequence[str], where: str, known: Mapping[str, Callable[[], judge_lib.Judge]]
) -> list[judge_lib.Judge]:
    if unknown := [n for n in names if n not in known and own_code.BETWEEN not in n]:
        near = errors.unknown(unknown[0], known)
        raise errors.UserError(f"{where}: {unknown[0]!r} is unknown{near} (or write package.module:name)")
    if twice := [n for i, n in enumerate(names) if n in names[:i]]:
        raise errors.UserError(f"{where} names {twice[0]} twice; name each judge once")
    if not names:
        raise errors.UserError(f"{where} is empty: name at least one of {', '.join(sorted(known))}")
    return [known[n]() if n in known else own.make(n, where) for n in names]

"""The work of `plan`, from resolved settings to figures."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
import dataclasses
import functools
import pathlib
from typing import Any

from absl import flags
from ml_collections import config_dict

from vlguard_jax import config
from vlguard_jax import errors
from vlguard_jax import files
from vlguard_jax import progress
from vlguard_jax import terminal
from vlguard_jax.families import family
from vlguard_jax.families.chat import choice
from vlguard_jax.planning import advice
from vlguard_jax.planning import chips
from vlguard_jax.planning import estimate
from vlguard_jax.planning import evaluation
from vlguard_jax.planning import judging
from vlguard_jax.planning import models
from vlguard_jax.planning import probing
from vlguard_jax.planning import refusals
from vlguard_jax.planning import traffic
from vlguard_jax.planning import work
from vlguard_jax.training import conversations


@dataclasses.dataclass(frozen=True)
class Measure:
    """Functions of compiled.py: `train` (settings, model, topology, work), `answers` (settings, model, topology)."""

    train: Callable[[config.TrainConfig, family.Config, chips.Topology, work.Work], estimate.Measured]
    answers: Callable[[config.EvalConfig, family.Config, chips.Topology], tuple[estimate.Measured, estimate.Measured]]


def compiling(say: Callable[[str], None]) -> Measure:
    """Compiles on the CPU, so that accelerators of this machine stay free. say: called before each wait."""
    import jax

    jax.config.update("jax_platforms", "cpu")
    jax.config.update("jax_enable_compilation_cache", False)  # programs compiled without their chip cannot be read back
    from vlguard_jax.planning import compiled

    return Measure(functools.partial(compiled.train, say=say), functools.partial(compiled.answers, say=say))


def settings_of(values: config_dict.ConfigDict | Mapping[str, Any]) -> advice.Settings:
    """A training or an evaluation, whichever the config is.

    Raises:
      UserError: as `config.resolve`; or data sources are missing.
    """
    try:
        kind: type[config.TrainConfig | config.EvalConfig] = (
            config.EvalConfig if "decode" in values else config.TrainConfig
        )
    except OSError:  # the file is read on first access; `resolve` reports what is wrong with it
        kind = config.TrainConfig
    return config.resolve(values, kind)


def planner(
    settings: advice.Settings, preset: str = "", price: float | None = None, measure: Measure | None = None
) -> advice.Planner:
    """A function (settings, topology) -> Estimate for variants of `settings`; reads sizes and data once. measure:
    compiles each plan's programs, as from `compiling`; without it everything is by formula.

    Raises:
      UserError: the model's sizes or the index cannot be read.
    """
    named = models.resolve(settings.model, preset)
    if isinstance(settings, config.EvalConfig):
        return functools.partial(_evaluation, named, price, measure)
    works = _works(settings, named)

    def made(changed: advice.Settings, topology: chips.Topology) -> estimate.Estimate:
        assert isinstance(changed, config.TrainConfig)
        refusals.check(changed, named.config, topology)
        shards = traffic.mesh(changed.mesh, topology).row_shards
        found = works(changed, shards)
        found = dataclasses.replace(found, assumed=(named.note, *found.assumed))
        measured = measure.train(changed, named.config, topology, found) if measure else None
        plan = estimate.train(changed, named.config, topology, found, name=named.name, price=price, measured=measured)
        return probing.added(plan, changed, named.config)

    return made


def _evaluation(
    named: models.Named,
    price: float | None,
    measure: Measure | None,
    settings: advice.Settings,
    topology: chips.Topology,
) -> estimate.Estimate:
    assert isinstance(settings, config.EvalConfig)
    refusals.check(settings, named.config, topology)
    measured = measure.answers(settings, named.config, topology) if measure else None
    found = evaluation.evaluate(settings, named.config, topology, name=named.name, price=price, measured=measured)
    if measured is None:  # else a speed by formula would stand beside one with the compiler's figures
        found = dataclasses.replace(found, answers=evaluation.fuller(settings, named.config, found))
    notes = (named.note, *models.template(named, settings.model), *found.notes)
    return judging.added(dataclasses.replace(found, notes=notes), settings)


def _works(settings: config.TrainConfig, named: models.Named) -> Callable[[config.TrainConfig, int], work.Work]:
    """Steps by (settings, row shards): from the real data where model and data are on this machine, else from assumed
    lengths."""
    missing = [
        name
        for name, source in settings.data.sources.items()
        if not source.path or not pathlib.Path(source.path).exists()
    ]
    if missing or named.outline is None:
        why = f"no data named or found for {', '.join(missing)}" if missing else "the model's tokenizer is not here"

        known: dict[tuple[str, int], work.Work] = {}

        def of_assumed(changed: config.TrainConfig, shards: int) -> work.Work:
            key = repr((changed.data, changed.optimizer, changed.run.rows, changed.seed)), shards
            if key not in known:
                found = work.from_assumption(changed, named.config, shards)
                known[key] = dataclasses.replace(found, assumed=(f"no real lengths: {why}", *found.assumed))
            return known[key]

        return of_assumed
    with progress.reading(terminal.console()) as tell:
        mixture = conversations.mixture(settings, named.outline, tell)
    chosen = choice.told(mixture.tokenization.template)

    def of_real(changed: config.TrainConfig, shards: int) -> work.Work:
        made = conversations.plan(changed, mixture, shards)
        return work.from_plan(made, conversations.updates(changed, made), ("lengths: counted in the data", chosen))

    return of_real


def topology_of(name: str) -> chips.Topology:
    """The slice of --topology.

    Raises:
      UserError: none named, or see `chips.parse`.
    """
    if not name:
        raise errors.UserError(
            f"--topology is needed: the slice to plan for, for instance {chips.EXAMPLES}; or --sweep"
        )
    return chips.parse(name)


def chip_names(names: str) -> list[str]:
    """The chips of a sweep; all where none is named.

    Raises:
      UserError: there is no such chip.
    """
    found = [name.strip().lower() for name in names.split(",") if name.strip()]
    for name in found:
        if name not in chips.known():
            raise errors.UserError(
                f"--topology={names}: with --sweep, names of chips{errors.nearest(name, chips.known())}"
            )
    return found


def write(path: str, text: str, flag: str) -> None:
    """Write a file that a flag names, under a temporary name first.

    Raises:
      UserError: the file cannot be written.
    """
    target = pathlib.Path(path)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        files.write_text(target, text)
    except OSError as e:
        raise errors.UserError(f"{flag}={path} cannot be written: {e.strerror}; choose another file") from e


def check_not_given(known: Iterable[flags.FlagHolder[Any]], launch: str) -> None:
    """Raise UserError where one of these flags, which the pricing of a launch file does not read, is given."""
    if given := [flag.name for flag in known if flag.present]:
        raise errors.UserError(
            f"--{given[0]} is not for --sweep {launch}, which takes --topology, --price and --json; leave it out"
        )

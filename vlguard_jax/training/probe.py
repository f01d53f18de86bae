r"""Evaluations of a model while it is trained: attack success, over-refusal, helpful answers on a few questions.

  c.probe.every = 25
  c.probe.evaluations = {"vlguard": config.probed(path=VLGUARD_DIR, limit=50)}
  c.run.keep_best.rate, c.run.keep_best.guard = "vlguard/unsafes/asr", "vlguard/safe_safes/refusal_rate"

Every `every` updates the engine (generation/engine.py) answers on the mesh of the training, with the weights as they
are then, in the number format of computation: it takes its own copy of the decoder, which is gone when the training
goes on. The training reads nothing of it; its losses are the same to the bit. LoRA's adapters are applied unmerged.

Each probe is one line of probe.jsonl, and WORKDIR/probe/UPDATE/NAME has the result files of each evaluation, as
`evaluate` writes them. A probe that was cut short is finished when the run is resumed, or made anew with settings that
were changed since; those of updates that are made again are made again, too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
import contextlib
import dataclasses
import datetime
import functools
import hashlib
import json
import logging
import pathlib
import re
import shutil
import time
from typing import Any

import jax

from vlguard_jax import config as settings_lib
from vlguard_jax import errors
from vlguard_jax import files
from vlguard_jax import fingerprints
from vlguard_jax import folders
from vlguard_jax import typed
from vlguard_jax import types
from vlguard_jax import workdir as workdir_lib
from vlguard_jax.checkpoints import checkpoint as checkpoint_lib
from vlguard_jax.checkpoints import store as store_lib
from vlguard_jax.families import functional
from vlguard_jax.parallel import processes
from vlguard_jax.safety import from_checkpoint
from vlguard_jax.safety import left_out
from vlguard_jax.safety import model as model_lib
from vlguard_jax.safety import probes
from vlguard_jax.safety import results
from vlguard_jax.safety import run
from vlguard_jax.training import metrics
from vlguard_jax.training import step as step_lib
from vlguard_jax.training import tracking

SHOWN = 4  # answers of each subset that trackers show: those whose ids have the smallest hashes
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")
_OF_EVALUATE = ("benchmark", "judges")  # sections that stand elsewhere in a training's config

Configs = Mapping[str, settings_lib.EvalConfig]


class Interrupted(Exception):
    """SIGTERM came between two answers."""


@dataclasses.dataclass(frozen=True)
class Prepared:
    """What was checked before the first step. configs: evaluations by name; longest: tokens of a prompt, at most."""

    configs: Configs
    longest: int


def evaluations(settings: settings_lib.TrainConfig) -> Configs:
    """What a probe evaluates, as `evaluate` would be told; empty where there are no probes."""
    probe = settings.probe
    return {
        name: settings_lib.EvalConfig(
            seed=settings.seed,
            model=settings.model,
            preset="probe",
            precision=settings_lib.EvalPrecisionSettings(settings.precision.compute),
            benchmark=one.benchmark,
            decode=probe.decode,
            judges=one.judges,
            mesh=settings.mesh,
            withhold_text=probe.withhold_text,
        )
        for name, one in (probe.evaluations.items() if probe.every else ())
    }


def check_names(settings: settings_lib.TrainConfig) -> None:
    """Check what needs neither file nor model.

    Raises:
      UserError: probes without an evaluation, a name that cannot be a folder's, unknown benchmark, subset or judge, or
        a best checkpoint without probes.
    """
    if settings.probe.every and not settings.probe.evaluations:
        raise errors.UserError(
            f"config.probe.every={settings.probe.every} and config.probe.evaluations is empty: name what to evaluate,"
            ' as {"vlguard": config.probed(path=VLGUARD_DIR, limit=50)}'
        )
    if settings.run.keep_best.rate and not settings.probe.every:
        raise errors.UserError(
            f"config.run.keep_best.rate={settings.run.keep_best.rate!r} is measured by probes, and"
            " config.probe.every=0: set after how many updates to measure it"
        )
    if settings.run.keep_best.guard and not settings.run.keep_best.rate:
        raise errors.UserError(
            f"config.run.keep_best.guard={settings.run.keep_best.guard!r} guards nothing: set config.run.keep_best.rate"
        )
    for name, one in evaluations(settings).items():
        if slow := [judge for judge in one.judges if judge in one.local_judges]:
            raise errors.UserError(
                f"config.probe.evaluations.{name}.judges: {slow[0]} is a model, for which there is no room beside"
                " the training; judge checkpoints with evaluate"
            )
        if not _NAME.fullmatch(name):
            raise errors.UserError(
                f"config.probe.evaluations: {errors.short(name)} cannot be the name of an evaluation: letters, digits,"
                " '_', '.' and '-' can"
            )
        with _named(name):
            run.check_names(one)


def check(settings: settings_lib.TrainConfig) -> None:
    """Check what needs no model: as `check_names`, and what is asked.

    Raises:
      UserError: as `check_names` and `run.check`.
    """
    check_names(settings)
    for name, one in evaluations(settings).items():
        with _named(name):
            run.check(one)


def prepare(settings: settings_lib.TrainConfig, start: checkpoint_lib.Checkpoint, *, stand_in: bool) -> Prepared:
    """Read what every probe asks, before the first step. stand_in: whether the training's pictures are stand-ins.

    Raises:
      UserError: as `check_names` and `run.evaluate`; or no evaluation yields a rate that `config.run.keep_best` names.
    """
    check_names(settings)
    longest, measures, configs = 0, [], {}
    for name, one in evaluations(settings).items():
        with _named(name):
            one = run.told(one, start.extras, _ignored)
            benchmark = dataclasses.replace(one.benchmark, stand_in=one.benchmark.stand_in or stand_in)
            configs[name] = one = dataclasses.replace(one, benchmark=benchmark)
            items, model = run.check(one), from_checkpoint.as_model(start, one)
            config = run.resolved(one, model)
            asked, _ = left_out.split(config, model, items)
            left_out.check_pictures(config, model, asked)
            longest = max(longest, *(left_out.tokens(question, model) for question in asked))
            judged = run.judging(config, [question.item for question in asked])
        measures += [(name, subset, metric, j.name) for j, of in judged for subset, metric in of.items()]
    _check_best(settings.run.keep_best, probes.names(measures))
    return Prepared(configs, longest)


def _ignored(_: str) -> None:
    """What the training has said already."""


def _check_best(settings: settings_lib.BestSettings, known: Sequence[str]) -> None:
    for field, name in (("rate", settings.rate), ("guard", settings.guard)):
        if name and name not in known:
            raise errors.UserError(
                f"config.run.keep_best.{field}={name!r} is measured by no evaluation of config.probe"
                f"{errors.nearest(name, known)}"
            )


@contextlib.contextmanager
def _named(name: str) -> Iterator[None]:
    """Name the settings of a probe in a UserError of safety/ or generation/, which know those of `evaluate`."""
    try:
        yield
    except errors.UserError as e:
        where = f"config.probe.evaluations.{name}"
        said = str(e).replace("config.decode.", "config.probe.decode.")
        for section in _OF_EVALUATE:
            said = said.replace(f"config.{section}", f"{where}.{section}")
        raise errors.UserError(said if where in said else f"{where}: {said}") from e


class _Stoppable:
    """An engine that is asked after each answer whether to go on."""

    def __init__(self, engine: model_lib.Engine, stop: Callable[[], bool]):
        self._engine, self._stop = engine, stop

    def generate(self, prompts: Iterable[types.Prompt]) -> Iterator[types.Generation]:
        """See model.Engine. Raises Interrupted."""
        with contextlib.closing(self._engine.generate(prompts)) as answers:  # type: ignore[type-var]
            for answer in answers:
                yield answer
                if self._stop():
                    raise Interrupted


class Prober:
    """Makes the probes of a run; every process calls every method.

    Args:
      settings: of the training.
      prepared: see `prepare`.
      start: the model; its parameters are not read.
      workdir: of the training.
    """

    def __init__(
        self,
        settings: settings_lib.TrainConfig,
        prepared: Prepared,
        start: checkpoint_lib.Checkpoint,
        workdir: pathlib.Path,
    ):
        self._settings, self._configs, self._start, self._workdir = settings, prepared.configs, start, workdir
        self._last = 0
        self._probes: dict[int, probes.Probe] = {}

    def go_on(self, first: int, last: int) -> None:
        """Go on after update `first` of `last`: the probes up to it stay, later ones are removed."""
        kept: list[Any] = processes.from_first(lambda: _kept(self._workdir, first))
        self._probes = {one.step: one for one in (typed.make(probes.Probe, value, probes.FILE) for value in kept)}
        self._last = last

    @property
    def best(self) -> int | None:
        """The update with the best probe so far, None where none is or `config.run.keep_best` names no rate."""
        found = self._best()
        return None if found is None else found.step

    def _best(self) -> probes.Probe | None:
        settings = self._settings.run.keep_best
        return probes.best(settings, self._probes.values()) if settings.rate else None

    def told_best(self, kept_there: bool) -> str:
        """The best update in a line. kept_there: whether its checkpoint is in the store."""
        kept, found = self._settings.run.keep_best, self._best()
        if found is None:
            ruled = f" with {kept.guard} of {100 * kept.at_most:g} % at most" if kept.guard else ""
            return f"no probe after an update has {kept.rate}{ruled}: no checkpoint is the best"
        rates = {rate.name: 100 * rate.rate for rate in found.rates}
        guard = f", {kept.guard} {rates[kept.guard]:.1f} %" if kept.guard else ""
        where = f"kept in checkpoints/{found.step}" if kept_there else "not kept: config.run.keep_best was set later"
        return f"best by {kept.rate}: update {found.step} ({rates[kept.rate]:.1f} %{guard}), {where}"

    def due(self, step: int) -> bool:
        """Whether to measure after update `step`, and not done yet."""
        probe = self._settings.probe
        if not probe.every or step in self._probes:
            return False
        at_end = probe.at_end and step == self._last
        return at_end or (step % probe.every == 0 if step else probe.at_start)

    def measure(
        self,
        state: step_lib.TrainState,
        frozen: functional.Params,
        writer: metrics.Writer,
        stopped: Callable[[], bool],
    ) -> bool:
        """Answer, judge and record; False where `stopped`, asked after each answer, cut it short.

        Raises:
          UserError: see `run.evaluate`; what was answered stays.
        """
        began, step, first = time.perf_counter(), int(state.step), jax.process_index() == 0
        model = self._model(step, state, frozen, stopped)
        rows = {}
        for name, config in self._configs.items():
            bar = functools.partial(_bar, writer, name)
            try:
                with _named(name):
                    if first:
                        _forget_another(self._folder(step, name), run.resolved(config, model))
                    rows[name] = run.evaluate(
                        config, self._folder(step, name), model, say=_say, progress=bar, team=processes.Team()
                    )
            except Interrupted:
                return False
        probe = probes.Probe(
            step,
            time.perf_counter() - began,
            model.weights_sha256,
            probes.rates(rows),
            datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        )
        self._probes[step] = probe
        writer.say(told(probe))
        writer.probed(probe, self._shown(step) if first else ())
        if first and self._settings.run.keep_best.rate:
            self._write_best()
        return True

    def _folder(self, step: int, name: str) -> pathlib.Path:
        return self._workdir / probes.FOLDER / str(step) / name

    def _model(
        self, step: int, state: step_lib.TrainState, frozen: functional.Params, stopped: Callable[[], bool]
    ) -> model_lib.Model:
        """The model as it is now; its engine is made once for all evaluations, which differ in their questions."""
        sha256 = fingerprints.of(self._start.weights_sha256, store_lib.fingerprint(state.params))
        now = dataclasses.replace(self._start, params=step_lib.join(state.params, frozen), weights_sha256=sha256)
        config = next(iter(self._configs.values()))
        config = dataclasses.replace(config, model_name=f"{self._workdir.resolve().name}, update {step}")
        model = from_checkpoint.as_model(now, config)
        engine = functools.cache(lambda: _Stoppable(model.engine(), stopped))
        return dataclasses.replace(model, engine=engine)

    def _shown(self, step: int) -> list[tracking.Answer]:
        """A few answers of each subset, the same ones in every probe."""
        found = []
        for name in self._configs:
            folder = self._folder(step, name)
            verdicts: dict[str, list[str]] = {}
            for verdict in results.Lines(folder / results.VERDICTS, results.VerdictLine, repair=False).lines:
                verdicts.setdefault(verdict.key, []).append(f"{verdict.judge}: {verdict.label}")
            lines = results.Lines(folder / results.GENERATIONS, results.GenerationLine, repair=False).lines
            for subset in dict.fromkeys(line.subset for line in lines):
                of_subset = {line.item_id: line for line in lines if line.subset == subset}
                chosen = sorted(of_subset, key=lambda id_: hashlib.sha256(id_.encode()).hexdigest())[:SHOWN]
                found += [
                    tracking.Answer(name, subset, id_, of_subset[id_].response, _told(verdicts, of_subset[id_]))
                    for id_ in chosen
                ]
        return found

    def _write_best(self) -> None:
        settings, found = self._settings.run.keep_best, self._best()
        values = {
            "schema": probes.SCHEMA,
            **dataclasses.asdict(settings),
            "of": len([step for step in self._probes if step]),
            "step": found.step if found else None,
            "rates": {rate.name: rate.rate for rate in found.rates} if found else {},
        }
        files.write_text(self._workdir / probes.BEST, json.dumps(values, indent=1) + "\n")


def _told(verdicts: Mapping[str, Sequence[str]], answer: results.GenerationLine) -> str:
    """The verdicts on an answer; "" of a subset that no judge reads."""
    return ", ".join(verdicts.get(answer.key, ()))


def told(probe: probes.Probe) -> str:
    """A probe in a line."""
    rates = ", ".join(
        f"{rate.name} {100 * rate.rate:.1f} % ({100 * rate.ci_low:.1f} to {100 * rate.ci_high:.1f})"
        for rate in probe.rates
    )
    return f"probe after update {probe.step}: {rates}; took {probe.seconds:.1f} s"


def _forget_another(folder: pathlib.Path, config: settings_lib.EvalConfig) -> None:
    """Remove what a stopped probe with other settings has left."""
    path = folder / workdir_lib.CONFIG_FILE
    if path.exists() and _fixed(files.read_object(path, finite=False)) != _fixed(workdir_lib.plain(config)):
        _say(f"{folder} was begun with other settings; it is made anew")
        folders.remove(folder)


def _fixed(config: Mapping[str, Any]) -> dict[str, Any]:
    """The settings without those that a resumed run may change, as its devices and its folder's name."""
    return {name: value for name, value in config.items() if name not in ("mesh", "model_name")}


def _bar(writer: metrics.Writer, name: str, done: int, total: int, slots: int) -> Any:
    return writer.probing(name, done, total)


def _say(notice: str) -> None:
    logging.getLogger(__name__).info(notice)


def _kept(workdir: pathlib.Path, step: int) -> list[Any]:
    """The probes up to update `step` as JSON values; those of updates that are made again are removed."""
    metrics.cut_back(workdir / probes.FILE, step)
    folder = workdir / probes.FOLDER
    for entry in folder.iterdir() if folder.is_dir() else ():
        if entry.name.isdecimal() and int(entry.name) > step:
            shutil.rmtree(entry)
    return [json.loads(json.dumps(dataclasses.asdict(probe))) for probe in probes.read(workdir)]

"""The training loop, the same for every arm (mixed, post-hoc, VLGuard only, clean; full or LoRA): only the config
differs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
import contextlib
import dataclasses
import functools
import logging
from pathlib import Path

import jax
import numpy as np
from rich import console as rich_console

from vlguard_jax import config
from vlguard_jax import escape
from vlguard_jax import progress
from vlguard_jax import terminal
from vlguard_jax import types
from vlguard_jax import workdir as workdir_lib
from vlguard_jax.checkpoints import checkpoint as checkpoint_lib
from vlguard_jax.checkpoints import place
from vlguard_jax.checkpoints import save
from vlguard_jax.checkpoints import store as store_lib
from vlguard_jax.checkpoints import vocabulary
from vlguard_jax.data import loader
from vlguard_jax.data import mixtures
from vlguard_jax.families import functional
from vlguard_jax.families.chat import choice
from vlguard_jax.parallel import mesh as mesh_lib
from vlguard_jax.parallel import processes
from vlguard_jax.training import early
from vlguard_jax.training import feed
from vlguard_jax.training import guards as guards_lib
from vlguard_jax.training import learned
from vlguard_jax.training import log as log_lib
from vlguard_jax.training import metrics
from vlguard_jax.training import optimizer
from vlguard_jax.training import probe as probe_lib
from vlguard_jax.training import probe_memory
from vlguard_jax.training import program as program_lib
from vlguard_jax.training import resume
from vlguard_jax.training import setup
from vlguard_jax.training import step as step_lib
from vlguard_jax.training import stop as stop_lib
from vlguard_jax.training import tracking
from vlguard_jax.training import tuned
from vlguard_jax.training import validation

PROBLEMS_FILE = "bad_pictures.txt"  # written in place of a run
DROPS_FILE = "skipped.jsonl"


@dataclasses.dataclass(frozen=True)
class Result:
    """How a run ended: updates done, whether it finished, the last logged metrics, and where the model was written (or
    None)."""

    step: int
    finished: bool
    metrics: dict[str, float]
    model_path: Path | None


def train(settings: config.TrainConfig, workdir: str | Path) -> Result:
    """Train from `settings` in `workdir`; a stopped run with the same config is resumed.

    Writes config.json, metrics.jsonl, tensorboard/, checkpoints/, skipped.jsonl (dropped records, if any), spikes.jsonl
    (spikes.py), probe.jsonl and probe/ (probe.py), and at the end model/ and, where another update is the best one,
    best/.

    Raises:
      UserError: anything wrong with the config, the files or the directory; too many updates are skipped (stuck.py); or
        weights do not change as they should (changes.py).
    """
    # 1. The directory belongs to one run at a time, and to one config.
    workdir = Path(workdir)
    processes.agree(workdir_lib.plain(settings))
    with processes.hold(workdir):
        return _train(settings, workdir)


def _train(settings: config.TrainConfig, workdir: Path) -> Result:
    """The rest of `train`. Nothing is written before the input is checked."""
    main = jax.process_index() == 0
    console = terminal.console(quiet=not main, soft_wrap=True)
    outcome = terminal.console(quiet=not main, soft_wrap=True, result=True)
    # 2. Model and data; every step of the run is checked before anything is computed.
    with processes.together(), progress.reading(console) as progress_of:
        workdir_lib.check(workdir, settings, free=resume.FREE_SETTINGS)
        early.check(settings)
        start = setup.load_model(settings)
        save.check(start, settings.run.export)
        data = setup.load_data(settings, start, progress_of, workdir / PROBLEMS_FILE)
        probed = probe_lib.prepare(settings, start, stand_in=data.mixture.stand_in)
    processes.agree_on_files({"weights": start.weights_sha256, **data.digests()})
    program = setup.build_program(settings, start, data.total_updates)
    with processes.together():
        probe_memory.check(settings, program, probed.longest)
        if main:
            _make_room(settings, data, workdir)
    # 3. The state, fresh or restored: of the data, only the step number is stored.
    with processes.log_file(workdir):
        _say(console, *_introduction(settings, start, data))
        start = tuned.without_trained(start)
        prober = probe_lib.Prober(settings, probed, start, workdir)
        with contextlib.closing(resume.open_store(settings, workdir, lambda: prober.best)) as store:
            digest = data.mixture.index.digest()
            state = resume.restore(settings, program, store, start, digest, workdir, lambda line: _say(console, line))
            # 4. The steps.
            meta = resume.record(settings, start, digest, stand_in=data.mixture.stand_in)
            meta["recent_losses"] = resume.recent_losses(store, int(state.step))
            state, log, told = _run(settings, data, program, state, store, workdir, meta, prober)
        done = int(state.step)
        finished = done >= data.last_update and not told
        if finished:
            applied = int(optimizer.applied(state.opt_state))
            _say(console, *learned.after(settings.optimizer, data.total_updates, done, applied, log.in_a_row))
        trained = state.params
        del state  # with the moments: the export needs their memory
        if main:  # free space may have changed even where no update was left to make
            workdir_lib.claim(workdir, settings, free=resume.FREE_SETTINGS)
        # 5. The tuned model in a layout that others read, and the best one beside it.
        path = workdir / workdir_lib.MODEL if finished and settings.run.export != "none" else None
        if path is not None:
            stand_in = data.mixture.stand_in
            whole = tuned.with_provenance(settings, start, updates=done, stand_in=stand_in)
            _say(outcome, *filter(None, [tuned.write(settings, whole, trained, path)]))
            del trained
            said, best = _best(settings, program, prober, workdir, done)
            if best is not None:
                whole = tuned.with_provenance(settings, start, updates=prober.best, stand_in=stand_in)
                said.append(tuned.write(settings, whole, best, workdir / workdir_lib.BEST))
            _say(outcome, *filter(None, said))
    return Result(done, finished, log.last, path)


def _make_room(settings: config.TrainConfig, data: setup.Data, workdir: Path) -> None:
    """Check that the tuned models can be written, and renew the lists of what is wrong in the data."""
    for name in (
        [workdir_lib.MODEL, *([workdir_lib.BEST] if settings.run.keep_best.rate else [])]
        if settings.run.export != "none"
        else []
    ):
        m = settings.model
        place.check_free(workdir / name, True, [m.path, m.base, m.vision_tower, m.projector])
    (workdir / PROBLEMS_FILE).unlink(missing_ok=True)
    (workdir / DROPS_FILE).unlink(missing_ok=True)
    if data.drops:
        mixtures.write_drops(data.drops, workdir / DROPS_FILE)


def _best(
    settings: config.TrainConfig,
    program: program_lib.Program,
    prober: probe_lib.Prober,
    workdir: Path,
    last: int,
) -> tuple[list[str], functional.Params | None]:
    """What to say of the best update, and its trained parameters; None where it is the last one, or there is none."""
    best = prober.best
    if not settings.run.keep_best.rate:
        return [], None
    with contextlib.closing(resume.open_store(settings, workdir, lambda: best)) as store:
        there = best is not None and best in store
        said = [prober.told_best(there)]
        if best is None or best == last or not there:
            return [*said, tuned.forget(workdir / workdir_lib.BEST)], None
        shapes = resume.shapes(program)
        return said, setup.from_tree(shapes, store.restore(best, setup.to_tree(shapes))).params


def _say(console: rich_console.Console, *lines: str) -> None:
    """Print on the terminal of process 0, and log in every process."""
    for line in lines:
        console.print(line)
        logging.getLogger(__name__).info(escape.line(line))


def _introduction(settings: config.TrainConfig, start: checkpoint_lib.Checkpoint, data: setup.Data) -> list[str]:
    index, drops = data.mixture.index, data.mixture.drops
    kind = f"LoRA r={settings.lora.rank}" if settings.lora.rank else "full fine-tuning"
    supervised = f"supervised tokens {100 * index.supervised_share:.1f} % of {int(index.length.sum()):,}"
    lines = [
        f"{supervised} in {len(index):,} conversations, {int(index.pictures.sum()):,} pictures"
        + (f", {len(drops)} records left out (skipped.jsonl)" if drops else ""),
        f"{kind} of {settings.model.path} ({start.layout}), {data.last_update} updates of {settings.data.batch_size}"
        f" conversations, {jax.device_count()} {jax.devices()[0].platform} device(s), {settings.precision.compute}",
    ]
    lines += [start.extras["note"]] if "note" in start.extras else []
    lines += [choice.told(data.mixture.tokenization.template), *data.mixture.notes(), *data.plan.notes()]
    max_len = data.mixture.tokenization.max_len
    if (context := vocabulary.context(start.extras)) is not None and max_len > context:
        lines.append(
            f"config.data.max_len={max_len} is beyond the model's {context:,} positions; no conversation is that long"
        )
    lines += [data.held_out.told()] if data.held_out else []
    lines += learned.before(settings.optimizer, data.total_updates, data.last_update)
    if data.mixture.stand_in:
        lines.append("STAND-IN PICTURES: drawn by `prepare --stand_in_images`; this run is a rehearsal, not a result")
    return lines


def _learning_rates(settings: config.TrainConfig, data: setup.Data) -> np.ndarray:
    factor = optimizer.cosine_factor(data.total_updates, settings.optimizer.warmup_ratio)
    return settings.optimizer.learning_rate * np.asarray(factor(np.arange(data.last_update)))


def _writer(settings: config.TrainConfig, workdir: Path, first: int, last: int) -> metrics.Writer:
    main = jax.process_index() == 0
    with processes.together():
        trackers = tracking.opened(settings, workdir, first) if main else []
        return metrics.Writer(workdir, start_step=first, total_steps=last, active=main, trackers=trackers)


def _run(
    settings: config.TrainConfig,
    data: setup.Data,
    program: program_lib.Program,
    state: step_lib.TrainState,
    store: store_lib.Store,
    workdir: Path,
    meta: resume.Record,
    prober: probe_lib.Prober,
) -> tuple[step_lib.TrainState, log_lib.Log, bool]:
    """Run updates until the last one or SIGTERM: (saved state, log, whether the signal came)."""
    first, learning_rates = int(state.step), _learning_rates(settings, data)
    claim = _claim(settings, workdir)
    prober.go_on(first, data.last_update)
    looks = (validation.Validator(settings, data, program, workdir, first), prober)
    writer = _writer(settings, workdir, first, data.last_update)
    guards = guards_lib.Guards(settings, data, program, state, learning_rates, workdir, writer.say, meta)
    saves = resume.Saves(store, meta, first, writer.say, guards.record)
    batches, done = feed.Feed(_batches(settings, data, program, first), program.mesh), first
    with writer, stop_lib.Signal() as stop, batches:
        log = log_lib.Log(writer, settings, data.last_update, claim, guards.note)

        def look(step: int) -> bool:
            """Measure what is due; whether to go on."""
            if not (due := [one for one in looks if one.due(step)]):
                return True
            log.settle()
            claim()
            if step > first:
                stop.hold()
            try:
                went_on = all(one.measure(state, program.frozen, writer, stop.seen) for one in due)
            except Exception as e:
                saves.before_the_end(e, step, state)
                raise
            if prober.best == step:
                saves.keep(step, state)
            log.rest()
            return went_on

        go_on = look(done)
        while go_on and (found := batches.take(lambda: stop.told)) is not None:
            index, batch, waited = found
            with log.starting(batch):
                state, on_device = program.step(state, program.frozen, program.reference, batch)
            finished, done = batches.watch(on_device), index + 1
            counted = _count(data, index) | {"learning_rate": float(learning_rates[index])}
            log.settle()
            if done > first + 1:
                stop.hold()
            log.follow(done, on_device, finished, counted, waited)
            guards.after(index, state, log)
            go_on = not stop.seen() and not log.stuck_at and look(done)
            if go_on and settings.run.save_every and done % settings.run.save_every == 0:
                guards.save(done, state, log, saves)
        stop.hold()
        log.conclude()
        state = guards.conclude(state, log, saves, stopped=stop.told)
    return state, log, stop.told


def _claim(settings: config.TrainConfig, workdir: Path) -> Callable[[], None]:
    """Claims the directory, in process 0."""
    if jax.process_index() != 0:
        return lambda: None
    return functools.partial(workdir_lib.claim, workdir, settings, free=resume.FREE_SETTINGS)


def _batches(
    settings: config.TrainConfig, data: setup.Data, program: program_lib.Program, first: int
) -> Iterator[tuple[int, types.Batch]]:
    return iter(
        loader.Loader(
            data.plan,
            data.mixture,
            start_step=first,
            stop_step=data.last_update,
            shards=mesh_lib.own_row_shards(program.mesh),
        )
    )


def _count(data: setup.Data, step: int) -> dict[str, float]:
    """Counted in the plan, and so over all hosts."""
    plan, index = data.plan[step], data.mixture.index
    tokens, supervised = int(index.length[plan.samples].sum()), index.supervised[plan.samples]
    of_source = np.bincount(index.source[plan.samples], supervised, len(index.source_names))
    return {
        "tokens": float(tokens),
        "supervised_tokens": float(supervised.sum()),
        "padding_share": 1.0 - tokens / (plan.shape.rows * plan.shape.row_len),
        **{f"supervised_tokens/{name}": float(n) for name, n in zip(index.source_names, of_source, strict=True) if n},
    }

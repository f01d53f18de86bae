"""The training loop, the same for every arm (mixed, post-hoc, VLGuard only, clean; full or LoRA): only the config
differs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
import contextlib
import dataclasses
import functools
import logging
from pathlib import Path
import time
from types import TracebackType
from typing import Any, TypedDict

import jax
from jax.experimental import multihost_utils
import numpy as np
from rich import console as rich_console

from vlguard_jax import config
from vlguard_jax import errors
from vlguard_jax import escape
from vlguard_jax import progress
from vlguard_jax import stopping
from vlguard_jax import terminal
from vlguard_jax import typed
from vlguard_jax import types
from vlguard_jax import workdir as workdir_lib
from vlguard_jax.checkpoints import checkpoint as checkpoint_lib
from vlguard_jax.checkpoints import place
from vlguard_jax.checkpoints import save
from vlguard_jax.checkpoints import store as store_lib
from vlguard_jax.checkpoints import vocabulary
from vlguard_jax.data import loader
from vlguard_jax.data import mixtures
from vlguard_jax.families.chat import choice
from vlguard_jax.parallel import joining
from vlguard_jax.parallel import mesh as mesh_lib
from vlguard_jax.parallel import processes
from vlguard_jax.training import feed
from vlguard_jax.training import learned
from vlguard_jax.training import metrics
from vlguard_jax.training import optimizer
from vlguard_jax.training import program as program_lib
from vlguard_jax.training import setup
from vlguard_jax.training import step as step_lib
from vlguard_jax.training import tuned

# Settings that may differ when a run is resumed: they change nothing that is computed, beyond rounding.
FREE_SETTINGS = (
    "mesh",
    "run",
    "optimizer.max_steps",
    "data.read_threads",
    "data.read_workers",
    "data.prefetch_mib",
    "data.cache",
    "data.check_pictures",
)
PROBLEMS_FILE = "bad_pictures.txt"  # written in place of a run
DROPS_FILE = "skipped.jsonl"


class Record(TypedDict):
    """What a checkpoint records about its run. base_sha256: hash of the weights that the run started from."""

    config: Mapping[str, Any]
    config_hash: typed.Name
    base_sha256: typed.Name
    stand_in: bool


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

    Writes config.json, metrics.jsonl, tensorboard/, checkpoints/, skipped.jsonl (dropped records, if any) and at the
    end model/.

    Raises:
      UserError: anything wrong with the config, the files or the directory.
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
    # 2. Model and data; every step of the run is checked before anything is computed.
    with processes.together(), progress.reading(console) as progress_of:
        workdir_lib.check(workdir, settings, free=FREE_SETTINGS)
        start = setup.load_model(settings)
        save.check(start, settings.run.export)
        data = setup.load_data(settings, start, progress_of, workdir / PROBLEMS_FILE)
    processes.agree_on_files({"weights": start.weights_sha256, "conversations": data.mixture.index.digest()})
    program = setup.build_program(settings, start, data.total_updates)
    with processes.together():
        if main:
            if settings.run.export != "none":
                m = settings.model
                place.check_free(workdir / "model", True, [m.path, m.base, m.vision_tower, m.projector])
            (workdir / PROBLEMS_FILE).unlink(missing_ok=True)
            (workdir / DROPS_FILE).unlink(missing_ok=True)
            if data.mixture.drops:
                mixtures.write_drops(data.mixture.drops, workdir / DROPS_FILE)
    # 3. The state, fresh or restored: of the data, only the step number is stored.
    with processes.log_file(workdir):
        _say(console, *_introduction(settings, start, data))
        start = tuned.without_trained(start)
        with contextlib.closing(store_lib.Store(workdir / "checkpoints", keep=settings.run.keep)) as store:
            state = _restore(settings, program, store, start, workdir, console)
            # 4. The steps.
            meta: Record = {
                "config": workdir_lib.plain(settings),
                "config_hash": workdir_lib.config_hash(settings),
                "base_sha256": start.weights_sha256,
                "stand_in": data.mixture.stand_in,
            }
            state, log, told = _run(settings, data, program, state, store, workdir, meta)
        done = int(state.step)
        finished = done >= data.last_update and not told
        if finished:
            applied = int(optimizer.applied(state.opt_state))
            _say(console, *learned.after(settings.optimizer, data.total_updates, done, applied, log.in_a_row))
        trained = state.params
        del state  # with the moments: the export needs their memory
        if main:  # free space may have changed even where no update was left to make
            workdir_lib.claim(workdir, settings, free=FREE_SETTINGS)
        # 5. The tuned model in a layout that others read.
        path = workdir / "model" if finished and settings.run.export != "none" else None
        if path is not None:
            start = tuned.with_provenance(settings, start, updates=done, stand_in=data.mixture.stand_in)
            notice = tuned.write(settings, start, trained, path)
            _say(console, *([notice] if notice else []))
    return Result(done, finished, log.last, path)


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
    lines += learned.before(settings.optimizer, data.total_updates, data.last_update)
    if data.mixture.stand_in:
        lines.append("STAND-IN PICTURES: drawn by `prepare --stand_in_images`; this run is a rehearsal, not a result")
    return lines


def _restore(
    settings: config.TrainConfig,
    program: program_lib.Program,
    store: store_lib.Store,
    start: checkpoint_lib.Checkpoint,
    workdir: Path,
    console: rich_console.Console,
) -> step_lib.TrainState:
    latest = store.latest_step()
    if latest is None:
        return program.state
    meta, where = store.read_meta(latest), f"{workdir}/checkpoints/{latest}"
    typed.check(Record, meta, where, "remove this step to go on from an older one")
    workdir_lib.compare(meta["config"], settings, where, free=FREE_SETTINGS)
    if not (workdir / workdir_lib.CONFIG_FILE).exists():
        _say(console, f"{workdir}/{workdir_lib.CONFIG_FILE} was missing; the checkpoint records the same settings")
    if (saved := meta["base_sha256"]) != start.weights_sha256:
        source = start.extras.get("source", "config.model.path")
        raise errors.UserError(
            f"{source}: its weights are not those this run started from ({saved[:12]}); put the old ones back to resume"
        )
    shapes = jax.tree.map(
        lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s), program.state, program.state_shardings
    )
    jax.tree.map(lambda x: x.delete(), program.state)  # the devices have room for one state
    restored = setup.from_tree(shapes, store.restore(latest, setup.to_tree(shapes)))
    _say(console, f"resumed after update {latest}")
    return restored


class _StopSignal:
    """Turns SIGTERM (preemption, a scheduler's time limit) into "save and exit" at the next step; with several
    processes, at the next step that none of them has begun. Before `hold` there is nothing to save, and the signal ends
    the command at once."""

    def __init__(self) -> None:
        self._alone = jax.process_count() == 1
        self._noted = stopping.Noted()
        self._told = False

    def hold(self) -> None:
        """Call after an update that would be lost."""
        if self._alone:
            self._noted.hold()
        else:  # JAX's own handler tells the other processes
            joining.hand_over_sigterm()

    def seen(self, done: int) -> bool:
        """Whether to stop after update `done`; every process must ask after every update."""
        if not self._alone:
            self._told = self._told or multihost_utils.reached_preemption_sync_point(done)
        return self.told

    @property
    def told(self) -> bool:
        """Whether the signal has come; with several processes, whether `seen` said so."""
        return self._noted.seen or self._told

    def __enter__(self) -> _StopSignal:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._noted.__exit__(kind, value, trace)
        if not self._alone:
            joining.take_sigterm()


class _Log:
    """Fetches metrics one update late, so that the devices never wait for the host.

    claim: called once the first update is done.
    """

    def __init__(
        self, writer: metrics.Writer, settings: config.TrainConfig, last_update: int, claim: Callable[[], None]
    ):
        self._writer, self._settings, self._last_update, self._claim = writer, settings, last_update, claim
        self._pending: tuple[int, step_lib.Metrics, feed.Moment, dict[str, float], float] | None = None
        self._before = time.perf_counter()  # when the previous update finished
        self._seconds = self._waited = 0.0  # over all updates but the first, which compiles
        self._compiled = False
        self.last: dict[str, float] = {}
        self.in_a_row = 0  # updates skipped since the last one that was not

    def settle(self) -> None:
        """Wait for the update that is under way and write its metrics."""
        if self._pending is None:
            return
        update, on_device, finished, counted, waited = self._pending
        self._pending = None
        seconds, self._before = finished.result() - self._before, finished.result()
        if self._compiled:
            self._seconds, self._waited = self._seconds + seconds, self._waited + waited
        else:
            self._claim()
        self._compiled = True
        clock = {
            "step_seconds": seconds,
            "tokens_per_second": counted["tokens"] / seconds,
            "input_wait": waited / seconds,
        }
        self.last = metrics.of_step(jax.device_get(on_device), counted | clock, tuple(self._settings.data.sources))
        self.in_a_row = self.in_a_row + 1 if self.last["skipped"] else 0
        if self.last["skipped"]:
            self._writer.say(f"update {update}: loss or gradient is not finite; parameters left as they were")
        if update % self._settings.run.log_every == 0 or update == self._last_update:
            self._writer.write(update, self.last)

    def follow(
        self, update: int, on_device: step_lib.Metrics, finished: feed.Moment, counted: dict[str, float], waited: float
    ) -> None:
        """Note an update that was just started, for whose batch the devices `waited` so many seconds."""
        self._pending = update, on_device, finished, counted, waited

    def conclude(self) -> None:
        """Settle, and warn if reading has kept the devices waiting."""
        self.settle()
        if self._waited > metrics.SLOW_INPUT * self._seconds:
            data = self._settings.data
            self._writer.say(
                f"the devices waited for their input {100 * self._waited / self._seconds:.0f} % of the time: raise"
                f" config.data.read_threads (now {data.read_threads}) or config.data.read_workers (now"
                f" {data.read_workers})"
            )


def _run(
    settings: config.TrainConfig,
    data: setup.Data,
    program: program_lib.Program,
    state: step_lib.TrainState,
    store: store_lib.Store,
    workdir: Path,
    meta: Record,
) -> tuple[step_lib.TrainState, _Log, bool]:
    """Run updates until the last one or SIGTERM: (saved state, log, whether the signal came)."""
    first = done = saved = int(state.step)
    factor = optimizer.cosine_factor(data.total_updates, settings.optimizer.warmup_ratio)
    learning_rates = settings.optimizer.learning_rate * np.asarray(factor(np.arange(data.last_update)))
    main = jax.process_index() == 0
    claim = functools.partial(workdir_lib.claim, workdir, settings, free=FREE_SETTINGS) if main else lambda: None
    writer = metrics.Writer(
        workdir, start_step=done, total_steps=data.last_update, tensorboard=settings.run.tensorboard, active=main
    )
    batches = feed.Feed(_batches(settings, data, program, done), program.mesh)
    with writer, _StopSignal() as stop, batches:
        log = _Log(writer, settings, data.last_update, claim)
        while (found := batches.take()) is not None:
            index, batch, waited = found
            state, on_device = program.step(state, program.frozen, program.reference, batch)
            finished, done = batches.watch(on_device), index + 1
            counted = _count(data, index) | {"learning_rate": float(learning_rates[index])}
            log.settle()
            if done > first + 1:
                stop.hold()
            log.follow(done, on_device, finished, counted, waited)
            if stop.seen(done):
                break
            if settings.run.save_every and done % settings.run.save_every == 0:
                log.settle()
                store.save(done, setup.to_tree(state), meta)
                saved = done
        stop.hold()
        log.conclude()
        if done > saved:
            store.save(done, setup.to_tree(state), meta)
        store.wait()
    return state, log, stop.told


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

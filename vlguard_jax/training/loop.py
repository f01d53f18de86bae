"""The training loop: one loop for every arm (mixed, post-hoc, VLGuard only, clean; full or LoRA); the config makes the difference."""

from __future__ import annotations

from collections.abc import Iterator
import contextlib
import dataclasses
from pathlib import Path
import signal
import time
from typing import Any

import jax
import numpy as np
from rich import console as rich_console
from rich import progress

from vlguard_jax import config
from vlguard_jax import errors
from vlguard_jax import types
from vlguard_jax import workdir as workdir_lib
from vlguard_jax.checkpoints import checkpoint as checkpoint_lib
from vlguard_jax.checkpoints import lora
from vlguard_jax.checkpoints import save
from vlguard_jax.checkpoints import store as store_lib
from vlguard_jax.data import loader
from vlguard_jax.data import mixtures
from vlguard_jax.models import llava
from vlguard_jax.parallel import mesh as mesh_lib
from vlguard_jax.training import metrics
from vlguard_jax.training import optimizer
from vlguard_jax.training import setup
from vlguard_jax.training import step as step_lib

# What may differ when a run is resumed: nothing here changes what is computed beyond rounding.
FREE_SETTINGS = ("mesh", "run", "optimizer.max_steps", "data.read_threads")


@dataclasses.dataclass(frozen=True)
class Result:
    """How a run ended: updates done, whether it finished, the last logged metrics, and where the model was written (or None)."""

    step: int
    finished: bool
    metrics: dict[str, float]
    model_path: Path | None


def train(settings: config.TrainConfig, workdir: str | Path) -> Result:
    """Train from `settings` in `workdir`; resumes by itself where a run with the same config stopped.

    Writes config.json, metrics.jsonl, tensorboard/, checkpoints/, skipped.jsonl (dropped records, if any) and at the end model/.

    Raises:
      UserError: anything wrong with the config, the files or the directory.
    """
    # 1. The directory belongs to one configuration. Nothing is written before the input has proved good.
    workdir = Path(workdir)
    workdir_lib.check(workdir, settings, free=FREE_SETTINGS)
    main = jax.process_index() == 0
    console = rich_console.Console(quiet=not main, soft_wrap=True, highlight=False)
    # 2. Model and data; every step of the run is looked at before anything is computed.
    start = setup.load_model(settings)
    with _reading_bar(console) as progress_of:
        data = setup.load_data(settings, start, progress_of)
    program = setup.build_program(settings, start, data.total_updates)
    if main:
        workdir_lib.claim(workdir, settings, free=FREE_SETTINGS)
        if data.mixture.drops:
            mixtures.write_drops(data.mixture.drops, workdir / "skipped.jsonl")
    console.print(*_introduction(settings, start, data), sep="\n", markup=False)
    # 3. The state, fresh or restored: a step number is all there is to know about the data.
    start = dataclasses.replace(start, params=_untrained(start))
    with contextlib.closing(store_lib.Store(workdir / "checkpoints", keep=settings.run.keep)) as store:
        state = _restore(program, store, start, console)
        # 4. The steps.
        meta = {
            "config": workdir_lib.plain(settings),
            "config_hash": workdir_lib.config_hash(settings),
            "base_sha256": start.weights_sha256,
            "stand_in": data.mixture.stand_in,
        }
        state, last = _run(settings, data, program, state, store, workdir, meta)
    finished = int(state.step) >= data.last_update
    # 5. The tuned model in a layout that others read.
    start = _with_provenance(settings, start, data, int(state.step))
    path = _export(settings, start, program, state, workdir / "model", console) if finished else None
    return Result(int(state.step), finished, last, path)


def _introduction(settings: config.TrainConfig, start: checkpoint_lib.Checkpoint, data: setup.Data) -> list[str]:
    index, drops = data.mixture.index, data.mixture.drops
    kind = f"LoRA r={settings.lora.rank}" if settings.lora.rank else "full fine-tuning"
    supervised = f"supervised tokens {100 * index.supervised_share:.1f} % of {int(index.length.sum()):,}"
    lines = [
        f"{supervised} in {len(index):,} conversations, {int(index.pictures.sum()):,} pictures"
        + (f", {len(drops)} records left out (skipped.jsonl)" if drops else ""),
        f"{kind} of {settings.model.path} ({start.layout}), {data.last_update} updates of {settings.data.batch_size} conversations, "
        f"{jax.device_count()} {jax.devices()[0].platform} device(s), {settings.precision.compute}",
    ]
    lines += data.mixture.notes()
    if data.mixture.stand_in:
        lines.append("STAND-IN PICTURES: drawn by `prepare --stand_in_images`; this run is a rehearsal, not a result")
    return lines


def _untrained(start: checkpoint_lib.Checkpoint) -> llava.Params:
    """What the export needs besides the state: the parameters that are not trained, as they came."""
    return step_lib.split(start.params, with_lora=start.lora is not None)[1]


def _with_provenance(
    settings: config.TrainConfig, start: checkpoint_lib.Checkpoint, data: setup.Data, updates: int
) -> checkpoint_lib.Checkpoint:
    before = start.extras.get("provenance", {})
    own = {
        "schema": 1,
        "source": settings.model.path,
        "source_sha256": start.weights_sha256,
        "config_hash": workdir_lib.config_hash(settings),
        "updates": updates,
        "stand_in": data.mixture.stand_in or bool(before.get("stand_in", False)),
    }
    return dataclasses.replace(start, extras={**start.extras, "provenance": own})


def _restore(
    program: setup.Program, store: store_lib.Store, start: checkpoint_lib.Checkpoint, console: rich_console.Console
) -> step_lib.TrainState:
    latest = store.latest_step()
    if latest is None:
        return program.state
    if (saved := store.read_meta(latest)["base_sha256"]) != start.weights_sha256:
        source = start.extras.get("source", "config.model.path")
        raise errors.UserError(f"{source}: its weights are not those this run started from ({saved[:12]}); put the old ones back to resume")
    shapes = jax.tree.map(lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s), program.state, program.state_shardings)
    restored = setup.from_tree(program.state, store.restore(latest, setup.to_tree(shapes)))
    console.print(f"resumed after update {latest}")
    return restored


class _StopSignal:
    """Turns SIGTERM (preemption, a scheduler's time limit) into "save and leave" at the next step."""

    def __init__(self) -> None:
        self.seen = False
        self._before: Any = None

    def __enter__(self) -> _StopSignal:
        with contextlib.suppress(ValueError):  # not in the main thread: the host program handles its signals
            self._before = signal.signal(signal.SIGTERM, self._note)
        return self

    def __exit__(self, *_: object) -> None:
        if self._before is not None:
            signal.signal(signal.SIGTERM, self._before)

    def _note(self, *_: object) -> None:
        self.seen = True


class _Log:
    """Fetches metrics one update late, so that the device never waits for the host."""

    def __init__(self, writer: metrics.Writer, every: int, last_update: int):
        self._writer, self._every, self._last_update = writer, every, last_update
        self._pending: tuple[int, step_lib.Metrics, dict[str, float]] | None = None
        self.last: dict[str, float] = {}

    def settle(self) -> None:
        """Wait for the update that is under way and write its metrics."""
        if self._pending is None:
            return
        update, on_device, counted = self._pending
        self._pending = None
        self.last = {name: float(value) for name, value in jax.device_get(on_device).items()} | counted
        if self.last["skipped"]:
            self._writer.say(f"update {update}: loss or gradient is not finite; parameters left as they were")
        if update % self._every == 0 or update == self._last_update:
            self._writer.write(update, self.last)

    def follow(self, update: int, on_device: step_lib.Metrics, counted: dict[str, float]) -> None:
        """Note an update that was just started."""
        self._pending = (update, on_device, counted)


def _run(
    settings: config.TrainConfig,
    data: setup.Data,
    program: setup.Program,
    state: step_lib.TrainState,
    store: store_lib.Store,
    workdir: Path,
    meta: dict[str, Any],
) -> tuple[step_lib.TrainState, dict[str, float]]:
    done = saved = int(state.step)
    factor = optimizer.cosine_factor(data.total_updates, settings.optimizer.warmup_ratio)
    main = jax.process_index() == 0
    writer = metrics.Writer(workdir, start_step=done, total_steps=data.last_update, tensorboard=settings.run.tensorboard, active=main)
    with writer, _StopSignal() as stop:
        log = _Log(writer, settings.run.log_every, data.last_update)
        began = time.perf_counter()
        for index, batch in _batches(settings, data, program, done):
            counted = _count(batch) | {"learning_rate": settings.optimizer.learning_rate * float(factor(np.int32(index)))}
            state, on_device = program.step(state, program.frozen, program.reference, _to_device(batch, program.mesh))
            done = index + 1
            log.settle()
            seconds, began = time.perf_counter() - began, time.perf_counter()
            log.follow(done, on_device, counted | {"step_seconds": seconds, "tokens_per_second": counted["tokens"] / seconds})
            if stop.seen:
                break
            if settings.run.save_every and done % settings.run.save_every == 0:
                log.settle()
                store.save(done, setup.to_tree(state), meta)
                saved = done
        log.settle()
    if done > saved:
        store.save(done, setup.to_tree(state), meta)
    return state, log.last


def _batches(settings: config.TrainConfig, data: setup.Data, program: setup.Program, first: int) -> Iterator[tuple[int, types.Batch]]:
    shards = mesh_lib.row_shards(program.mesh)
    rows = settings.run.rows or settings.data.batch_size
    if rows % shards:
        raise errors.UserError(f"config.run.rows={rows} must be a multiple of the {shards} row shards of the mesh (data x fsdp)")
    return iter(
        loader.Loader(
            data.plan,
            data.mixture,
            program.model.config.vision,
            image_mode=settings.model.image_mode,
            start_step=first,
            stop_step=data.last_update,
            rows=rows,
            host_index=jax.process_index(),
            host_count=jax.process_count(),
        )
    )


def _count(batch: types.Batch) -> dict[str, float]:
    tokens, supervised = int((batch.segment_ids > 0).sum()), int((batch.loss_weight > 0).sum())
    return {
        "tokens": float(tokens * jax.process_count()),
        "supervised_tokens": float(supervised * jax.process_count()),
        "padding_share": 1.0 - tokens / batch.segment_ids.size,
    }


def _to_device(batch: types.Batch, mesh: jax.sharding.Mesh) -> types.Batch:
    sharding = mesh_lib.row_sharding(mesh, leading=1)
    return types.Batch(*(jax.make_array_from_process_local_data(sharding, x) for x in batch))


@contextlib.contextmanager
def _reading_bar(console: rich_console.Console) -> Iterator[Any]:
    with progress.Progress(console=console, transient=True) as bar:
        task = bar.add_task("reading conversations", total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


def _export(
    settings: config.TrainConfig,
    start: checkpoint_lib.Checkpoint,
    program: setup.Program,
    state: step_lib.TrainState,
    path: Path,
    console: rich_console.Console,
) -> Path | None:
    kind = settings.run.export
    if kind == "none":
        return None
    whole = mesh_lib.replicated(program.mesh)
    trained = jax.tree.map(lambda x: np.asarray(jax.device_get(jax.jit(lambda y: y, out_shardings=whole)(x))), state.params)
    if jax.process_index() != 0:
        return path
    dtype = llava.DTYPES[settings.precision.compute]
    tuned = dataclasses.replace(start, params=step_lib.join(trained, start.params), weights_sha256="")
    writers = {"llava": save.save_llava, "hf": save.save_hf, "peft": save.save_peft}
    writers[kind](tuned if kind == "peft" else lora.merge(tuned), path, dtype, overwrite=True)
    merged = ", adapters merged" if tuned.lora and kind != "peft" else ""
    console.print(f"wrote {path} ({kind} layout{merged}); measure it: python -m vlguard_jax.evaluate --config.model.path={path} ...")
    return path

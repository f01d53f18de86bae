"""A training's checkpoints: what they record, from which one a stopped run goes on, and how each update is saved once.

A run goes on from the newest whole checkpoint. A damaged one is set aside (`checkpoints/40.broken-1`) once an older one
has been found whole; where none is, the run does not start, least of all from the beginning.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NotRequired, TypedDict

import jax

from vlguard_jax import config
from vlguard_jax import errors
from vlguard_jax import typed
from vlguard_jax import workdir as workdir_lib
from vlguard_jax.checkpoints import checkpoint as checkpoint_lib
from vlguard_jax.checkpoints import steps as steps_lib
from vlguard_jax.checkpoints import store as store_lib
from vlguard_jax.parallel import processes
from vlguard_jax.training import losses
from vlguard_jax.training import program as program_lib
from vlguard_jax.training import setup
from vlguard_jax.training import step as step_lib

FOLDER = "checkpoints"
# Settings that may differ when a run is resumed: they change nothing that is computed, beyond rounding.
FREE_SETTINGS = (
    "mesh",
    "run",
    "probe",
    "validation.every",
    "validation.at_start",
    "validation.at_end",
    "validation.sources",
    "optimizer.max_steps",
    "data.read_threads",
    "data.read_workers",
    "data.prefetch_mib",
    "data.cache",
    "data.check_pictures",
)


class Record(TypedDict):
    """What a checkpoint records about its run. base_sha256: hash of the weights that the run started from.
    data_sha256: of its conversations' names, lengths and pictures, under its chat template. loss_sha256: of the file of
    a loss of the user's own. recent_losses: see spikes.py; older checkpoints lack it."""

    config: Mapping[str, Any]
    config_hash: typed.Name
    base_sha256: typed.Name
    stand_in: bool
    data_sha256: NotRequired[typed.Name]
    loss_sha256: NotRequired[typed.Name]
    recent_losses: NotRequired[list[typed.Number]]


def open_store(settings: config.TrainConfig, workdir: Path, best: Callable[[], int | None]) -> store_lib.Store:
    """The checkpoints of a run; every process calls this. Raises UserError: see `store.Store`."""
    return store_lib.Store(workdir / FOLDER, settings.run.keep, also=best, agree=processes.first_problem)


def restore(
    settings: config.TrainConfig,
    program: program_lib.Program,
    store: store_lib.Store,
    start: checkpoint_lib.Checkpoint,
    data_sha256: str,
    workdir: Path,
    say: Callable[[str], None],
) -> step_lib.TrainState:
    """The state of the newest whole checkpoint, in place of the program's, or the program's where there is none.

    data_sha256: of the run's conversations.

    Raises:
      UserError: no checkpoint is whole, or one is of another run, another model or other conversations.
    """
    folder = workdir / FOLDER
    for notice in store.notices:
        say(notice)
    empty, broken = shapes(program), dict[int, str]()
    for step in store.steps():
        try:
            meta = store.read_meta(step)
            _check(settings, meta, f"{folder}/{step}", start, data_sha256)
            jax.tree.map(lambda x: x.delete(), program.state)  # the devices have room for one state
            state = setup.from_tree(empty, store.restore(step, setup.to_tree(empty)))
        except steps_lib.Damaged as e:
            broken[step] = str(e)
            continue
        if not (workdir / workdir_lib.CONFIG_FILE).exists():
            say(f"{workdir}/{workdir_lib.CONFIG_FILE} was missing; the checkpoint records the same settings")
        for other, why in broken.items():
            say(steps_lib.told_aside(why, folder, store.set_aside(other)))
        say(f"resumed after update {step}")
        return state
    if broken:
        raise errors.UserError(steps_lib.none_whole(next(iter(broken.values())), folder))
    if aside := store.aside():
        raise errors.UserError(
            f"{folder}: only damaged steps are left, {', '.join(aside)}: put a whole one back, or remove {folder} to"
            " start from the beginning"
        )
    return program.state


def record(
    settings: config.TrainConfig, start: checkpoint_lib.Checkpoint, data_sha256: str, *, stand_in: bool
) -> Record:
    """What every checkpoint of a run records."""
    found: Record = {
        "config": workdir_lib.plain(settings),
        "config_hash": workdir_lib.config_hash(settings),
        "base_sha256": start.weights_sha256,
        "stand_in": stand_in,
        "data_sha256": data_sha256,
    }
    if (code := losses.own(settings.loss)) is not None:
        found["loss_sha256"] = code.sha256
    return found


def recent_losses(store: store_lib.Store, step: int) -> list[float]:
    """The losses before update `step` that its checkpoint records; none where there is no such checkpoint."""
    return list(store.read_meta(step).get("recent_losses", [])) if step in store else []


def _check(
    settings: config.TrainConfig,
    meta: Mapping[str, Any],
    where: str,
    start: checkpoint_lib.Checkpoint,
    data_sha256: str,
) -> None:
    try:
        typed.check(Record, meta, "damaged record")
    except errors.UserError as e:
        raise steps_lib.Damaged(f"{where}: {e}") from e
    workdir_lib.compare(meta["config"], settings, where, free=FREE_SETTINGS)
    check_start(meta, start)
    if (code := losses.own(settings.loss)) is not None and meta.get("loss_sha256", code.sha256) != code.sha256:
        raise errors.UserError(
            f"config.loss={settings.loss!r}: {code.file} is not as it was when {where} was trained; put the old one"
            " back to resume, or choose another --workdir"
        )
    if meta.get("data_sha256", data_sha256) != data_sha256:  # checkpoints of before do not tell
        raise errors.UserError(
            f"config.data.sources: their conversations, or how the chat template reads them, are not those that {where}"
            " was trained on; put the old ones back to resume, or choose another --workdir"
        )


def check_start(meta: Mapping[str, Any], start: checkpoint_lib.Checkpoint) -> None:
    """Raise UserError unless a run with this record started from these weights."""
    if (saved := meta["base_sha256"]) != start.weights_sha256:
        source = start.extras.get("source", "config.model.path")
        raise errors.UserError(
            f"{source}: its weights are not those this run started from ({saved[:12]}); put the old ones back to resume"
        )


def shapes(program: program_lib.Program) -> step_lib.TrainState:
    """The program's state as shapes with shardings."""
    return jax.tree.map(
        lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s), program.state, program.state_shardings
    )


class Saves:
    """Saves each update once. saved: the last one that is in the store. A full disk is told by `say`, and the next save
    tries again; `wait` raises it. record: what the record says anew each time."""

    def __init__(
        self,
        store: store_lib.Store,
        meta: Record,
        saved: int,
        say: Callable[[str], None],
        record: Callable[[], Mapping[str, Any]],
    ):
        self._store, self._meta, self.saved, self._say, self._record = store, meta, saved, say, record

    def keep(self, step: int, state: step_lib.TrainState) -> None:
        """Save the state after update `step`, all of whose metrics are settled."""
        if step > self.saved:
            for line in self._store.save(step, setup.to_tree(state), {**self._meta, **self._record()}):
                self._say(line)
            self.saved = step

    def before_the_end(self, error: Exception, step: int, state: step_lib.TrainState) -> None:
        """Save the state after update `step`, behind which `error` ends the run, if all processes come here: of several
        they do so with what the user can put right."""
        if isinstance(error, errors.UserError) or jax.process_count() == 1:
            self.keep(step, state)
            self.wait()

    def wait(self) -> None:
        """Wait until the last save is on disk. Raises what it failed with."""
        self._store.wait()

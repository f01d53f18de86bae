"""Everything a run needs before its first step: model, data, plan, mesh, state."""

from __future__ import annotations

from collections.abc import Callable
import dataclasses
import math
from pathlib import Path
from typing import Any
import zlib

from flax import serialization
import jax
import numpy as np

from vlguard_jax import config
from vlguard_jax import errors
from vlguard_jax import trees
from vlguard_jax.checkpoints import checkpoint as checkpoint_lib
from vlguard_jax.checkpoints import load as load_lib
from vlguard_jax.checkpoints import outline
from vlguard_jax.data import mixtures
from vlguard_jax.data import plan as plan_lib
from vlguard_jax.families import functional
from vlguard_jax.families.blocks import configs
from vlguard_jax.families.blocks import lora
from vlguard_jax.parallel import mesh as mesh_lib
from vlguard_jax.parallel import rules
from vlguard_jax.training import conversations
from vlguard_jax.training import program as program_lib
from vlguard_jax.training import step as step_lib


@dataclasses.dataclass(frozen=True)
class HeldOut:
    """Conversations that are not trained on, and the plan of all of them once (validation.py)."""

    mixture: mixtures.Mixture
    plan: plan_lib.BatchPlan

    def told(self) -> str:
        """How many there are, in a line."""
        index, counts = self.mixture.index, np.bincount(self.mixture.index.source, minlength=len(self.mixture.sources))
        of = ", ".join(f"{name} {n:,}" for name, n in zip(index.source_names, counts, strict=True))
        tokens = f"{int(index.supervised.sum()):,} supervised tokens"
        left = f", {len(self.mixture.drops)} records left out (skipped.jsonl)" if self.mixture.drops else ""
        said = "1 conversation" if len(index) == 1 else f"{len(index):,} conversations"
        return f"held out for validation: {said} ({of}), {tokens}{left}"


@dataclasses.dataclass(frozen=True)
class Data:
    """The training data: conversations, their plan, and the number of updates of the schedule and of the run.
    held_out: None where the config measures nothing on it."""

    mixture: mixtures.Mixture
    plan: plan_lib.BatchPlan
    total_updates: int
    last_update: int
    held_out: HeldOut | None = None

    @property
    def drops(self) -> tuple[mixtures.Drop, ...]:
        """All records that were left out."""
        return self.mixture.drops + (self.held_out.mixture.drops if self.held_out else ())

    def digests(self) -> dict[str, str]:
        """What was read, of which all processes must have the same."""
        held = {"held-out conversations": self.held_out.mixture.index.digest()} if self.held_out else {}
        return {"conversations": self.mixture.index.digest(), **held}


def load_model(settings: config.TrainConfig) -> checkpoint_lib.Checkpoint:
    """The checkpoint that the run starts from, with fresh adapters if the config asks for LoRA and it has none.

    Raises:
      UserError: no checkpoint is named, it cannot be loaded, or its adapters do not match `config.lora`.
    """
    m = settings.model
    if not m.path:
        raise errors.UserError(
            "config.model.path is empty: name a checkpoint folder or hub id, e.g. --config.model.path=FOLDER"
        )
    loaded = load_lib.opened(
        m.path, base=m.base, vision_tower=m.vision_tower, projector=m.projector, as_family=m.family
    )
    if loaded.lora is not None and not settings.lora.rank:
        raise errors.UserError(
            f"{m.path} has LoRA adapters; merge them first (python -m vlguard_jax.convert) or set config.lora.rank"
        )
    if not settings.lora.rank:
        return loaded
    wanted = configs.LoraConfig(settings.lora.rank, settings.lora.alpha, settings.lora.dropout)
    if loaded.lora is not None:
        same_scale = math.isclose(loaded.lora.alpha, wanted.alpha, rel_tol=1e-5)  # of rsLoRA it is no round number
        if loaded.lora.rank != wanted.rank or not same_scale:
            raise errors.UserError(
                f"{m.path} has adapters of rank {loaded.lora.rank}, alpha {loaded.lora.alpha:g}; config.lora asks for "
                f"{wanted.rank}, {wanted.alpha:g}: set --config.lora.rank={loaded.lora.rank}"
                f" --config.lora.alpha={loaded.lora.alpha:g}"
            )
        return dataclasses.replace(loaded, lora=dataclasses.replace(loaded.lora, dropout=wanted.dropout))
    return dataclasses.replace(loaded, params=_with_adapters(loaded, wanted, settings.seed), lora=wanted)


def _with_adapters(loaded: checkpoint_lib.Checkpoint, wanted: configs.LoraConfig, seed: int) -> functional.Params:
    shapes = trees.flatten(functional.Model(loaded.config, "fp32", wanted).shapes())
    flat: dict[str, Any] = trees.flatten(loaded.params)
    for path, shape in shapes.items():
        if path.endswith(".lora_a"):
            key = jax.random.fold_in(jax.random.key(seed), zlib.crc32(path.encode()))
            flat[path] = np.asarray(lora.init_a(key, shape.shape))
        elif path.endswith(".lora_b"):
            flat[path] = np.zeros(shape.shape, np.float32)
    return trees.unflatten(flat)


def load_data(
    settings: config.TrainConfig,
    start: checkpoint_lib.Checkpoint,
    progress: Callable[[int, int], None] | None = None,
    problems_file: Path | None = None,
) -> Data:
    """Index every conversation and plan every step of the run for its devices, before anything is computed.

    `progress` and `problems_file`: see data/mixtures.py.

    Raises:
      UserError: see data/mixtures.py and data/plan.py; the mesh does not fit the devices; or no token is supervised.
    """
    shards = mesh_lib.row_shards(mesh_lib.build(settings.mesh))
    mixture = conversations.mixture(settings, outline.of(start), progress, problems_file)
    plan = conversations.plan(settings, mixture, shards)
    if not mixture.index.supervised.any():
        raise errors.UserError(
            "config.data.sources: no conversation has a supervised token, so nothing can be learned; look at"
            " their answers"
        )
    held_out = None
    if settings.validation.every:
        held = conversations.held_out(settings, outline.of(start), progress, problems_file)
        held_out = HeldOut(held, conversations.held_out_plan(settings, held, shards))
    return Data(mixture, plan, plan.total_steps, conversations.updates(settings, plan), held_out)


def build_program(
    settings: config.TrainConfig, start: checkpoint_lib.Checkpoint, total_updates: int
) -> program_lib.Program:
    """The program with its parameters on the mesh; compiles nothing yet.

    Raises:
      UserError: the mesh does not fit the devices or the model, or there is no such loss.
    """
    program = program_lib.build(settings, start.config, start.lora, mesh_lib.build(settings.mesh), total_updates)
    places = rules.shardings(start.config, start.lora, program.mesh)
    moving, fixed = step_lib.split(places, start.config, start.lora)
    trained, frozen = step_lib.split(start.params, start.config, start.lora)
    trained = rules.place(trained, moving, functional.DTYPES[settings.precision.params])
    frozen = rules.place(frozen, fixed, functional.DTYPES[settings.precision.frozen])
    reference = None
    if program.reference is not None:
        same = rules.place(trained, moving, functional.DTYPES[settings.precision.compute])
        reference = step_lib.join(same, frozen)
    init = jax.jit(lambda params: step_lib.init_state(params, program.optimizer), out_shardings=program.state_shardings)
    return dataclasses.replace(program, state=init(trained), frozen=frozen, reference=reference)


def to_tree(state: step_lib.TrainState) -> dict[str, Any]:
    """The state as nested plain dicts, its stored form."""
    return serialization.to_state_dict(state._asdict())


def from_tree(state: step_lib.TrainState, tree: dict[str, Any]) -> step_lib.TrainState:
    """The inverse of `to_tree`, with the structure of `state`."""
    return step_lib.TrainState(**serialization.from_state_dict(state._asdict(), tree))

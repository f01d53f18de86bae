"""The train step of a config on a mesh, described by shapes only: `setup` fills it with arrays, and `plan` compiles the
same program for slices that this machine does not have."""

from __future__ import annotations

from collections.abc import Callable
import dataclasses

import jax
from jax.sharding import Mesh
import optax

from vlguard_jax import config
from vlguard_jax.families import family
from vlguard_jax.families import functional
from vlguard_jax.families.blocks import configs
from vlguard_jax.families.blocks import execution as execution_lib
from vlguard_jax.parallel import attention
from vlguard_jax.parallel import mesh as mesh_lib
from vlguard_jax.parallel import rules
from vlguard_jax.training import losses
from vlguard_jax.training import optimizer
from vlguard_jax.training import step as step_lib


@dataclasses.dataclass(frozen=True)
class Program:
    """The jitted step and its inputs: trees of ShapeDtypeStruct with shardings, or of arrays so sharded.

    `reference` is None unless the loss asks for it.
    """

    model: functional.Model
    mesh: Mesh
    optimizer: optax.GradientTransformation
    step: Callable[..., tuple[step_lib.TrainState, step_lib.Metrics]]
    state: step_lib.TrainState
    frozen: functional.Params
    reference: functional.Params | None

    @property
    def state_shardings(self) -> step_lib.TrainState:
        """The sharding of each part of the state."""
        return jax.tree.map(lambda x: x.sharding, self.state)


def build(
    settings: config.TrainConfig,
    model: family.Config,
    lora: configs.LoraConfig | None,
    mesh: Mesh,
    total_updates: int,
) -> Program:
    """The program of a run of `total_updates` updates; allocates and compiles nothing.

    Raises:
      UserError: the mesh does not fit the model, or there is no such loss.
    """
    rules.check_heads(model.text, mesh)
    execution = execution_lib.Execution(
        self_attention=attention.choose(settings.run.attention, mesh, settings.precision.compute),
        remat=settings.run.remat,
        unroll=settings.run.unroll,
        constrain_rows=mesh_lib.constrain_rows(mesh),
        by_rows=mesh_lib.by_rows(mesh),
        put_pictures=mesh_lib.put_own_pictures(mesh),
    )
    made = functional.Model(model, settings.precision.compute, lora, execution)
    loss = losses.get(settings.loss)
    shapes = made.shapes()
    places = rules.shardings(model, lora, mesh)
    (trained, frozen), (moving, fixed) = (step_lib.split(tree, model, lora) for tree in (shapes, places))
    trained = rules.abstract(trained, moving, functional.DTYPES[settings.precision.params])
    frozen = rules.abstract(frozen, fixed, functional.DTYPES[settings.precision.frozen])
    reference = None
    if getattr(loss, "needs_reference", False):
        reference = step_lib.join(
            rules.abstract(trained, moving, functional.DTYPES[settings.precision.compute]), frozen
        )
    tx = optimizer.build(settings.optimizer, total_updates)
    state = _state(trained, tx, mesh)
    function = step_lib.build(
        made,
        loss,
        tx,
        seed=settings.seed,
        loss_args=dict(settings.loss_args),
        loss_chunk=settings.run.loss_chunk,
        sources=len(settings.data.sources),
        places=jax.tree.map(lambda x: x.sharding, state.params),
    )
    outputs = (jax.tree.map(lambda x: x.sharding, state), mesh_lib.replicated(mesh))
    step = jax.jit(function, donate_argnums=0, out_shardings=outputs)
    return Program(made, mesh, tx, step, state, frozen, reference)


def _state(trained: functional.Params, tx: optax.GradientTransformation, mesh: Mesh) -> step_lib.TrainState:
    """The whole state; moments are sharded like their parameters."""
    shapes = jax.eval_shape(lambda params: step_lib.init_state(params, tx), trained)
    whole = mesh_lib.replicated(mesh)
    places = jax.tree.map(lambda x: x.sharding, trained)
    moments = optax.tree_map_params(tx, lambda _, s: s, shapes.opt_state, places, transform_non_params=lambda _: whole)
    shardings = step_lib.TrainState(whole, places, moments)
    return jax.tree.map(lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s), shapes, shardings)

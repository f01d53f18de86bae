"""The train step of a config on a mesh, in shapes alone: what `setup` fills with arrays, and what `plan` compiles for
slices that nobody here owns, is one and the same program."""

from __future__ import annotations

from collections.abc import Callable
import dataclasses

import jax
import jax.numpy as jnp
from jax.sharding import Mesh
from jax.sharding import NamedSharding
import optax

from vlguard_jax import config
from vlguard_jax import types
from vlguard_jax.models import config as model_config
from vlguard_jax.models import llama
from vlguard_jax.models import llava
from vlguard_jax.parallel import attention
from vlguard_jax.parallel import mesh as mesh_lib
from vlguard_jax.parallel import rules
from vlguard_jax.training import losses
from vlguard_jax.training import optimizer
from vlguard_jax.training import step as step_lib


@dataclasses.dataclass(frozen=True)
class Program:
    """The jitted step and what it works on: trees of ShapeDtypeStruct with shardings, or of arrays there.

    `reference` is None unless
    the loss asks for it."""

    model: llava.Functional
    mesh: Mesh
    optimizer: optax.GradientTransformation
    step: Callable[..., tuple[step_lib.TrainState, step_lib.Metrics]]
    state: step_lib.TrainState
    frozen: llava.Params
    reference: llava.Params | None

    @property
    def state_shardings(self) -> step_lib.TrainState:
        """Where each part of the state lies."""
        return jax.tree.map(lambda x: x.sharding, self.state)


def build(
    settings: config.TrainConfig,
    model: model_config.LlavaConfig,
    lora: model_config.LoraConfig | None,
    mesh: Mesh,
    total_updates: int,
) -> Program:
    """The program of a run of `total_updates` updates; allocates and compiles nothing.

    Raises:
      UserError: the mesh does not fit the model, or there is no such loss.
    """
    rules.check_heads(model.text, mesh)
    execution = llama.Execution(
        self_attention=attention.choose(settings.run.attention, mesh, settings.precision.compute),
        remat=settings.run.remat,
        unroll=settings.run.unroll,
        rows=mesh_lib.constrain_rows(mesh),
        by_rows=mesh_lib.by_rows(mesh),
        put_pictures=mesh_lib.put_own_pictures(mesh),
    )
    functional = llava.Functional(model, settings.precision.compute, lora, execution)
    loss = losses.get(settings.loss)
    trained, frozen = step_lib.split(functional.shapes(), with_lora=lora is not None)
    trained = rules.abstract(trained, mesh, llava.DTYPES[settings.precision.params])
    frozen = rules.abstract(frozen, mesh, llava.DTYPES[settings.precision.frozen])
    reference = None
    if getattr(loss, "needs_reference", False):
        reference = step_lib.join(rules.abstract(trained, mesh, llava.DTYPES[settings.precision.compute]), frozen)
    tx = optimizer.build(settings.optimizer, total_updates)
    state = _state(trained, tx, mesh)
    function = step_lib.build(
        functional,
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
    return Program(functional, mesh, tx, step, state, frozen, reference)


def _state(trained: llava.Params, tx: optax.GradientTransformation, mesh: Mesh) -> step_lib.TrainState:
    """The whole state; moments lie where their parameters lie."""
    shapes = jax.eval_shape(lambda params: step_lib.init_state(params, tx), trained)
    whole = mesh_lib.replicated(mesh)
    places = jax.tree.map(lambda x: x.sharding, trained)
    moments = optax.tree_map_params(tx, lambda _, s: s, shapes.opt_state, places, transform_non_params=lambda _: whole)
    shardings = step_lib.TrainState(whole, places, moments)
    return jax.tree.map(lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s), shapes, shardings)


def batch_shapes(mesh: Mesh, micro: int, rows: int, row_len: int, pictures: int, image_size: int) -> types.Batch:
    """What the step reads, in shapes: `micro` programs of `rows` rows of `row_len` tokens and `pictures` pictures
    each."""
    place: NamedSharding = mesh_lib.row_sharding(mesh, leading=1)

    def of(shape: tuple[int, ...], dtype: jnp.dtype | type) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(shape, dtype, sharding=place)

    tokens, weights = of((micro, rows, row_len), jnp.int32), of((micro, rows, row_len), jnp.float32)
    images = of((micro, pictures, image_size, image_size, 3), jnp.uint8)
    return types.Batch(tokens, tokens, weights, tokens, tokens, images, tokens, tokens)

"""The programs of an evaluation on a mesh, described by shapes only: the engine fills `admit` and `run` with arrays;
`plan` compiles `admit` and a step of `run`, for slices that this machine does not have."""

from __future__ import annotations

from collections.abc import Callable
import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec

from vlguard_jax.families import family
from vlguard_jax.families import functional
from vlguard_jax.families.blocks import configs
from vlguard_jax.families.blocks import decoder
from vlguard_jax.families.blocks import execution as execution_lib
from vlguard_jax.generation import slots as slots_lib
from vlguard_jax.generation import weights
from vlguard_jax.parallel import attention
from vlguard_jax.parallel import mesh as mesh_lib
from vlguard_jax.parallel import rules
from vlguard_jax.parallel import shapes


@dataclasses.dataclass(frozen=True)
class Program:
    """Jitted functions and their inputs. `params`: split weights (weights.py), ShapeDtypeStructs with shardings.

    empty: (rows, length of the cache) -> free slots. admit, run, release: as in slots.py, without the model; the slots
    are donated. decode, a step alone, for `plan`: (params, token i32[B], position i32[B], place in the cache i32[B],
    cache) -> logits and the cache, which is donated.
    """

    mesh: Mesh
    max_new: int
    draws: bool
    params: functional.Params
    config: family.Config
    empty: Callable[[int, int], slots_lib.Slots]
    admit: Callable[..., slots_lib.Slots]
    run: Callable[..., tuple[slots_lib.Slots, slots_lib.Status]]
    release: Callable[[slots_lib.Slots, jax.Array], slots_lib.Slots]
    decode: Callable[..., tuple[jax.Array, decoder.Cache]]


@functools.lru_cache(maxsize=8)
def build(
    config: family.Config,
    lora: configs.LoraConfig | None,
    compute: str,
    mesh: Mesh,
    *,
    max_new: int,
    draws: bool = False,
) -> Program:
    """The programs of a model in one precision, for answers of up to `max_new` tokens, which are all greedy unless
    `draws`; allocates and compiles nothing.

    Engines that differ only in their weights share one.

    Raises:
      UserError: the mesh does not fit the model.
    """
    rules.check_heads(config.text, mesh)
    # On GPUs the answers were compared with the reference's using `xla`, whose scores for one prompt per row are small.
    kernel = "auto" if mesh.devices.flat[0].platform == "tpu" else "xla"
    execution = execution_lib.Execution(
        self_attention=attention.choose(kernel, mesh, compute),
        constrain_rows=mesh_lib.constrain_rows(mesh),
        by_rows=mesh_lib.by_rows(mesh),
        put_pictures=mesh_lib.put_own_pictures(mesh),
        gathered=mesh.shape["fsdp"] > 1,
    )
    model = functional.Model(config, compute, lora, execution)

    def empty(rows: int, length: int) -> slots_lib.Slots:
        one = jnp.zeros((rows, config.text.num_kv_heads, length, config.text.head_width), model.dtype)
        return slots_lib.empty(rows, max_new, (decoder.LayerCache(one, one),) * config.text.num_layers, draws)

    rows, cache, everywhere = mesh_lib.row_sharding(mesh), _cache_sharding(mesh), mesh_lib.replicated(mesh)
    free = jax.eval_shape(lambda: slots_lib.empty(1, max_new, (), draws))
    places = jax.tree.map(lambda _: rows, free)._replace(cache=cache)
    return Program(
        mesh=mesh,
        max_new=max_new,
        draws=draws,
        params=weights.abstract(model, mesh),
        config=config,
        empty=jax.jit(empty, static_argnums=(0, 1), out_shardings=places),
        admit=jax.jit(functools.partial(slots_lib.admit, model), donate_argnums=1, out_shardings=places),
        run=jax.jit(functools.partial(slots_lib.run, model), donate_argnums=1, out_shardings=(places, everywhere)),
        release=jax.jit(slots_lib.release, donate_argnums=0, out_shardings=places),
        decode=jax.jit(model.decode, donate_argnums=4, out_shardings=(rows, cache)),
    )


def _cache_sharding(mesh: Mesh) -> NamedSharding:
    """Of every layer's [B, K, S, E]: rows over data and fsdp, heads over tensor."""
    return NamedSharding(mesh, PartitionSpec(mesh_lib.ROW_AXES, "tensor", None, None))


def admit_shapes(
    program: Program, rows: int, prompt: int, room: family.Room, slots: int, length: int
) -> tuple[Any, ...]:
    """Shapes of the inputs of `admit` besides the parameters: `rows` prompts of `prompt` tokens for some of `slots`
    slots with a cache of `length`. room: for pictures, in one row shard."""
    row, seed = _row(program, (rows,)), _row(program, (rows, 2), jnp.uint32)
    limits = slot_shapes(program, rows, 1).limits._replace(seed=seed)
    return (
        slot_shapes(program, slots, length),
        shapes.batch(program.config, program.mesh, rows, prompt, room),
        row,
        row,
        limits,
        row,
    )


def slot_shapes(program: Program, slots: int, length: int) -> slots_lib.Slots:
    """Shapes of `slots` slots with a cache of `length`."""
    free = jax.eval_shape(lambda: slots_lib.empty(slots, program.max_new, (), program.draws))
    placed = jax.tree.map(lambda x: _row(program, x.shape, x.dtype), free)
    return placed._replace(cache=decode_shapes(program, slots, length)[1])


def decode_shapes(program: Program, slots: int, length: int) -> tuple[jax.ShapeDtypeStruct, decoder.Cache]:
    """Shapes of the inputs of `decode` besides the parameters: one number per slot (token, position, place) and a
    cache of `length`."""
    text = program.config.text
    shape = (slots, text.num_kv_heads, length, text.head_width)
    dtype = jax.tree.leaves(program.params)[0].dtype
    kept = jax.ShapeDtypeStruct(shape, dtype, sharding=_cache_sharding(program.mesh))
    return _row(program, (slots,)), (decoder.LayerCache(kept, kept),) * text.num_layers


def _row(program: Program, shape: tuple[int, ...], dtype: Any = jnp.int32) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(shape, dtype, sharding=mesh_lib.row_sharding(program.mesh))

"""The programs of an evaluation on a mesh, described by shapes only: the engine fills them with arrays; `plan` compiles
them for slices that this machine does not have."""

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

from vlguard_jax.data import batches
from vlguard_jax.families import family
from vlguard_jax.families import functional
from vlguard_jax.families.blocks import cache as cache_lib
from vlguard_jax.families.blocks import configs
from vlguard_jax.families.blocks import execution as execution_lib
from vlguard_jax.generation import prefixes
from vlguard_jax.generation import slots as slots_lib
from vlguard_jax.generation import weights
from vlguard_jax.parallel import attention
from vlguard_jax.parallel import mesh as mesh_lib
from vlguard_jax.parallel import rules


@dataclasses.dataclass(frozen=True)
class Program:
    """Jitted functions and their inputs. `params`: split weights (weights.py), ShapeDtypeStructs with shardings.
    kv_bytes: of a number in the cache.

    empty: (rows, length of the cache) -> free slots. admit, run, release, narrow: as in slots.py, without the model;
    the slots are donated, but for `narrow`. see, keep, score: as in prefixes.py; what is kept is donated, but for
    `score`. nothing: (rows of features, prefixes, their length) -> what is kept at first. decode, a step alone, for
    `plan`: (params, token i32[B], position i32[B], place in the cache i32[B], cache) -> logits and the cache, which is
    donated. Rows are counted over the whole mesh.
    """

    mesh: Mesh
    max_new: int
    draws: bool
    kv_bytes: int
    params: functional.Params
    config: family.Config
    empty: Callable[[int, int], slots_lib.Slots]
    nothing: Callable[[int, int, int], prefixes.Kept]
    see: Callable[..., jax.Array]
    keep: Callable[..., prefixes.Kept]
    admit: Callable[..., slots_lib.Slots]
    run: Callable[..., tuple[slots_lib.Slots, slots_lib.Status]]
    release: Callable[[slots_lib.Slots, jax.Array], slots_lib.Slots]
    narrow: Callable[[slots_lib.Slots, jax.Array], slots_lib.Slots]
    score: Callable[..., jax.Array]
    decode: Callable[..., tuple[jax.Array, cache_lib.Cache]]


@functools.lru_cache(maxsize=8)
def build(
    config: family.Config,
    lora: configs.LoraConfig | None,
    compute: str,
    mesh: Mesh,
    *,
    max_new: int,
    draws: bool = False,
    int8: bool = False,
) -> Program:
    """The programs of a model in one precision, for answers of up to `max_new` tokens, which are all greedy unless
    `draws`; allocates and compiles nothing. int8: the format of the cache.

    Engines that differ only in their weights share one.

    Raises:
      UserError: the mesh does not fit the model.
    """
    model = functional.Model(config, compute, lora, _execution(config, compute, mesh))

    def cache(rows: int, length: int) -> cache_lib.Cache:
        return cache_lib.empty(config.text, rows, length, model.dtype, int8=int8)

    def empty(rows: int, length: int) -> slots_lib.Slots:
        return slots_lib.empty(rows, max_new, cache(rows, length), draws)

    def nothing(features: int, rows: int, length: int) -> prefixes.Kept:
        return prefixes.Kept(jnp.zeros((features, config.text.width), model.dtype), cache(rows, length))

    rows, cached, everywhere = mesh_lib.row_sharding(mesh), _cache_sharding(mesh), mesh_lib.replicated(mesh)
    free = jax.eval_shape(lambda: slots_lib.empty(1, max_new, (), draws))
    places = jax.tree.map(lambda _: rows, free)._replace(cache=cached)
    kept = prefixes.Kept(rows, cached)

    options = _options(compute, mesh)

    def of_model(function: Callable[..., Any], donated: int | None, out: Any) -> Any:
        donate, given = () if donated is None else (donated,), functools.partial(function, model)
        return jax.jit(given, donate_argnums=donate, out_shardings=out, compiler_options=options)

    return Program(
        mesh=mesh,
        max_new=max_new,
        draws=draws,
        kv_bytes=1 if int8 else model.dtype.itemsize,
        params=weights.abstract(model, mesh),
        config=config,
        empty=jax.jit(empty, static_argnums=(0, 1), out_shardings=places),
        nothing=jax.jit(nothing, static_argnums=(0, 1, 2), out_shardings=kept),
        see=of_model(prefixes.see, 1, rows),
        keep=of_model(prefixes.keep, 1, kept),
        admit=of_model(slots_lib.admit, 1, places),
        run=of_model(slots_lib.run, 1, (places, everywhere)),
        release=jax.jit(slots_lib.release, donate_argnums=0, out_shardings=places),
        narrow=jax.jit(functools.partial(slots_lib.narrow, model), out_shardings=places),
        score=of_model(functools.partial(prefixes.score, int8=int8), None, everywhere),
        decode=jax.jit(model.decode, donate_argnums=4, out_shardings=(rows, cached), compiler_options=options),
    )


def _options(compute: str, mesh: Mesh) -> dict[str, str] | None:
    """Options of XLA. On a CPU it computes products of bf16 and fp16 in fp32 and, unless told otherwise, holds fp32
    copies of all weights at once, in the programs' schedule and before a loop: 26 GB for a 7B model in place of 0.5."""
    if compute == "fp32" or mesh.devices.flat[0].platform != "cpu":
        return None
    return {
        "xla_cpu_scheduler_type": "CPU_SCHEDULER_TYPE_MEMORY_OPTIMIZED",
        "xla_disable_hlo_passes": "while-loop-invariant-code-motion,while-loop-expensive-invariant-code-motion",
    }


def _execution(config: family.Config, compute: str, mesh: Mesh) -> execution_lib.Execution:
    rules.check_heads(config.text, mesh)
    # On GPUs the answers were compared with the reference's using `xla`, whose scores for one prompt per row are small.
    kernel = "auto" if mesh.devices.flat[0].platform == "tpu" else "xla"
    return execution_lib.Execution(
        self_attention=attention.choose(kernel, mesh, compute),
        constrain_rows=mesh_lib.constrain_rows(mesh),
        by_rows=mesh_lib.by_rows(mesh),
        put_pictures=mesh_lib.put_own_pictures(mesh),
        gathered=mesh.shape["fsdp"] > 1,
    )


def _cache_sharding(mesh: Mesh) -> NamedSharding:
    """Of every layer's [B, K, S, ...]: rows over data and fsdp, heads over tensor."""
    return NamedSharding(mesh, PartitionSpec(mesh_lib.ROW_AXES, "tensor"))


def slot_shapes(program: Program, slots: int, length: int) -> slots_lib.Slots:
    """Shapes of `slots` slots with a cache of `length`."""
    return _shapes(program, jax.eval_shape(lambda: program.empty(slots, length)))


def decode_shapes(program: Program, slots: int, length: int) -> tuple[jax.ShapeDtypeStruct, cache_lib.Cache]:
    """Shapes of the inputs of `decode` besides the parameters: one number per slot (token, position, place) and a
    cache of `length`."""
    return _row(program, (slots,)), slot_shapes(program, slots, length).cache


def kept_shapes(program: Program, features: int, rows: int, length: int) -> prefixes.Kept:
    """Shapes of what is kept: `features` rows of them, and `rows` prefixes of `length`."""
    return _shapes(program, jax.eval_shape(lambda: program.nothing(features, rows, length)))


def picture_shapes(program: Program, room: family.Room) -> tuple[dict[str, jax.ShapeDtypeStruct], Any]:
    """Shapes of a picture in each row shard, and of the rows for its features. room: that one takes."""
    shards = mesh_lib.row_shards(program.mesh)
    pictures = {
        name: _row(program, (shards * one.shape[0], *one.shape[1:]), one.dtype)
        for name, one in batches.pooled(program.config, (), room).items()
    }
    return pictures, _row(program, (shards * room.slots,))


def prefix_shapes(program: Program, rows: int, tokens: int) -> prefixes.Prefixes:
    """Shapes of `rows` prefixes of `tokens` tokens."""
    row, text = _row(program, (rows,)), _row(program, (rows, tokens))
    return prefixes.Prefixes(text, text, row, text, row)


def rest_shapes(program: Program, rows: int, tokens: int) -> prefixes.Rests:
    """Shapes of `rows` prompts of which `tokens` tokens follow the prefix."""
    row, text = _row(program, (rows,)), _row(program, (rows, tokens))
    return prefixes.Rests(text, text, row, row, row, text)


def prompt_shapes(program: Program, rows: int, tokens: int) -> slots_lib.Prompts:
    """Shapes of `rows` prompts for slots, of which `tokens` tokens follow the prefix."""
    row, seed = _row(program, (rows,)), _row(program, (rows, 2), jnp.uint32)
    limits = slot_shapes(program, rows, 1).limits._replace(seed=seed)
    return slots_lib.Prompts(rest_shapes(program, rows, tokens), row, limits, row)


def _shapes(program: Program, tree: Any) -> Any:
    """Shapes with their shardings: a cache's [B, K, S, ...], which are alone in having three dimensions, and rows."""
    cached, rows = _cache_sharding(program.mesh), mesh_lib.row_sharding(program.mesh)

    def of(x: jax.ShapeDtypeStruct) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=cached if x.ndim > 2 else rows)

    return jax.tree.map(of, tree)


def _row(program: Program, shape: tuple[int, ...], dtype: Any = jnp.int32) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(shape, dtype, sharding=mesh_lib.row_sharding(program.mesh))

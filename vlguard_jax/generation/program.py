"""The programs of an evaluation on a mesh, described by shapes only: the engine fills `answer` with arrays; `plan`
compiles prefill and decode separately, for slices that this machine does not have."""

from __future__ import annotations

from collections.abc import Callable
import dataclasses
import functools

import jax
import jax.numpy as jnp
from jax.sharding import Mesh
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec

from vlguard_jax import types
from vlguard_jax.families import family
from vlguard_jax.families import functional
from vlguard_jax.families.blocks import configs
from vlguard_jax.families.blocks import decoder
from vlguard_jax.families.blocks import execution as execution_lib
from vlguard_jax.generation import sampler
from vlguard_jax.generation import weights
from vlguard_jax.parallel import attention
from vlguard_jax.parallel import mesh as mesh_lib
from vlguard_jax.parallel import rules
from vlguard_jax.parallel import shapes


@dataclasses.dataclass(frozen=True)
class Program:
    """Jitted functions and their inputs. `params`: split weights (weights.py), ShapeDtypeStructs with shardings.

    answer: (params, batch, last, follows) -> Answers, all that the engine runs (sampler.py). prefill: (params, batch,
    last) -> logits and a KV cache with room for the answers. decode: (params, token i32[B], position i32[B], slot in
    the cache i32[B], cache) -> logits and the cache, which is donated.
    """

    mesh: Mesh
    max_new: int
    params: functional.Params
    config: family.Config
    answer: Callable[[functional.Params, types.Batch, jax.Array, jax.Array], sampler.Answers]
    prefill: Callable[[functional.Params, types.Batch, jax.Array], tuple[jax.Array, decoder.Cache]]
    decode: Callable[..., tuple[jax.Array, decoder.Cache]]


@functools.lru_cache(maxsize=8)
def build(
    config: family.Config,
    lora: configs.LoraConfig | None,
    compute: str,
    mesh: Mesh,
    *,
    max_new: int,
    min_new: int,
    stop_ids: tuple[int, ...],
    pad_id: int,
) -> Program:
    """The programs of a model in one precision; allocates and compiles nothing.

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
    )
    model = functional.Model(config, compute, lora, execution)

    def answer(params: functional.Params, batch: types.Batch, last: jax.Array, follows: jax.Array) -> sampler.Answers:
        stop = jnp.asarray(stop_ids, jnp.int32)
        return sampler.greedy(
            model, params, batch, last, follows, stop, max_new=max_new, min_new=min_new, pad_id=pad_id
        )

    def prefill(params: functional.Params, batch: types.Batch, last: jax.Array) -> tuple[jax.Array, decoder.Cache]:
        return model.prefill(params, batch, jnp.maximum(last, 0), batch.tokens.shape[1] + max_new)

    outputs = (mesh_lib.row_sharding(mesh), _cache_sharding(mesh))
    return Program(
        mesh=mesh,
        max_new=max_new,
        params=weights.abstract(model, mesh),
        config=config,
        answer=jax.jit(answer, out_shardings=mesh_lib.replicated(mesh)),
        prefill=jax.jit(prefill, out_shardings=outputs),
        decode=jax.jit(model.decode, donate_argnums=4, out_shardings=outputs),
    )


def _cache_sharding(mesh: Mesh) -> NamedSharding:
    """Of every layer's [B, K, S, E]: rows over data and fsdp, heads over tensor."""
    return NamedSharding(mesh, PartitionSpec(mesh_lib.ROW_AXES, "tensor", None, None))


def prompt_shapes(
    program: Program, rows: int, prompt: int, room: family.Room
) -> tuple[types.Batch, jax.ShapeDtypeStruct]:
    """Shapes of the inputs of `answer` and `prefill` besides the parameters: `rows` prompts of `prompt` tokens. room:
    of one row shard."""
    last = jax.ShapeDtypeStruct((rows,), jnp.int32, sharding=mesh_lib.row_sharding(program.mesh))
    return shapes.batch(program.config, program.mesh, rows, prompt, room), last


def decode_shapes(program: Program, rows: int, prompt: int) -> tuple[jax.ShapeDtypeStruct, decoder.Cache]:
    """Shapes of the inputs of `decode` besides the parameters: one number per row (token, position, slot), and the
    cache."""
    text, place = program.config.text, mesh_lib.row_sharding(program.mesh)
    row = jax.ShapeDtypeStruct((rows,), jnp.int32, sharding=place)
    shape = (rows, text.num_kv_heads, prompt + program.max_new, text.head_width)
    dtype = jax.tree.leaves(program.params)[0].dtype
    kept = jax.ShapeDtypeStruct(shape, dtype, sharding=_cache_sharding(program.mesh))
    return row, (decoder.LayerCache(kept, kept),) * text.num_layers

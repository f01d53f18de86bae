"""The programs of an evaluation on a mesh, in shapes alone: the engine fills `answer` with arrays, `plan` compiles it,
and prefill and decode apart, for slices that nobody here owns."""

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
from vlguard_jax.generation import sampler
from vlguard_jax.models import config as model_config
from vlguard_jax.models import llama
from vlguard_jax.models import llava
from vlguard_jax.parallel import attention
from vlguard_jax.parallel import mesh as mesh_lib
from vlguard_jax.parallel import rules


@dataclasses.dataclass(frozen=True)
class Program:
    """Jitted functions and what they work on. `params` is a tree of ShapeDtypeStruct with shardings.

    answer: (params, batch, last) -> Answers, all that the engine runs. prefill: the same arguments -> logits and a
    cache with room for the answers. decode: (params, token i32[B], position i32[B], cache) -> logits and the cache,
    which is donated.
    """

    mesh: Mesh
    max_new: int
    params: llava.Params
    config: model_config.LlavaConfig
    answer: Callable[[llava.Params, types.Batch, jax.Array], sampler.Answers]
    prefill: Callable[[llava.Params, types.Batch, jax.Array], tuple[jax.Array, llama.Cache]]
    decode: Callable[[llava.Params, jax.Array, jax.Array, llama.Cache], tuple[jax.Array, llama.Cache]]


@functools.lru_cache(maxsize=8)
def build(
    config: model_config.LlavaConfig,
    lora: model_config.LoraConfig | None,
    compute: str,
    mesh: Mesh,
    *,
    max_new: int,
    min_new: int,
    stop_ids: tuple[int, ...],
    pad_id: int,
) -> Program:
    """The programs of a model in one precision; allocates and compiles nothing.

    Engines that differ in nothing but their weights share one.

    Raises:
      UserError: the mesh does not fit the model.
    """
    rules.check_heads(config.text, mesh)
    # On GPUs the answers were compared with the reference's by `xla`, whose scores of one prompt a row are small.
    kernel = "auto" if mesh.devices.flat[0].platform == "tpu" else "xla"
    execution = llama.Execution(
        self_attention=attention.choose(kernel, mesh, compute), rows=mesh_lib.constrain_rows(mesh)
    )
    model = llava.Functional(config, compute, lora, execution)

    def answer(params: llava.Params, batch: types.Batch, last: jax.Array) -> sampler.Answers:
        stop = jnp.asarray(stop_ids, jnp.int32)
        return sampler.greedy(model, params, batch, last, stop, max_new=max_new, min_new=min_new, pad_id=pad_id)

    def prefill(params: llava.Params, batch: types.Batch, last: jax.Array) -> tuple[jax.Array, llama.Cache]:
        return model.prefill(params, batch, jnp.maximum(last, 0), batch.tokens.shape[1] + max_new)

    placed = _cache_sharding(mesh)
    outputs = (mesh_lib.row_sharding(mesh), llama.Cache(placed, placed))
    return Program(
        mesh=mesh,
        max_new=max_new,
        params=rules.abstract(model.shapes(), mesh, model.dtype),
        config=config,
        answer=jax.jit(answer, out_shardings=mesh_lib.replicated(mesh)),
        prefill=jax.jit(prefill, out_shardings=outputs),
        decode=jax.jit(model.decode, donate_argnums=3, out_shardings=outputs),
    )


def _cache_sharding(mesh: Mesh) -> NamedSharding:
    """[L, B, S, K, E]: rows over data and fsdp, heads over tensor."""
    return NamedSharding(mesh, PartitionSpec(None, mesh_lib.ROW_AXES, None, "tensor", None))


def prompt_shapes(program: Program, rows: int, prompt: int, pictures: int) -> tuple[types.Batch, jax.ShapeDtypeStruct]:
    """What `answer` and `prefill` read besides the parameters, in shapes: `rows` prompts of `prompt` tokens, `pictures`
    in all."""
    place = mesh_lib.row_sharding(program.mesh)
    side = program.config.vision.image_size if program.config.vision else 1

    def of(shape: tuple[int, ...], dtype: jnp.dtype | type) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(shape, dtype, sharding=place)

    tokens, weights = of((rows, prompt), jnp.int32), of((rows, prompt), jnp.float32)
    batch = types.Batch(
        tokens, tokens, weights, tokens, tokens, of((pictures, side, side, 3), jnp.uint8), tokens, tokens
    )
    return batch, of((rows,), jnp.int32)


def decode_shapes(
    program: Program, rows: int, prompt: int
) -> tuple[jax.ShapeDtypeStruct, jax.ShapeDtypeStruct, llama.Cache]:
    """What `decode` reads besides the parameters, in shapes: one token and its position a row, and the cache."""
    text, place = program.config.text, mesh_lib.row_sharding(program.mesh)
    row = jax.ShapeDtypeStruct((rows,), jnp.int32, sharding=place)
    shape = (text.num_layers, rows, prompt + program.max_new, text.num_kv_heads, text.head_width)
    dtype = jax.tree.leaves(program.params)[0].dtype
    kept = jax.ShapeDtypeStruct(shape, dtype, sharding=_cache_sharding(program.mesh))
    return row, row, llama.Cache(kept, kept)

"""Attention of packed rows by the platform's kernel, on a mesh: rows sharded over data and fsdp, heads over tensor.

All backends compute what `families.blocks.attention.causal_xla` does wherever a position belongs to a conversation
(segment > 0). At padding they differ, but its loss weight is 0 and no conversation attends to it.

- `xla`: the reference; [T, T] scores of every head are in memory. On a CPU in blocks of queries, without the scores
  above the diagonal.
- `splash`: Pallas kernel for TPUs, forward and backward, no scores in memory. Blocks above the diagonal are skipped;
  blocks that lie wholly in other segments are computed and masked, since the kernel decides by shape, not by content.
- `cudnn`: cuDNN's fused kernel for NVIDIA GPUs, bf16 and fp16, with the segments as a boolean mask [B, 1, T, T]; it
  skips nothing.
"""

from __future__ import annotations

import functools

import jax
from jax import Array
from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_kernel as splash_kernel
from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_mask as splash_mask
import jax.numpy as jnp
from jax.sharding import Mesh
from jax.sharding import PartitionSpec
from jaxtyping import Float, Int

from vlguard_jax import errors
from vlguard_jax.families.blocks import attention
from vlguard_jax.parallel import mesh as mesh_lib

LANES = 128  # a TPU register's width: head widths and lengths are padded to multiples of it
Q_BLOCK, KV_BLOCK = 1024, 2048  # the largest; MaxText's recipes for v5e, v5p and v6e


def backend(name: str, platform: str, compute: str) -> str:
    """Resolve `config.run.attention` on a platform ("cpu", "gpu", "cuda" or "tpu"): "auto" is its kernel where that
    supports the compute dtype, else `xla` (Mosaic, which compiles `splash`, does not support fp16).

    Raises:
      UserError: the backend does not run there or in this dtype.
    """
    kernel = {"tpu": "splash", "gpu": "cudnn", "cuda": "cudnn"}.get(platform, "xla")
    if name == "auto":
        return "xla" if compute == "fp32" or (kernel, compute) == ("splash", "fp16") else kernel
    if name not in ("xla", kernel):
        raise errors.UserError(f"config.run.attention={name!r} does not run on {platform}; take 'auto' or 'xla'")
    if name == "cudnn" and compute == "fp32":
        raise errors.UserError(
            "config.run.attention='cudnn' needs config.precision.compute='bf16'; take 'xla' for fp32"
        )
    if (name, compute) == ("splash", "fp16"):
        raise errors.UserError(
            "config.run.attention='splash' needs config.precision.compute='bf16'; take 'xla' for fp16"
        )
    return name


def choose(name: str, mesh: Mesh, compute: str) -> attention.SelfAttention:
    """The self-attention of `config.run.attention` on the devices of `mesh`.

    Raises:
      UserError: see `backend`.
    """
    platform = mesh.devices.flat[0].platform
    found = backend(name, platform, compute)
    if found == "xla":
        return attention.causal_blocks if platform == "cpu" else attention.causal_xla
    return on_mesh(causal_splash if found == "splash" else causal_cudnn, mesh)


def on_mesh(local: attention.SelfAttention, mesh: Mesh) -> attention.SelfAttention:
    """A single-device kernel, run on each device's own rows and heads."""
    heads = PartitionSpec(mesh_lib.ROW_AXES, None, "tensor", None)
    rows = PartitionSpec(mesh_lib.ROW_AXES, None)
    return jax.shard_map(local, mesh=mesh, in_specs=(heads, heads, heads, rows), out_specs=heads, check_vma=False)


@functools.lru_cache(maxsize=16)
def _blocks(length: int) -> splash_kernel.BlockSizes:
    """Blocks for a length that is a multiple of LANES: as large as the limits allow, dividing it and each other as the
    kernel requires. The backward kernel holds more at once, and so has smaller blocks."""

    def largest(limit: int, unit: int) -> int:
        return max(size for size in range(unit, min(limit, length) + 1, unit) if length % size == 0)

    q = largest(Q_BLOCK, LANES)
    return splash_kernel.BlockSizes(
        block_q=q,
        block_kv=largest(KV_BLOCK, q),
        block_kv_compute=q,
        block_q_dkv=q,
        block_kv_dkv=q,
        block_kv_dkv_compute=q,
        use_fused_bwd_kernel=True,
    )


def padded_length(length: int) -> int:
    """The length that the kernel works on: short rows are padded to a multiple of LANES, long ones to one of 4 * LANES,
    so that blocks are large."""
    multiple = LANES if length <= Q_BLOCK else 4 * LANES
    return -(-length // multiple) * multiple


def causal_splash(
    q: Float[Array, "B T H E"],
    k: Float[Array, "B T K E"],
    v: Float[Array, "B T K E"],
    segment_ids: Int[Array, "B T"],
    *,
    interpret: bool = False,
) -> Float[Array, "B T H E"]:
    """Causal self-attention within segments by the splash kernel.

    Any length and head width: padded, then cut. `interpret` runs the kernel as plain JAX, for tests without a TPU."""
    length, heads, width = q.shape[1:]
    room = padded_length(length) - length
    kernel = splash_kernel.make_splash_mha(
        mask=splash_mask.MultiHeadMask([splash_mask.CausalMask((length + room, length + room))] * heads),
        block_sizes=_blocks(length + room),
        head_shards=1,
        q_seq_shards=1,
        interpret=interpret,
    )

    def laid_out(x: Array) -> Array:
        """[B, T, H or K, E] -> [B, H, T, E], padded."""
        x = jnp.repeat(x, heads // x.shape[2], axis=2)
        return jnp.pad(x, ((0, 0), (0, room), (0, 0), (0, -width % LANES))).swapaxes(1, 2)

    segments = jnp.pad(segment_ids, ((0, 0), (0, room)))
    found = jax.vmap(kernel)(
        laid_out(q * width**-0.5), laid_out(k), laid_out(v), splash_kernel.SegmentIds(segments, segments)
    )
    return found.swapaxes(1, 2)[:, :length, :, :width].astype(q.dtype)


def causal_cudnn(
    q: Float[Array, "B T H E"], k: Float[Array, "B T K E"], v: Float[Array, "B T K E"], segment_ids: Int[Array, "B T"]
) -> Float[Array, "B T H E"]:
    """Causal self-attention within segments by cuDNN. Any length: padded to a multiple of 64, then cut."""
    length = q.shape[1]
    room = -length % 64
    q, k, v = (jnp.pad(x, ((0, 0), (0, room), (0, 0), (0, 0))) for x in (q, k, v))
    segments = jnp.pad(segment_ids, ((0, 0), (0, room)))
    same = segments[:, None, :, None] == segments[:, None, None, :]
    seen = same & jnp.tril(jnp.ones((length + room, length + room), bool))
    return jax.nn.dot_product_attention(q, k, v, mask=seen, implementation="cudnn")[:, :length]

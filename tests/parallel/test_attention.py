"""Every attention backend against the reference one, on rows as packing makes them."""

import functools

import jax
import jax.numpy as jnp
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec
import numpy as np
import pytest

from vlguard_jax import config
from vlguard_jax import errors
from vlguard_jax.families.blocks import attention as reference
from vlguard_jax.parallel import attention
from vlguard_jax.parallel import mesh as mesh_lib


def _rows(length: int, heads: int, kv_heads: int, width: int, segments: str) -> tuple[jax.Array, ...]:
    """Two rows: one of `segments`, one of them the other way round."""
    keys = jax.random.split(jax.random.key(0), 3)
    q, k, v = (
        jax.random.normal(key, (2, length, n, width)) for key, n in zip(keys, (heads, kv_heads, kv_heads), strict=True)
    )
    cuts = {"one": [length], "packed": [length // 3, length // 2, length - 7], "padding": [length // 2]}[segments]
    ids = np.zeros((2, length), np.int32)
    for row in range(2):
        begin = 0
        for number, end in enumerate(cuts, 1):
            ids[row, begin:end], begin = number, end
    if segments == "padding":
        ids[1] = 0  # a row that is all padding
    return q, k, v, jnp.asarray(ids)


def _outcome(
    attend: reference.SelfAttention, q: jax.Array, k: jax.Array, v: jax.Array, ids: jax.Array
) -> list[np.ndarray]:
    """Output and gradients, at the positions of conversations."""
    real = (ids > 0)[..., None, None]
    pull = jax.random.normal(jax.random.key(1), q.shape)

    def value(q: jax.Array, k: jax.Array, v: jax.Array) -> tuple[jax.Array, jax.Array]:
        found = jnp.where(real, attend(q, k, v, ids), 0)
        return jnp.sum(found * pull), found

    grads, found = jax.jit(jax.grad(value, argnums=(0, 1, 2), has_aux=True))(q, k, v)
    return [np.asarray(x) for x in (found, *grads)]


CASES = {
    "one conversation": (128, 2, 2, 64, "one"),
    "packed": (256, 2, 2, 64, "packed"),
    "grouped queries": (128, 4, 2, 64, "packed"),
    "no multiple of the block": (200, 2, 1, 64, "packed"),
    "shorter than a block": (40, 2, 2, 128, "packed"),
    "padding": (136, 2, 2, 64, "padding"),
    "odd head width": (128, 2, 2, 80, "packed"),
}


@pytest.mark.parametrize("case", CASES)
def test_splash_equals_reference(case):
    rows = _rows(*CASES[case])
    expected = _outcome(reference.causal_xla, *rows)
    with jax.default_matmul_precision("highest"):
        found = _outcome(functools.partial(attention.causal_splash, interpret=True), *rows)
    for name, ours, theirs in zip(("output", "dq", "dk", "dv"), found, expected, strict=True):
        np.testing.assert_allclose(ours, theirs, atol=2e-5, rtol=1e-4, err_msg=name)


@pytest.mark.parametrize("case", [*CASES, "many blocks"])
def test_blocks_of_queries_equal_reference(case):
    rows = _rows(*(CASES | {"many blocks": (1100, 2, 1, 64, "packed")})[case])
    with jax.default_matmul_precision("highest"):
        expected, found = _outcome(reference.causal_xla, *rows), _outcome(reference.causal_blocks, *rows)
    for name, ours, theirs in zip(("output", "dq", "dk", "dv"), found, expected, strict=True):
        np.testing.assert_allclose(ours, theirs, atol=2e-5, rtol=1e-4, err_msg=name)


def test_a_cpu_computes_in_blocks():
    mesh = mesh_lib.build(config.MeshSettings(data=1, fsdp=1, tensor=1), jax.devices()[:1])
    assert attention.choose("auto", mesh, "fp32") is attention.choose("xla", mesh, "bf16") is reference.causal_blocks


def test_blocks_divide_every_length_and_each_other():
    for length in {attention.padded_length(n) for n in range(1, 8193, 61)}:
        sizes = attention._blocks(length)
        for of_length in (sizes.block_q, sizes.block_kv, sizes.block_q_dkv, sizes.block_kv_dkv):
            assert length % of_length == 0 and of_length % attention.LANES == 0, length
        assert sizes.block_kv % sizes.block_kv_compute == 0, length
        assert sizes.block_kv_dkv % sizes.block_kv_dkv_compute == 0, length


def test_splash_on_a_mesh_equals_reference():
    mesh = mesh_lib.build(config.MeshSettings(data=1, fsdp=2, tensor=2), jax.devices()[:4])
    rows = _rows(128, 4, 2, 64, "packed")
    places = [PartitionSpec(mesh_lib.ROW_AXES, None, "tensor")] * 3 + [PartitionSpec(mesh_lib.ROW_AXES)]
    placed = [jax.device_put(x, NamedSharding(mesh, spec)) for x, spec in zip(rows, places, strict=True)]
    attend = attention.on_mesh(functools.partial(attention.causal_splash, interpret=True), mesh)
    for ours, theirs in zip(_outcome(attend, *placed), _outcome(reference.causal_xla, *rows), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=2e-5, rtol=1e-4)


def test_cudnn_is_never_replaced_by_another_kernel():
    """Where cuDNN is missing, as here, nothing is lowered. Its numbers are not checked: that takes a GPU."""
    q, k, v, ids = _rows(200, 4, 2, 64, "packed")
    half = [x.astype(jnp.bfloat16) for x in (q, k, v)]
    with pytest.raises(RuntimeError, match="cuDNN"):
        jax.jit(attention.causal_cudnn).trace(*half, ids).lower(lowering_platforms=("cuda",))


@pytest.mark.parametrize(
    ("name", "platform", "compute", "message"),
    [
        ("splash", "cpu", "bf16", "does not run on cpu"),
        ("splash", "gpu", "bf16", "does not run on gpu"),
        ("cudnn", "tpu", "bf16", "does not run on tpu"),
        ("cudnn", "gpu", "fp32", "precision.compute='bf16'"),
        ("splash", "tpu", "fp16", "precision.compute='bf16'"),
    ],
)
def test_a_backend_of_another_platform_or_dtype_is_refused(name, platform, compute, message):
    with pytest.raises(errors.UserError, match=message):
        attention.backend(name, platform, compute)


@pytest.mark.parametrize(
    ("platform", "kernel"), [("tpu", "splash"), ("gpu", "cudnn"), ("cuda", "cudnn"), ("cpu", "xla")]
)
def test_auto_takes_the_kernel_of_the_platform(platform, kernel):
    assert attention.backend("auto", platform, "bf16") == kernel
    assert attention.backend("auto", platform, "fp32") == "xla"
    assert attention.backend("auto", platform, "fp16") == ("xla" if platform == "tpu" else kernel)
    assert attention.backend("xla", platform, "bf16") == "xla"

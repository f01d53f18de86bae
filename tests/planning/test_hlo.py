"""Collectives counted in text as XLA prints it, and in what the CPU compiler makes of loops."""

import jax
import jax.numpy as jnp
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec
import numpy as np
import pytest

from vlguard_jax.planning import hlo

# A loop from 0 by 2 below 8: four turns; a gather spread over a fusion inside and outside, on one channel, is one.
TEXT = """HloModule step, is_scheduled=true

%inside (p: bf16[4,8]) -> bf16[4,64] {
  %p = bf16[4,8]{1,0:T(8,128)(2,1)} parameter(0)
  ROOT %all-gather.2 = bf16[4,64]{1,0:T(8,128)(2,1)} all-gather(%p), channel_id=7, replica_groups=[2,8]<=[16], dimensions={1}
}

%start (p.1: bf16[4,8]) -> bf16[4,64] {
  %p.1 = bf16[4,8]{1,0} parameter(0)
  ROOT %all-gather.1 = bf16[4,64]{1,0} all-gather(%p.1), channel_id=7, replica_groups=[2,8]<=[16], dimensions={1}
}

%condition (state.1: (s32[], bf16[4,8])) -> pred[] {
  %state.1 = (s32[]{:T(128)}, bf16[4,8]{1,0}) parameter(0)
  %bound = s32[]{:T(128)} constant(8)
  %i.1 = s32[]{:T(128)} get-tuple-element(%state.1), index=0
  ROOT %less = pred[]{:T(512)} compare(%i.1, %bound), direction=LT
}

%body (state.2: (s32[], bf16[4,8])) -> (s32[], bf16[4,8]) {
  %state.2 = (s32[]{:T(128)}, bf16[4,8]{1,0}) parameter(0)
  %one = s32[]{:T(128)} constant(1)
  %i.2 = s32[]{:T(128)} get-tuple-element(%state.2), index=0
  %x = bf16[4,8]{1,0} get-tuple-element(%state.2), index=1
  %j = s32[]{:T(128)} add(%i.2, %one)
  %k = s32[]{:T(128)} add(%one, %j)
  %fused = bf16[4,64]{1,0} fusion(%x), kind=kCustom, calls=%inside
  %moved = (bf16[4,8]{1,0:S(1)}, bf16[4,8]{1,0}, u32[], u32[]) collective-permute-start(%x), channel_id=8, source_target_pairs={}
  %arrived = bf16[4,8]{1,0} collective-permute-done(%moved)
  ROOT %next = (s32[]{:T(128)}, bf16[4,8]{1,0}) tuple(%k, /*index=1*/%arrived)
}

%sum (a: f32[], b: f32[]) -> f32[] {
  %a = f32[] parameter(0)
  %b = f32[] parameter(1)
  ROOT %c = f32[] add(%a, %b)
}

ENTRY %main (q: bf16[4,8], r: f32[16]) -> f32[16] {
  %q = bf16[4,8]{1,0} parameter(0)
  %r = f32[16]{0} parameter(1)
  %zero = s32[]{:T(128)} constant(0)
  %copied = s32[]{:T(128)} copy(%zero)
  %first = bf16[4,64]{1,0} fusion(%q), kind=kCustom, calls=%start
  %begin = (s32[]{:T(128)}, bf16[4,8]{1,0}) tuple(%copied, /*index=1*/%q)
  %loop = (s32[]{:T(128)}, bf16[4,8]{1,0}) while(%begin), condition=%condition, body=%body, metadata={op_name="a(b)/while"}
  %parts = f32[2]{0} reduce-scatter(%r), channel_id=9, replica_groups={{0,1,2,3,4,5,6,7},{8,9,10,11,12,13,14,15}}, to_apply=%sum
  ROOT %all = f32[16]{0} all-reduce(%r), channel_id=10, replica_groups=mesh['x'=2,'y'=8] {'x','y'}, to_apply=%sum, metadata={op_name="c"}
}
"""


def test_text():
    found = {c.kind: c for c in hlo.collectives(TEXT, 16)}
    assert len(found) == 4 and found["all-reduce"].source == "c"
    assert {kind: (c.times, c.group) for kind, c in found.items()} == {
        "all-gather": (1, 8),
        "collective-permute": (4, 16),
        "reduce-scatter": (1, 8),
        "all-reduce": (1, 16),
    }
    expected = {
        "all-gather": 4 * 56 * 2,
        "all-reduce": 2 * 64 * 15 / 16,
        "reduce-scatter": 8 * 7,
        "collective-permute": 4 * 4 * 8 * 2,
    }
    assert hlo.received(list(found.values())) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("direction=LT", "direction=NE"),
        ("constant(0)", "parameter(2)"),
        ("add(%one, %j)", "add(%i.2, %j)"),
        ("replica_groups=[2,8]<=[16]", "replica_groups=?"),
    ],
)
def test_what_cannot_be_read_is_said(old, new):
    with pytest.raises(hlo.UnreadableError):
        hlo.collectives(TEXT.replace(old, new), 16)


def test_shapes():
    assert hlo.size("(bf16[2,3]{1,0:T(8,128)(2,1)S(1)}, f32[], u32[4]{0}, /*index=5*/pred[0])") == 12 + 4 + 16
    assert hlo.size("bf16[1,512,4096]{2,1,0:T(8,128)(2,1)}") == 512 * 4096 * 2


def test_a_scan_over_sharded_layers():
    """Each turn gathers one layer, on as many devices as there are here."""
    devices = jax.devices()
    mesh = jax.sharding.Mesh(np.asarray(devices), ("fsdp",))
    rows, split = NamedSharding(mesh, PartitionSpec("fsdp")), NamedSharding(mesh, PartitionSpec(None, "fsdp"))
    layers = jax.ShapeDtypeStruct((5, 64, 64), jnp.float32, sharding=split)
    x = jax.ShapeDtypeStruct((len(devices), 64), jnp.float32, sharding=rows)

    def run(layers, x):
        whole = NamedSharding(mesh, PartitionSpec())
        return jax.lax.scan(lambda x, w: (jnp.tanh(x @ jax.lax.with_sharding_constraint(w, whole)), None), x, layers)[0]

    text = jax.jit(run, out_shardings=rows).lower(layers, x).compile().as_text()
    found = hlo.received(hlo.collectives(text, len(devices)))
    others = (len(devices) - 1) / len(devices)
    assert found.get("all-gather", 0.0) == pytest.approx(5 * 64 * 64 * 4 * others)


MEGASCALE = 'frontend_attributes={_xla_host_transfer_handler_name="xla_megascale_runtime",_xla_megascale_transfer_type="ALL_REDUCE"}'
RECEIVED = f"""HloModule step

ENTRY %main (p: bf16[4,8]) -> bf16[4,8] {{
  %p = bf16[4,8]{{1,0}} parameter(0)
  %after = token[] after-all()
  %recv.1 = (bf16[4,8]{{1,0}}, u32[], token[]) recv(%after), channel_id=1, {MEGASCALE}
  %recv.2 = (bf16[4,8]{{1,0}}, u32[], token[]) recv(%after), channel_id=2, is_host_transfer=true
  ROOT %done = bf16[4,8]{{1,0}} recv-done(%recv.1)
}}
"""


def test_what_comes_from_other_slices():
    """Twice all but one's own part of the sum; what the host itself sends is nobody's network."""
    assert hlo.network(RECEIVED, 2) == 64 and hlo.network(RECEIVED, 4) == 96
    with pytest.raises(hlo.UnreadableError, match=r"recv\.1 between slices is of the kind ALL_GATHER"):
        hlo.network(RECEIVED.replace("ALL_REDUCE", "ALL_GATHER"), 2)

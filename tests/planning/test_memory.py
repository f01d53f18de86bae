"""Bytes by kind: states against the usual table, buffers by hand, and one program that the TPU compiler was asked
about."""

from __future__ import annotations

import dataclasses

import pytest

from vlguard_jax.families import table
from vlguard_jax.families.blocks import configs
from vlguard_jax.families.llama import config as llama_config
from vlguard_jax.planning import flops
from vlguard_jax.planning import memory
from vlguard_jax.planning import traffic

SMALL, LARGE = (table.PRESETS[name] for name in ("llava-v1.5-7b", "llava-v1.5-13b"))
LORA = configs.LoraConfig(rank=128, alpha=256.0, dropout=0.05)
MIXED = memory.Formats(compute=2, params=4, frozen=2)
FULL = flops.policy("full")
STEP = {"rows": 64, "row_len": 2048, "units": 1, "micro": 1, "chunk": 2**25}


def states(model, lora=None, shards=1, formats=MIXED) -> float:
    """GB without the tower."""
    found = memory.training(model, lora, traffic.Mesh(1, shards, 1), formats, FULL, **STEP)
    return (found.states - flops.sizes(model).tower * formats.frozen) / 1e9


@pytest.mark.parametrize(
    ("model", "lora", "shards", "gigabytes"),
    [
        (SMALL, None, 1, 108),
        (SMALL, None, 8, 13.5),
        (SMALL, None, 16, 6.8),
        (SMALL, None, 64, 1.7),
        (LARGE, None, 1, 209),
        (LARGE, None, 8, 26.1),
        (LARGE, None, 16, 13.0),
        (LARGE, None, 64, 3.3),
        (SMALL, LORA, 1, 13.5 + 5.1),
        (SMALL, LORA, 8, 2.3),
        (LARGE, LORA, 1, 26.1 + 8.0),
        (LARGE, LORA, 8, 4.3),
    ],
)
def test_states(model, lora, shards, gigabytes):
    """fp32 master, moments and gradient: 16 bytes a parameter; LoRA: adapters so, the base in bf16."""
    assert states(model, lora, shards) == pytest.approx(gigabytes, rel=0.05)


def test_all_in_bf16():
    assert states(SMALL, formats=memory.Formats(2, 2, 2)) == pytest.approx(54, rel=0.05)


def test_against_the_compiler():
    """7B without a tower, full fine-tuning, v5e:4x4, 16 rows of 4,096, full rematerialisation, splash attention:
    XLA:TPU (libtpu 0.0.42) says arguments 4.7 GiB, peak 8.9 GiB."""
    language = llama_config.LlamaConfig(SMALL.text)
    step = {"rows": 16, "row_len": 4096, "units": 0, "micro": 1, "chunk": 2**25}
    found = memory.training(language, None, traffic.Mesh(1, 16, 1), MIXED, FULL, **step)
    assert (found.weights + found.moments) / memory.GIB == pytest.approx(4.7, abs=0.05)
    assert found.peak / memory.GIB == pytest.approx(8.9, rel=0.15)


def test_kept_activations():
    """Layer inputs alone: 0.26 MB a token for 7B, 0.41 MB for 13B."""
    for model, megabytes in ((SMALL, 0.26), (LARGE, 0.41)):
        wide, narrow = (
            memory.training(model, None, traffic.Mesh(1, 64, 1), MIXED, policy, **STEP).activations
            for policy in (FULL, dataclasses.replace(FULL, kept=(0, 0, 0, 0)))
        )
        assert (wide - narrow) / 2048 / 1e6 == pytest.approx(megabytes, rel=0.05)


def test_what_lowers_memory():
    base = memory.training(SMALL, None, traffic.Mesh(1, 16, 1), MIXED, flops.policy("none"), **STEP)

    sixteen = traffic.Mesh(1, 16, 1)

    def peak(shape=sixteen, formats=MIXED, remat="none", lora=None, **step) -> float:
        return memory.training(SMALL, lora, shape, formats, flops.policy(remat), **{**STEP, **step}).peak

    assert peak(remat="offload") < peak(remat="full") < peak(remat="minimal") < base.peak
    assert peak(rows=16) < base.peak and peak(row_len=1024) < base.peak and peak(lora=LORA) < base.peak
    assert peak(traffic.Mesh(1, 32, 1)) < base.peak < peak(traffic.Mesh(2, 8, 1))
    assert peak(micro=4, rows=16) > peak(rows=16)  # a second gradient
    assert peak(formats=memory.Formats(2, 4, 4)) > base.peak


def test_the_tower_counts_where_it_is_the_largest():
    few, many = (
        memory.training(SMALL, None, traffic.Mesh(1, 16, 1), MIXED, FULL, **{**STEP, "units": n}) for n in (1, 600)
    )
    assert few.pictures < few.activations < many.pictures
    assert few.peak == pytest.approx(few.states + few.batch + few.gathered + few.activations + few.logits + few.slack)
    assert many.peak == pytest.approx(many.states + many.batch + many.pictures + many.slack)


def test_writing_the_tuned_model():
    """13B on v5e:4x8: a 32nd of 52 GB, the tower, and a block of 64 MiB with what puts it together."""
    step = memory.training(LARGE, None, traffic.Mesh(1, 32, 1), MIXED, FULL, **STEP)
    found = memory.export(step)
    assert found.weights + found.frozen == pytest.approx(52e9 / 32 + 0.6e9, rel=0.02)
    assert found.gathered == 3 * 2**26 and found.moments == found.gradients == found.activations == 0
    assert found.peak < step.peak < 15.75 * memory.GIB
    assert memory.export(step.times(2), 2).peak == 2 * found.peak
    # the up projections of all 40 layers at once, as they lie in the tree, for which XLA:TPU asks for 21.4 GiB
    stack = dataclasses.replace(found, gathered=2 * 4 * 40 * 5120 * 13824)
    assert stack.peak > 15.75 * memory.GIB and stack.gathered / memory.GIB == pytest.approx(21.4, rel=0.02)


def test_the_host_that_writes_the_tuned_model():
    """A base under adapters stays there as it came; else the tower alone does. And the embedding, three times."""
    assert memory.export_host(LARGE, LORA) == pytest.approx(2 * 13e9 + 0.6e9 + 3 * 4 * 32000 * 5120, rel=0.01)
    assert memory.export_host(LARGE, None) == pytest.approx(0.6e9 + 3 * 4 * 32000 * 5120, rel=0.01)


def test_evaluation():
    """bf16 weights 13.5 GB and 0.5 MiB of keys and values a token (7B)."""
    sizes = {"slots": 8, "length": 896, "together": 1, "prompt": 640, "units": 1, "kept": 640 * 2**19, "place": 2**19}
    reading, writing = memory.evaluation(SMALL, traffic.Mesh(1, 1, 1), 2, **sizes)
    assert (reading.weights - 2 * flops.sizes(SMALL).tower) / 1e9 == pytest.approx(13.5, rel=0.01)
    assert reading.cache == writing.cache == (8 * 896 + 640) * 2**19
    assert reading.peak > writing.peak
    sizes |= {"place": 2**17, "kept": 640 * 2**17}
    spread = memory.evaluation(SMALL, traffic.Mesh(1, 1, 4), 2, **sizes)[0]
    assert spread.cache == (8 * 896 + 640) * 2**17 and spread.peak < reading.peak / 3


def test_names_and_units():
    found = memory.Memory(weights=2.0**30, cache=2.0**29)
    assert found.gib() == {"peak_gib": 1.5, "weights_gib": 1.0, "cache_gib": 0.5}
    assert found.times(2).peak == 2 * found.peak

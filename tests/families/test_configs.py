"""Every model-config field changes the output or a shape: no field that nobody reads."""

import dataclasses
import functools
import math

import jax
import numpy as np
import pytest

from tests.families import tiny
from vlguard_jax.families import family
from vlguard_jax.families import functional
from vlguard_jax.families import table
from vlguard_jax.families.blocks import configs
from vlguard_jax.families.llama import config as llama_config
from vlguard_jax.families.llava import config as llava_config
from vlguard_jax.families.llava_next import config as next_config


@functools.cache
def _fingerprint(config: family.Config, lora: configs.LoraConfig) -> tuple:
    model = functional.Model(config, "fp32", lora)
    shapes = jax.tree.map(lambda x: x.shape, model.shapes())
    params = tiny.random_params(model)
    out = jax.jit(lambda p, b: model.hidden(p, b, jax.random.key(0)) @ model.head_kernel(p))
    batch = tiny.batch(config)
    # Run once: what the compiler would make faster takes longer than the run.
    done = out.lower(params, batch).compile(
        {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}
    )
    return shapes, np.asarray(done(params, batch))


def _differs(a: tuple, b: tuple) -> bool:
    return a[0] != b[0] or a[1].shape != b[1].shape or not np.allclose(a[1], b[1], rtol=0, atol=1e-7)


SCALING = configs.RopeScaling("llama3", 8.0, 1.0, 4.0, 16)
CHANGES = {
    configs.VisionConfig: {
        "image_size": 16,
        "patch_size": 8,
        "width": 24,
        "num_layers": 4,
        "num_heads": 4,
        "mlp_width": 40,
        "norm_eps": 0.5,
        "activation": "gelu",
        "feature_layer": -1,
        "image_mean": (0.1, 0.2, 0.3),
        "image_std": (0.5, 0.6, 0.7),
    },
    configs.TextConfig: {
        "vocab_size": 60,
        "width": 48,
        "num_layers": 3,
        "num_heads": 8,
        "num_kv_heads": 4,
        "head_width": 16,
        "mlp_width": 40,
        "norm_eps": 0.5,
        "rope_theta": 100.0,
        "rope_scaling": None,
        "tie_embeddings": True,
    },
    configs.RopeScaling: {
        "kind": "linear",
        "factor": 4.0,
        "low_freq_factor": 0.5,
        "high_freq_factor": 8.0,
        "original_max_position": 64,
    },
    llava_config.LlavaConfig: {
        "text": dataclasses.replace(tiny.CONFIG.text, width=48),
        "vision": dataclasses.replace(tiny.CONFIG.vision, num_layers=4),
        "projector": "linear",
    },
    next_config.LlavaNextConfig: {
        "text": dataclasses.replace(tiny.CONFIG.text, width=48),
        "vision": dataclasses.replace(tiny.CONFIG.vision, num_layers=4),
        "projector": "linear",
        "pinpoints": ((24, 24),),
    },
    llama_config.LlamaConfig: {"text": dataclasses.replace(tiny.CONFIG.text, width=48)},
    configs.LoraConfig: {"rank": 3, "alpha": 7.0, "dropout": 0.5, "targets": ("q_proj", "v_proj")},
}


@pytest.mark.parametrize(
    "kind,field",
    [
        pytest.param(kind, field, marks=pytest.mark.more if kind in (configs.VisionConfig, configs.TextConfig) else [])
        for kind, fields in CHANGES.items()
        for field in fields
    ],
)
def test_field_is_read(kind: type, field: str) -> None:
    value = CHANGES[kind][field]
    lora = configs.LoraConfig(2, 4.0, 0.25)
    config = dataclasses.replace(tiny.CONFIG, text=dataclasses.replace(tiny.CONFIG.text, rope_scaling=SCALING))
    changed, changed_lora = config, lora
    if kind is configs.VisionConfig:
        changed = dataclasses.replace(config, vision=dataclasses.replace(config.vision, **{field: value}))
    elif kind is configs.TextConfig:
        changed = dataclasses.replace(config, text=dataclasses.replace(config.text, **{field: value}))
    elif kind is configs.RopeScaling:
        scaling = dataclasses.replace(SCALING, **{field: value})
        changed = dataclasses.replace(config, text=dataclasses.replace(config.text, rope_scaling=scaling))
    elif kind is configs.LoraConfig:
        changed_lora = dataclasses.replace(lora, **{field: value})
    else:
        config = {type(one): one for one in (config, tiny.TEXT_ONLY, tiny.NEXT)}[kind]
        changed = dataclasses.replace(config, **{field: value})
    assert _differs(_fingerprint(config, lora), _fingerprint(changed, changed_lora)), (
        f"{kind.__name__}.{field} is not read"
    )


def test_the_table_of_changes_names_every_field() -> None:
    for kind, fields in CHANGES.items():
        assert set(fields) == {f.name for f in dataclasses.fields(kind) if f.compare}
    assert {one.config for one in table.FAMILIES} <= set(CHANGES)


PUBLISHED = {
    "llava-v1.5-7b": 7_062_902_784,
    "llava-v1.5-13b": 13_350_839_296,
    "llava-v1.6-vicuna-7b": 7_062_902_784 + 4096,
    "llava-v1.6-vicuna-13b": 13_350_839_296 + 5120,
    # llava-hf's files hold 64 rows more in embedding and head: 7,566,747,648 and 8,355,276,800 numbers, in files of
    # 15.13 GB (4.92, 4.92, 4.92 and 0.38) and 16.71 GB (4.96, 4.92, 5.00 and 1.84).
    "llava-v1.6-mistral-7b": 7_566_747_648 - 2 * 64 * 4096,
    "llama3-llava-next-8b": 8_355_276_800 - 2 * 64 * 4096,
}


@pytest.mark.parametrize("name,expected", PUBLISHED.items())
def test_preset_parameter_count(name: str, expected: int) -> None:
    shapes = functional.Model(table.PRESETS[name], "bf16").shapes()
    assert sum(math.prod(x.shape) for x in jax.tree.leaves(shapes)) == expected

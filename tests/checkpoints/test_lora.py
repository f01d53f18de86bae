"""Adapter settings and merging."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import settings
from hypothesis import strategies as st
import ml_dtypes
import numpy as np
import pytest

from tests.checkpoints import made
from vlguard_jax import errors
from vlguard_jax import trees
from vlguard_jax.checkpoints import lora
from vlguard_jax.families.blocks import configs

PEFT: dict[str, Any] = {
    "peft_type": "LORA",
    "r": 4,
    "lora_alpha": 6,
    "target_modules": ["v_proj", "up_proj"],
    "lora_dropout": 0.05,
}


def test_settings() -> None:
    assert lora.from_peft(PEFT, "x") == configs.LoraConfig(4, 6.0, 0.05, ("v_proj", "up_proj"))


# What peft writes for an ordinary adapter: 0.21.2, whose keys hold those of every version before but two.
PEFT_21 = PEFT | {
    **dict.fromkeys(
        ("alora_invocation_tokens", "arrow_config", "auto_mapping", "corda_config", "eva_config", "exclude_modules")
    ),
    **dict.fromkeys(
        (
            "kasa_config",
            "layer_replication",
            "layers_pattern",
            "layers_to_transform",
            "lora_ga_config",
            "megatron_config",
        )
    ),
    **dict.fromkeys(
        (
            "modules_to_save",
            "monteclora_config",
            "revision",
            "target_parameters",
            "trainable_token_indices",
            "use_bdlora",
        )
    ),
    **dict.fromkeys(
        ("ensure_weight_tying", "fan_in_fan_out", "lora_bias", "use_dora", "use_qalora", "use_rslora"), False
    ),
    **{
        "alpha_pattern": {},
        "rank_pattern": {},
        "loftq_config": {},
        "velora_config": None,
        "bias": "none",
        "init_lora_weights": True,
    },
    **{
        "base_model_name_or_path": "base",
        "inference_mode": True,
        "megatron_core": "megatron.core",
        "peft_version": "0.21.2",
    },
    **{"qalora_group_size": 16, "task_type": "CAUSAL_LM"},
}
PEFT_02 = PEFT | {
    "bias": "none",
    "enable_lora": None,
    "fan_in_fan_out": False,
    "merge_weights": False,
    "modules_to_save": None,
}


@pytest.mark.parametrize(
    "config",
    [
        PEFT_02,
        PEFT_21,
        *(PEFT_21 | {"init_lora_weights": how} for how in (False, "gaussian", "orthogonal")),
        PEFT_21 | {"init_lora_weights": "eva", "eva_config": {"rho": 1.0}},
        # converted, so init is true
        PEFT_21 | {"corda_config": {"corda_method": "ipm"}, "auto_mapping": {"base_model_class": "X"}},
        PEFT_21 | {"of_a_later_version": None, "another": False, "and_another": {}},
    ],
)
def test_ordinary_adapters_of_every_version(config: dict[str, Any]) -> None:
    assert lora.from_peft(config, "x") == configs.LoraConfig(4, 6.0, 0.05, ("v_proj", "up_proj"))


CONVERT = r".* not supported: .*path_initial_model_for_weight_conversion"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"peft_type": "IA3"}, "peft_type='IA3' is not supported"),
        ({"peft_type": None}, "peft_type=None is not supported"),
        *(
            ({"init_lora_weights": how}, f"init_lora_weights='{how}'" + CONVERT)
            for how in ("pissa", "pissa_niter_16", "olora", "corda")
        ),
        ({"init_lora_weights": "lora_ga"}, "init_lora_weights='lora_ga'" + CONVERT),
        ({"init_lora_weights": "OLoRA"}, "init_lora_weights='OLoRA'" + CONVERT),
        (
            {"init_lora_weights": "loftq", "loftq_config": {"loftq_bits": 4}},
            r"init_lora_weights='loftq' is not .*merge_and_unload",
        ),
        ({"init_lora_weights": "mica"}, "init_lora_weights='mica' is not supported"),
        ({"init_lora_weights": ["pissa"]}, r"init_lora_weights=\['pissa'\] is not supported"),
        ({"use_dora": True}, r"use_dora=True is not supported; .*merge_and_unload"),
        ({"use_rslora": True}, "use_rslora=True"),
        ({"use_qalora": True}, "use_qalora=True"),
        ({"lora_bias": True}, "lora_bias=True"),
        ({"fan_in_fan_out": True}, "fan_in_fan_out=True"),
        ({"modules_to_save": ["lm_head"]}, r"modules_to_save=\['lm_head'\]"),
        ({"rank_pattern": {"q_proj": 2}}, "rank_pattern="),
        ({"alpha_pattern": {"q_proj": 2}}, "alpha_pattern="),
        ({"layer_replication": [[0, 2], [1, 3]]}, "layer_replication="),
        ({"layers_to_transform": 0}, "layers_to_transform=0"),
        ({"layers_to_transform": [0]}, r"layers_to_transform=\[0\]"),
        ({"layers_pattern": "h"}, "layers_pattern='h'"),
        ({"exclude_modules": "v_proj"}, "exclude_modules='v_proj'"),
        ({"trainable_token_indices": [1]}, "trainable_token_indices="),
        ({"target_parameters": ["x"]}, "target_parameters="),
        ({"alora_invocation_tokens": [1]}, "alora_invocation_tokens="),
        ({"kasa_config": {"beta": 1}}, "kasa_config="),
        ({"bias": "all"}, "bias='all'"),
        ({"bias": "lora_only"}, "bias='lora_only'"),
        ({"of_a_later_version": 1}, "of_a_later_version=1 is not supported"),
        ({"target_modules": "all-linear"}, "target_modules='all-linear'"),
        ({"target_modules": ["q_proj", "lm_head"]}, "target_modules="),
        ({"target_modules": [["q_proj"]]}, "target_modules="),
        ({"target_modules": None}, "target_modules=None"),
        ({"r": 0}, "r=0 must be a whole number from 1"),
        ({"r": True}, "r=True must be a whole number from 1"),
        ({"lora_alpha": None}, "lora_alpha is missing"),
        ({"lora_alpha": float("nan")}, "lora_alpha=nan must be a number"),
        ({"lora_alpha": 10**400}, "lora_alpha=.* must be a number"),
        ({"r": None}, "r is missing"),
        ({"r": 10**9}, "r=1000000000 must be a whole number from 1 to 1,048,576"),
        ({"lora_alpha": 0}, "lora_alpha=0 must be a number from 1e-30"),
        ({"lora_alpha": -8.0}, r"lora_alpha=-8\.0 must be a number"),
        ({"lora_alpha": True}, "lora_alpha=True must be a number"),
        ({"lora_dropout": 1}, "lora_dropout=1 must be below 1"),
        ({"lora_dropout": "0.1"}, "lora_dropout='0.1' must be a number"),
        ({"lora_dropout": 1.5}, "lora_dropout=1.5 must be a number from 0 to 1"),
    ],
)
def test_other_arithmetic_is_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(errors.UserError, match=rf"^adapter_config\.json: {message}") as error:
        lora.from_peft(PEFT_21 | change, "adapter_config.json")
    assert "\n" not in str(error.value) and len(str(error.value)) < 600


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)


@settings(max_examples=300, deadline=None)
@given(st.dictionaries(st.sampled_from(sorted(PEFT_21)) | st.text(max_size=12), JSON, max_size=4))
def test_any_json_is_read_or_refused(change: dict[str, Any]) -> None:
    try:
        found = lora.from_peft(PEFT_21 | change, "x")
    except errors.UserError as e:
        assert "\n" not in str(e)
    else:
        assert found.rank >= 1 and np.isfinite(found.alpha) and 0 <= found.dropout < 1


@pytest.mark.parametrize("dtype", [np.float32, np.float16, ml_dtypes.bfloat16])
def test_merge(dtype: type) -> None:
    rng = np.random.default_rng(0)
    kernel = rng.normal(size=(3, 5, 7)).astype(dtype)
    a, b = rng.normal(size=(3, 5, 2)).astype(np.float32), rng.normal(size=(3, 2, 7)).astype(np.float32)
    params = {
        "text": {
            "layers": {"mlp": {"up_proj": {"kernel": kernel, "lora_a": a, "lora_b": b}}},
            "norm": {"scale": np.ones(5)},
        }
    }
    before = kernel.copy()
    merged = lora.merge_lora(params, configs.LoraConfig(2, 3.0, 0.1, ("up_proj",)))
    found = merged["text"]["layers"]["mlp"]["up_proj"]
    assert found.keys() == {"kernel"} and found["kernel"].dtype == dtype
    exact = before.astype(np.float64) + 1.5 * np.einsum("lir,lro->lio", a.astype(np.float64), b)
    np.testing.assert_allclose(
        found["kernel"].astype(np.float64), exact, rtol=float(ml_dtypes.finfo(dtype).eps), atol=1e-6
    )
    np.testing.assert_array_equal(kernel, before)  # the tree that came in is left alone
    with pytest.raises(ValueError, match="an adapter without its LoraConfig"):
        lora.merge_lora(params, None)


def test_merged_when_it_is_asked_for() -> None:
    """Nothing is computed before; then a layer has the bits of the model that is merged at once."""
    model = made.model(made.LORA)
    late, whole = (trees.flatten(merged.params) for merged in (lora.merge_late(model), lora.merge(model)))
    assert late.keys() == whole.keys() == trees.flatten(made.model().params).keys()
    computed = {path for path, value in late.items() if isinstance(value, lora.Merged)}
    assert computed == {"text.layers.attention.q_proj.kernel", "text.layers.mlp.down_proj.kernel"}
    for path in computed:
        assert (late[path].shape, late[path].dtype) == (whole[path].shape, whole[path].dtype)
        for i, layer in enumerate(whole[path]):
            np.testing.assert_array_equal(late[path][i], layer)
    assert lora.merge_late(model).lora is None and lora.merge_late(made.model()).lora is None

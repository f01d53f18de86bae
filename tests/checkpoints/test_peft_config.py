"""adapter_config.json: what is read, what is refused by name, and which modules it speaks of."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import settings
from hypothesis import strategies as st
import numpy as np
import pytest

from vlguard_jax import errors
from vlguard_jax.checkpoints import peft_config

PEFT: dict[str, Any] = {
    "peft_type": "LORA",
    "r": 4,
    "lora_alpha": 6,
    "target_modules": ["v_proj", "up_proj"],
    "lora_dropout": 0.05,
}


def test_settings() -> None:
    assert peft_config.read(PEFT, "x") == peft_config.PeftConfig("x", 4, 6.0, 0.05, ("v_proj", "up_proj"))


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
    assert peft_config.read(config, "x") == peft_config.PeftConfig("x", 4, 6.0, 0.05, ("v_proj", "up_proj"))


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
        ({"use_qalora": True}, r"use_qalora=True is not supported; .*merge_and_unload"),
        ({"use_dora": 1}, "use_dora=1 must be true or false"),
        ({"use_rslora": "yes"}, "use_rslora='yes' must be true or false"),
        ({"modules_to_save": [1]}, r"modules_to_save=\[1\] must be a list of names"),
        ({"rank_pattern": {"q_proj": 0}}, "q_proj=0 must be a whole number from 1"),
        ({"alpha_pattern": {"q_proj": "2"}}, "q_proj='2' must be a number"),
        ({"rank_pattern": ["q_proj"]}, r"rank_pattern=\['q_proj'\] must be an object"),
        ({"layers_to_transform": [-1]}, r"layers_to_transform=\[-1\] must be whole numbers"),
        ({"layers_to_transform": True}, "layers_to_transform=True must be whole numbers"),
        ({"layers_to_transform": 0, "target_modules": ".*q_proj"}, "layers_to_transform=0 with .*only where"),
        ({"layers_pattern": {"a": 1}}, r"layers_pattern=\{'a': 1\} must be a list of names"),
        ({"exclude_modules": 3}, "exclude_modules=3 must be a list of names or a regular expression"),
        ({"bias": "some"}, "bias='some' is not supported"),
        ({"kasa_config": {"beta": 1}, "use_dora": True}, "kasa_config="),
        ({"lora_bias": True}, "lora_bias=True"),
        ({"fan_in_fan_out": True}, "fan_in_fan_out=True"),
        ({"layer_replication": [[0, 2], [1, 3]]}, "layer_replication="),
        ({"trainable_token_indices": [1]}, "trainable_token_indices="),
        ({"target_parameters": ["x"]}, "target_parameters="),
        ({"alora_invocation_tokens": [1]}, "alora_invocation_tokens="),
        ({"kasa_config": {"beta": 1}}, "kasa_config="),
        ({"of_a_later_version": 1}, "of_a_later_version=1 is not supported"),
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
        peft_config.read(PEFT_21 | change, "adapter_config.json")
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
        found = peft_config.read(PEFT_21 | change, "x")
    except errors.UserError as e:
        assert "\n" not in str(e)
    else:
        assert found.rank >= 1 and np.isfinite(found.alpha) and 0 <= found.dropout < 1


LLAMA = [f"model.layers.{i}.{m}" for i in (0, 1, 10) for m in ("self_attn.q_proj", "self_attn.v_proj", "mlp.up_proj")]


def adapted(**change: Any) -> list[str]:
    selection = peft_config.Selection(peft_config.read(PEFT | change, "x"))
    return [name for name in [*LLAMA, "lm_head"] if selection.adapts(name, name != "lm_head")]


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({}, [n for n in LLAMA if "q_proj" not in n]),
        ({"target_modules": ["proj"]}, []),
        (
            {"target_modules": ["mlp.up_proj", "model.layers.1.self_attn.q_proj"]},
            [LLAMA[2], LLAMA[3], LLAMA[5], LLAMA[8]],
        ),
        ({"target_modules": "q_proj"}, []),
        ({"target_modules": r".*\.1\d?\..*q_proj"}, [LLAMA[3], LLAMA[6]]),
        ({"target_modules": "ALL-LINEAR"}, LLAMA),
        ({"exclude_modules": ["up_proj"]}, [n for n in LLAMA if "v_proj" in n]),
        ({"exclude_modules": r".*layers\.0\..*|.*v_proj"}, [LLAMA[5], LLAMA[8]]),
        ({"modules_to_save": ["self_attn"]}, [n for n in LLAMA if "up_proj" in n]),
        ({"layers_to_transform": 1}, [LLAMA[4], LLAMA[5]]),
        ({"layers_to_transform": [0, 10], "layers_pattern": ["h", "layers"]}, [LLAMA[1], LLAMA[2], LLAMA[7], LLAMA[8]]),
        ({"layers_to_transform": [1], "layers_pattern": "h"}, []),
        ({"layers_to_transform": [1], "target_modules": [LLAMA[0], "lm_head"]}, [LLAMA[0], "lm_head"]),
    ],
)
def test_targets(change: dict[str, Any], expected: list[str]) -> None:
    """As peft's check_target_module_exists: a whole name counts whatever the layers."""
    assert adapted(**change) == expected


def test_patterns_of_rank_and_alpha() -> None:
    """The first that fits the end of a name counts; rsLoRA divides by the root of the rank."""
    change = {"rank_pattern": {"q_proj": 2, r"layers\.1\..*": 3}, "alpha_pattern": {"^model.layers.0.mlp.up_proj": 5}}
    selection = peft_config.Selection(peft_config.read(PEFT | change, "x"))
    assert [selection.rank(name) for name in LLAMA] == [2, 4, 4, 2, 3, 3, 2, 4, 4]
    assert [selection.alpha(name) for name in LLAMA] == [6, 6, 5, 6, 6, 6, 6, 6, 6]
    stable = peft_config.Selection(peft_config.read(PEFT | change | {"use_rslora": True}, "x"))
    assert [stable.alpha(name) / stable.rank(name) for name in LLAMA[:3]] == pytest.approx([6 / 2**0.5, 3, 2.5])

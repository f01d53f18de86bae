"""Parts of config.json: every number and flag is looked at, and an error names key and file."""

from __future__ import annotations

import math
from typing import Any

import pytest

from vlguard_jax import errors
from vlguard_jax.families.blocks import config_json
from vlguard_jax.families.blocks import configs

LLAMA = {"model_type": "llama", "rope_scaling": {"type": "linear", "factor": 2.0}}
LLAMA3 = {
    "rope_type": "llama3",
    "factor": 8,
    "low_freq_factor": 1,
    "high_freq_factor": 4,
    "original_max_position_embeddings": 8192,
}
TOWER = {
    "model_type": "clip_vision_model",
    "image_size": 28,
    "patch_size": 14,
    "hidden_size": 24,
    "num_attention_heads": 2,
}
NOT_NUMBERS = (math.inf, -math.inf, math.nan, 10**400, True, "1e-5", [1.0], {})
COUNTS = (0, -1, 10**9, 1 << 63, 2.0, "8", True, [], {}, math.nan)
FLAGS = ("false", "true", "", 0, 1, 0.0, [], {})
SIZES = (
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
    "num_key_value_heads",
    "head_dim",
    "vocab_size",
)


@pytest.mark.parametrize(
    ("key", "values"),
    [
        *((key, COUNTS) for key in SIZES),
        *(
            (key, (0, -1e-5, *NOT_NUMBERS))
            for key in ("rms_norm_eps", "rope_theta", "rope_scaling.factor", "rope_scaling.rope_theta")
        ),
        *(
            (f"rope_parameters.{key}", (0, -1.0, *NOT_NUMBERS))
            for key in ("low_freq_factor", "high_freq_factor", "factor")
        ),
        ("rope_parameters.low_freq_factor", (4.0, 5)),  # not below the high one: a division by zero
        ("rope_parameters.original_max_position_embeddings", COUNTS[:2] + COUNTS[3:]),
        ("rope_scaling.type", (7, [], {}, True, "x" * 3000, "a\0b")),
        ("rope_scaling", ("linear", 7, [1], True)),
        ("rope_parameters", ("linear", 7, [1], True)),
        ("partial_rotary_factor", (0.5, *NOT_NUMBERS)),
        ("tie_word_embeddings", FLAGS),
        *((key, FLAGS) for key in ("attention_bias", "mlp_bias")),
    ],
)
def test_numbers_that_no_model_has(key: str, values: tuple[Any, ...]) -> None:
    """Each is refused in a line that names file and key; the same config without it is read."""
    part, _, name = key.rpartition(".")
    base = {**LLAMA, "rope_parameters": LLAMA3} if part == "rope_parameters" else LLAMA
    config_json.text_config(base, "m/config.json")
    for value in values:
        config = {**base, part: {**base[part], name: value}} if part else {**base, name: value}
        with pytest.raises(errors.UserError, match=rf"^m/config\.json: .*{name}") as error:
            config_json.text_config(config, "m/config.json")
        assert "\n" not in str(error.value) and len(str(error.value)) < 400


@pytest.mark.parametrize(
    ("key", "values"),
    [
        *(
            (key, COUNTS)
            for key in ("image_size", "patch_size", "hidden_size", "intermediate_size", "num_hidden_layers")
        ),
        ("num_attention_heads", (5, *COUNTS)),
        ("patch_size", (29,)),
        ("layer_norm_eps", (0, -1e-5, *NOT_NUMBERS)),
        ("num_channels", (1, True, 3.0, "3")),
        (
            "preprocessor.image_mean",
            (0.5, [0.5], [0.5] * 4, [0.5, 0.5, math.nan], [math.inf] * 3, ["a"] * 3, [True] * 3, "abc", {}),
        ),
        (
            "preprocessor.image_std",
            (0, [0.5, 0, 0.5], [0.5] * 2, [-1.0] * 3, [1e-300] * 3, [10**400] * 3, "abc", [[1]] * 3),
        ),
        ("preprocessor.rescale_factor", (0, 1, *NOT_NUMBERS)),
        *(
            (f"preprocessor.do_{step}", ("true", 1, "false", 0, False, []))
            for step in ("resize", "normalize", "rescale", "convert_rgb")
        ),
        ("preprocessor.resample", (3.0, True, "3", [])),
        ("preprocessor.size", (7, "28", [28], {"shortest_edge": [28]}, {"height": 28.0}, True)),
        ("preprocessor.crop_size", (7, "28", [28], {"height": 28, "width": []}, True)),
    ],
)
def test_towers_that_are_none(key: str, values: tuple[Any, ...]) -> None:
    part, _, name = key.rpartition(".")
    config_json.vision_config(TOWER, "t/config.json", {}, "t/p.json")
    for value in values:
        tower, preprocessor = (TOWER, {name: value}) if part else ({**TOWER, name: value}, None)
        where = r"t/p\.json" if part else r"t/config\.json"
        with pytest.raises(errors.UserError, match=rf"^{where}: .*{name}") as error:
            config_json.vision_config(tower, "t/config.json", preprocessor, "t/p.json")
        assert "\n" not in str(error.value) and len(str(error.value)) < 400


def test_rope_of_both_generations() -> None:
    llama3 = {"factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 8192}
    expected = configs.RopeScaling("llama3", 8.0, 1.0, 4.0, 8192)
    old = {"model_type": "llama", "rope_theta": 5e5, "rope_scaling": {"rope_type": "llama3", **llama3}}
    new = {"model_type": "llama", "rope_parameters": {"rope_type": "llama3", "rope_theta": 5e5, **llama3}}
    for config in (old, new):
        text = config_json.text_config(config, "x")
        assert (text.rope_theta, text.rope_scaling) == (5e5, expected)
    text = config_json.text_config({"model_type": "llama", "rope_scaling": {"type": "linear", "factor": 2}}, "x")
    assert (text.rope_theta, text.rope_scaling) == (10000.0, configs.RopeScaling("linear", 2.0))


def test_null_is_left_out() -> None:
    """As in transformers' configs, which write null for what is not set."""
    nothing = dict.fromkeys(
        (*SIZES, "rms_norm_eps", "rope_theta", "rope_scaling", "rope_parameters", "tie_word_embeddings")
    )
    found, expected = (config_json.text_config({"model_type": "llama", **more}, "x") for more in (nothing, {}))
    assert found == expected

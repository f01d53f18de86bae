"""Parts of config.json: every number and flag is looked at, and an error names key and file."""

from __future__ import annotations

import contextlib
import dataclasses
import math
from typing import Any

import pytest
import transformers

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
        ("rope_parameters", ("linear", 7, [1], True, {"full_attention": {"rope_theta": 1e4}})),
        ("partial_rotary_factor", (0.5, *NOT_NUMBERS)),
        ("tie_word_embeddings", FLAGS),
        *((key, FLAGS) for key in ("attention_bias", "mlp_bias")),
    ],
)
def test_numbers_that_no_model_has(key: str, values: tuple[Any, ...]) -> None:
    """Each is refused in a line that names file and key; the same config without it is read."""
    part, _, name = key.rpartition(".")
    base = {"model_type": "llama", "rope_parameters": LLAMA3} if "rope_parameters" in key else LLAMA
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


def test_rope_scaling_counts_before_rope_parameters() -> None:
    """Somebody added what transformers 4 documents to what transformers 5 wrote; both read it so."""
    both = {
        "model_type": "mistral",
        "sliding_window": None,
        "rope_theta": 3e4,
        "rope_parameters": {"rope_type": "default", "rope_theta": 2e4},
        "rope_scaling": {"type": "linear", "factor": 2.0},
    }
    theirs = transformers.MistralConfig(**both).rope_parameters
    text = config_json.text_config(both, "x")
    assert text.rope_scaling == configs.RopeScaling(theirs["rope_type"], theirs["factor"])
    assert text.rope_theta == theirs["rope_theta"] == 3e4


def test_null_is_left_out() -> None:
    """As in transformers' configs, which write null for what is not set."""
    nothing = dict.fromkeys(
        (*SIZES, "rms_norm_eps", "rope_theta", "rope_scaling", "rope_parameters", "tie_word_embeddings")
    )
    found, expected = (config_json.text_config({"model_type": "llama", **more}, "x") for more in (nothing, {}))
    assert found == expected


MISTRAL = {"model_type": "mistral", "sliding_window": None}
V0_2 = {  # text_config of llava-hf/llava-v1.6-mistral-7b-hf
    "architectures": ["MistralForCausalLM"],
    "intermediate_size": 14336,
    "max_position_embeddings": 32768,
    "model_type": "mistral",
    "num_key_value_heads": 8,
    "rms_norm_eps": 1e-05,
    "rope_theta": 1000000.0,
    "sliding_window": None,
    "vocab_size": 32064,
}


@pytest.mark.parametrize("more", [{}, {"head_dim": 64}, {"hidden_size": 5120}, V0_2])
def test_mistral_is_read_as_transformers_reads_it(more: dict[str, Any]) -> None:
    theirs = transformers.MistralConfig(**MISTRAL | more)
    text = config_json.text_config(MISTRAL | more, "x")
    sizes = (text.vocab_size, text.width, text.mlp_width, text.num_layers, text.num_heads, text.num_kv_heads)
    keys = ("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads")
    assert sizes == tuple(getattr(theirs, key) for key in (*keys, "num_key_value_heads"))
    assert (text.head_width, text.norm_eps) == (theirs.head_dim, theirs.rms_norm_eps)
    assert text.rope_theta == theirs.rope_parameters["rope_theta"]
    assert text.architecture == "mistral" and text.rope_scaling is None and not text.tie_embeddings
    assert config_json.text_config(MISTRAL | {"num_key_value_heads": None}, "x").num_kv_heads == 32  # up to 4.x


@pytest.mark.parametrize(
    ("more", "refused"),
    [
        ({"sliding_window": None}, ""),
        ({}, "sliding_window=4096 is shorter than max_position_embeddings=131072"),  # MistralConfig's defaults
        ({"sliding_window": 4096, "max_position_embeddings": 4096}, ""),
        ({"max_position_embeddings": 4096}, ""),
        ({"sliding_window": 4095, "max_position_embeddings": 4096}, "write 4095 for both"),
        ({"sliding_window": "4096"}, "sliding_window='4096' must be a whole number"),
        ({"sliding_window": 0}, "sliding_window=0 must be a whole number"),
    ],
)
def test_attention_within_a_window_is_refused(more: dict[str, Any], refused: str) -> None:
    for model_type in ("mistral", "llava_mistral"):
        config = {"model_type": model_type, **more}
        with pytest.raises(errors.UserError, match=refused) if refused else contextlib.nullcontext():
            config_json.text_config(config, "m/config.json")


@pytest.mark.parametrize("architecture", configs.ARCHITECTURES)
def test_a_language_model_is_written_under_its_own_name(architecture: str) -> None:
    """Also where nothing of its original config is known; transformers reads the same sizes."""
    text = dataclasses.replace(config_json.text_config(V0_2, "x"), architecture=architecture)
    written = config_json.language_json(text, {}, "bfloat16")
    assert config_json.text_config(written, "x") == text
    theirs = transformers.AutoConfig.for_model(**written)
    assert written["architectures"] == [transformers.AutoModelForCausalLM._model_mapping[type(theirs)].__name__]
    assert (theirs.model_type, theirs.num_key_value_heads, theirs.head_dim) == (architecture, 8, 128)
    assert theirs.rope_parameters["rope_theta"] == 1e6 and getattr(theirs, "sliding_window", None) is None

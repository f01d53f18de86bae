"""The JSON files that a saved checkpoint needs besides its weights, for checkpoints of any origin."""

from __future__ import annotations

from collections.abc import Mapping
import pathlib
from typing import Any

from vlguard_jax import errors
from vlguard_jax.checkpoints import checkpoint
from vlguard_jax.checkpoints import hub
from vlguard_jax.checkpoints import layouts
from vlguard_jax.checkpoints import model_config as config_lib
from vlguard_jax.checkpoints import tokenizer_files
from vlguard_jax.models import config as model_config

_CARRIED = (
    "max_position_embeddings",
    "bos_token_id",
    "eos_token_id",
    "initializer_range",
    "attention_dropout",
    "use_cache",
)
OWN_TOWER = "vision_tower"  # the folder inside a saved llava checkpoint, and its name where it has no other


def _known(extras: Mapping[str, Any], key: str) -> Any:
    """A value of the original files, wherever its layout keeps it; None if nowhere."""
    config = extras.get("config", {})
    for place in (config.get("text_config") or {}, config, extras.get("generation_config", {})):
        if place.get(key) is not None:
            return place[key]
    return None


def text_json(model: checkpoint.Checkpoint) -> dict[str, Any]:
    """A LlamaConfig with every size written out."""
    t = model.config.text
    scaling = None
    if t.rope_scaling:
        scaling = {"type": t.rope_scaling.kind, "rope_type": t.rope_scaling.kind, "factor": t.rope_scaling.factor}
        if t.rope_scaling.kind == "llama3":
            scaling["low_freq_factor"] = t.rope_scaling.low_freq_factor
            scaling["high_freq_factor"] = t.rope_scaling.high_freq_factor
            scaling["original_max_position_embeddings"] = t.rope_scaling.original_max_position
    carried = {key: value for key in _CARRIED if (value := _known(model.extras, key)) is not None}
    return carried | {
        "vocab_size": t.vocab_size,
        "hidden_size": t.width,
        "intermediate_size": t.mlp_width,
        "num_hidden_layers": t.num_layers,
        "num_attention_heads": t.num_heads,
        "num_key_value_heads": t.num_kv_heads,
        "head_dim": t.head_width,
        "hidden_act": "silu",
        "rms_norm_eps": t.norm_eps,
        "rope_theta": t.rope_theta,
        "rope_scaling": scaling,
        "attention_bias": False,
        "mlp_bias": False,
        "tie_word_embeddings": t.tie_embeddings,
    }


def vision_json(v: model_config.VisionConfig) -> dict[str, Any]:
    """A CLIPVisionConfig with every size written out."""
    return {
        "model_type": "clip_vision_model",
        "hidden_size": v.width,
        "intermediate_size": v.mlp_width,
        "num_hidden_layers": v.num_layers,
        "num_attention_heads": v.num_heads,
        "image_size": v.image_size,
        "patch_size": v.patch_size,
        "hidden_act": v.activation,
        "layer_norm_eps": v.norm_eps,
    }


def preprocessor_json(model: checkpoint.Checkpoint) -> dict[str, Any]:
    """A CLIPImageProcessor's settings."""
    assert model.config.vision is not None
    v = model.config.vision
    original = model.extras.get("preprocessor") or {}
    return {
        "image_processor_type": "CLIPImageProcessor",
        "do_resize": True,
        "size": {"shortest_edge": v.image_size},
        "resample": 3,
        "do_center_crop": True,
        "crop_size": {"height": v.image_size, "width": v.image_size},
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": list(v.image_mean),
        "image_std": list(v.image_std),
        "do_convert_rgb": True,
        **original,
    }


def tower_name(model: checkpoint.Checkpoint) -> str:
    """The name under which the vision tower is known, for `mm_vision_tower`."""
    original = model.extras.get("config", {}).get("mm_vision_tower") or model.extras.get("vision_tower")
    if original:
        return str(original)
    preset = model_config.CLIP_VIT_L_14_336
    sizes = vision_json(model.config.vision) if model.config.vision else {}
    return config_lib.OPENAI_TOWER if sizes == vision_json(preset) else OWN_TOWER


def provenance(model: checkpoint.Checkpoint) -> dict[str, Any]:
    """How the model came to be, as a section of `config.json` that other programs leave alone."""
    return {checkpoint.PROVENANCE: model.extras["provenance"]} if model.extras.get("provenance") else {}


def llava_json(model: checkpoint.Checkpoint, dtype: str) -> dict[str, Any]:
    """`config.json` of LLaVA's own layout."""
    if model.extras.get("kind") == "llava":
        return {**model.extras["config"], "torch_dtype": dtype}
    if model.config.vision is None:
        raise errors.UserError(
            "a language model without vision tower and projector cannot be saved as llava; save as hf"
        )
    return text_json(model) | {
        "architectures": ["LlavaLlamaForCausalLM"],
        "model_type": "llava_llama",
        "mm_vision_tower": tower_name(model),
        "mm_hidden_size": model.config.vision.width,
        "mm_vision_select_layer": model.config.vision.feature_layer,
        "mm_vision_select_feature": "patch",
        "mm_projector_type": model.config.projector,
        "mm_patch_merge_type": "flat",
        "mm_use_im_start_end": False,
        "mm_use_im_patch_token": False,
        "use_mm_proj": True,
        "unfreeze_mm_vision_tower": False,
        "image_aspect_ratio": "pad",
        "tokenizer_padding_side": "right",
        "torch_dtype": dtype,
    }


def hf_json(model: checkpoint.Checkpoint, dtype: str, tokens: tokenizer_files.HfTokens | None) -> dict[str, Any]:
    """`config.json` of the llava-hf layout with these added tokens, or of a plain Llama model."""
    text = {"architectures": ["LlamaForCausalLM"], "model_type": "llama", **text_json(model), "torch_dtype": dtype}
    if tokens is None:
        return text | provenance(model)
    if model.extras.get("kind") == "llava-hf":
        config = _same_hf_json(model.extras["config"], dtype, tokens)
    else:
        config = _new_hf_json(model, dtype, tokens, text)
    vocab = model.config.text.vocab_size
    own = dict(model.extras.get("provenance") or {})
    if config_lib.true_vocab(config, config["text_config"]["vocab_size"]) != vocab:
        own[checkpoint.VOCAB_SIZE] = vocab
    return config | ({checkpoint.PROVENANCE: own} if own else {})


def _same_hf_json(before: Mapping[str, Any], dtype: str, tokens: tokenizer_files.HfTokens) -> dict[str, Any]:
    """The config that the model came with, changed where type, ids or rows are others."""
    image, pad = config_lib.image_id(before), before.get("pad_token_id")
    image = config_lib.DEFAULT_IMAGE_ID if image is None else image
    if tokens.records:
        image, pad = tokens.image, tokens.pad
    # The parts may name a type of their own (5.x: `dtype`), and it would win over the whole's.
    parts = {k: _retyped(before[k], dtype) for k in ("text_config", "vision_config") if before.get(k)}
    text = {"model_type": "llama", "vocab_size": 32000, **parts.get("text_config", {})}
    if tokens.records and tokens.rows > text["vocab_size"]:
        text["vocab_size"] = config_lib.padded(tokens.rows)
    if text.get("pad_token_id") is not None:
        text["pad_token_id"] = pad
    whole = {"image_token_index": image, "pad_token_id": pad, "vocab_size": text["vocab_size"]}
    dropped = ("image_token_id", checkpoint.PROVENANCE)
    kept = {k: v for k, v in before.items() if k not in dropped}
    return _retyped(kept | parts | {"text_config": text} | whole, dtype)


def _new_hf_json(
    model: checkpoint.Checkpoint, dtype: str, tokens: tokenizer_files.HfTokens, text: Mapping[str, Any]
) -> dict[str, Any]:
    assert model.config.vision is not None
    padded = config_lib.padded(max(model.config.text.vocab_size, tokens.rows))
    return {
        "architectures": ["LlavaForConditionalGeneration"],
        "model_type": "llava",
        "ignore_index": -100,
        "image_token_index": tokens.image,
        "pad_token_id": tokens.pad,
        "vocab_size": padded,
        "image_seq_length": model.config.vision.num_patches,
        "projector_hidden_act": "gelu",
        "multimodal_projector_bias": True,
        "vision_feature_layer": model.config.vision.feature_layer,
        "vision_feature_select_strategy": "default",
        "tie_word_embeddings": model.config.text.tie_embeddings,
        "text_config": {**text, "vocab_size": padded},
        "vision_config": {**vision_json(model.config.vision), "torch_dtype": dtype},
        "torch_dtype": dtype,
    }


def _retyped(config: Mapping[str, Any], dtype: str) -> dict[str, Any]:
    return {k: v for k, v in config.items() if k != "dtype"} | {"torch_dtype": dtype}


def generation_json(model: checkpoint.Checkpoint, pad_token_id: int | None) -> dict[str, Any]:
    """`generation_config.json`; `pad_token_id` None keeps the original's where it lies in the vocabulary."""
    original = dict(model.extras.get("generation_config", {}))
    for key in ("bos_token_id", "eos_token_id"):
        if (value := _known(model.extras, key)) is not None:
            original.setdefault(key, value)
    pad = original.pop("pad_token_id", None) if pad_token_id is None else pad_token_id
    if pad is not None and (pad_token_id is not None or pad < model.config.text.vocab_size):
        original["pad_token_id"] = pad
    return original


def adapter_json(model: checkpoint.Checkpoint, base: str) -> dict[str, Any]:
    """`adapter_config.json` with the keys of peft 0.10 (src/peft/tuners/lora/config.py)."""
    assert model.lora is not None
    on_the_hub = hub.is_hub_id(base) and not pathlib.Path(base).exists()
    repo, _, revision = base.partition("@") if on_the_hub else (base, "", "")
    ours = {
        "base_model_name_or_path": repo,
        "revision": revision or None,
        "r": model.lora.rank,
        "lora_alpha": int(model.lora.alpha) if model.lora.alpha == int(model.lora.alpha) else model.lora.alpha,
        "lora_dropout": model.lora.dropout,
        "target_modules": [layouts.LINEARS[t][1].rsplit(".", 1)[1] for t in model.lora.targets],
    }
    fixed = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "bias": "none",
        "fan_in_fan_out": False,
        "inference_mode": True,
        "init_lora_weights": True,
        "use_dora": False,
        "use_rslora": False,
        "alpha_pattern": {},
        "rank_pattern": {},
        "loftq_config": {},
        "megatron_core": "megatron.core",
    }
    unset = (
        "auto_mapping",
        "layer_replication",
        "layers_pattern",
        "layers_to_transform",
        "megatron_config",
        "modules_to_save",
        "revision",
    )
    return dict.fromkeys(unset) | fixed | model.extras.get("adapter_config", {}) | ours


def processor_json(model: checkpoint.Checkpoint) -> dict[str, Any]:
    """`processor_config.json` of a LlavaProcessor."""
    assert model.config.vision is not None
    return {
        "processor_class": "LlavaProcessor",
        "image_token": "<image>",
        "patch_size": model.config.vision.patch_size,
        "num_additional_image_tokens": 1,
        "vision_feature_select_strategy": "default",
    }

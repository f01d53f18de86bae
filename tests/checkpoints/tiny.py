"""Small random models of transformers, saved under every naming generation, and a comparison of our trees."""

from __future__ import annotations

from collections.abc import Mapping
import json
import pathlib
from typing import Any

import numpy as np
import safetensors.torch
import torch
import transformers

from vlguard_jax import trees
from vlguard_jax.checkpoints import checkpoint
from vlguard_jax.checkpoints import tensors

LLAMA3_ROPE = {
    "rope_type": "llama3",
    "rope_theta": 500000.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}
TEXT = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 4,
}
VISION = {
    "hidden_size": 24,
    "intermediate_size": 40,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "image_size": 28,
    "patch_size": 14,
}
VARIANTS: dict[str, dict[str, Any]] = {
    "mha": {},
    "gqa": {"num_key_value_heads": 2},
    "tied": {"tie_word_embeddings": True},
    "llama3": {"num_key_value_heads": 1, "rope_parameters": LLAMA3_ROPE, "head_dim": 16},
    "mistral": {"model_type": "mistral", "num_key_value_heads": 2, "rope_theta": 1e6, "sliding_window": None},
}
VOCAB = 100


def text_config(**text: Any) -> transformers.PreTrainedConfig:
    """Sizes of a decoder: a Llama unless `model_type` says otherwise."""
    return transformers.AutoConfig.for_model(**({"model_type": "llama"} | TEXT | text))


def llama(**text: Any) -> transformers.PreTrainedModel:
    """A random language model."""
    torch.manual_seed(0)
    return transformers.AutoModelForCausalLM.from_config(text_config(**({"vocab_size": VOCAB} | text))).eval()


def llava(**text: Any) -> transformers.LlavaForConditionalGeneration:
    """A random LLaVA model with the hub's vocabulary: `<image>` = V, `<pad>` = V + 1, padded to a multiple of 64."""
    torch.manual_seed(0)
    config = transformers.LlavaConfig(
        vision_config=transformers.CLIPVisionConfig(**VISION),
        text_config=text_config(**({"vocab_size": 128} | text)),
        image_token_index=VOCAB,
        pad_token_id=VOCAB + 1,
    )
    return transformers.LlavaForConditionalGeneration(config).eval()


def llava_next(**text: Any) -> transformers.LlavaNextForConditionalGeneration:
    """A random LLaVA-NeXT model with the published grids and the hub's vocabulary."""
    torch.manual_seed(0)
    side = VISION["image_size"]
    config = transformers.LlavaNextConfig(
        vision_config=transformers.CLIPVisionConfig(**VISION),
        text_config=text_config(**({"vocab_size": 128} | text)),
        image_grid_pinpoints=[[high * side, wide * side] for high, wide in ((1, 2), (2, 1), (2, 2), (3, 1), (1, 3))],
        image_token_index=VOCAB,
        pad_token_id=VOCAB + 1,
    )
    return transformers.LlavaNextForConditionalGeneration(config).eval()


def clip() -> transformers.CLIPModel:
    """A random two-sided CLIP model."""
    torch.manual_seed(1)
    text = {
        "hidden_size": 16,
        "intermediate_size": 24,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "vocab_size": 30,
    }
    return transformers.CLIPModel(transformers.CLIPConfig(text_config=text, vision_config=VISION, projection_dim=8))


def hub_name(name: str) -> str:
    """The name of transformers 4.36 to 4.51 for a tensor of the model in memory (5.x)."""
    for now, then in (
        ("model.language_model.", "language_model.model."),
        ("lm_head.", "language_model.lm_head."),
        ("model.multi_modal_projector.", "multi_modal_projector."),
        ("model.vision_tower.", "vision_tower.vision_model."),
        ("model.image_newline", "image_newline"),
    ):
        if name.startswith(now):
            return then + name.removeprefix(now)
    raise KeyError(name)


def save(model: transformers.PreTrainedModel, folder: pathlib.Path, names: str) -> pathlib.Path:
    """Save in one naming generation: "pretrained" (what save_pretrained writes), "memory" (5.x in memory) or "hub"
    (4.36)."""
    model.save_pretrained(folder)
    if names != "pretrained":
        state = model.state_dict()
        if model.config.tie_word_embeddings:
            state.pop("lm_head.weight")
        renamed = {hub_name(k) if names == "hub" else k: v.contiguous().clone() for k, v in state.items()}
        safetensors.torch.save_file(renamed, folder / "model.safetensors")
    return folder


def read_all(folder: pathlib.Path) -> dict[str, np.ndarray]:
    """All tensors of a model folder."""
    return {name: tensor.read() for name, tensor in tensors.open_folder(folder).items()}


def change_json(path: pathlib.Path, **changes: Any) -> None:
    """Overwrite some keys of a JSON file; a value of None removes the key."""
    value = json.loads(path.read_text()) | changes
    path.write_text(json.dumps({k: v for k, v in value.items() if v is not None}))


def assert_same_arrays(found: Mapping[str, np.ndarray], expected: Mapping[str, np.ndarray]) -> None:
    """Same names, types and bits."""
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert found[name].dtype == value.dtype, name
        np.testing.assert_array_equal(found[name], value, err_msg=name)


def assert_same_model(found: checkpoint.Checkpoint, expected: checkpoint.Checkpoint) -> None:
    """Same sizes and same bits; the hashes agree with that."""
    assert found.config == expected.config
    assert found.lora == expected.lora
    assert_same_arrays(trees.flatten(found.params), trees.flatten(expected.params))
    assert found.weights_sha256 == expected.weights_sha256

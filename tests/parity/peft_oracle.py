"""Adapters that peft makes on small random models of transformers, and inputs for both sides."""

from __future__ import annotations

from collections.abc import Callable
import dataclasses
import functools
import pathlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import peft
import safetensors.torch
import torch
import transformers

from tests.checkpoints import tiny
from tests.families.llava_next import pair
from vlguard_jax import types
from vlguard_jax.checkpoints import checkpoint
from vlguard_jax.families import functional
from vlguard_jax.families.blocks import clip
from vlguard_jax.families.llava import config as llava_config
from vlguard_jax.families.llava_next import config as next_config

MODELS: dict[str, Callable[..., transformers.PreTrainedModel]] = {
    "llama": tiny.llama,
    "llava": tiny.llava,
    "llava_next": tiny.llava_next,
}
DECODER = r"(?!.*vision_tower).*\.(q_proj|down_proj)"
PROJECTOR = ("multi_modal_projector",)
# Whether the decoder's adapters can be trained on here, and peft's settings.
CASES: dict[str, tuple[bool, dict[str, Any]]] = {
    "list": (True, {"target_modules": ["q_proj", "v_proj"]}),
    "suffixes": (True, {"target_modules": ["self_attn.o_proj", "mlp.up_proj"]}),
    "regex": (True, {"target_modules": DECODER}),
    "all-linear": (True, {"target_modules": "all-linear"}),
    "decoder and projector": (True, {"target_modules": "all-linear", "exclude_modules": r".*vision_tower.*"}),
    "exclude_modules": (True, {"target_modules": ["q_proj", "fc1"], "exclude_modules": ["0.mlp.fc1"]}),
    "rank_pattern": (False, {"target_modules": DECODER, "rank_pattern": {"q_proj": 3}}),
    "alpha_pattern": (False, {"target_modules": DECODER, "alpha_pattern": {r"layers\.1\.mlp\..*": 7}}),
    "both patterns, one scale": (True, {"target_modules": "all-linear", "alpha_pattern": {".*tower.*": 1}}),
    "rsLoRA": (True, {"target_modules": ["gate_proj"], "use_rslora": True}),
    "rsLoRA and ranks": (
        False,
        {"target_modules": DECODER, "use_rslora": True, "rank_pattern": {"^(model|language).*down_proj": 5}},
    ),
    "DoRA": (False, {"target_modules": "all-linear", "use_dora": True}),
    "layers_to_transform": (False, {"target_modules": ["q_proj", "fc1"], "layers_to_transform": [1]}),
    "layers_pattern": (False, {"target_modules": ["q_proj"], "layers_to_transform": 0, "layers_pattern": "layers"}),
    "modules_to_save": (True, {"target_modules": ["o_proj"], "modules_to_save": ["lm_head", "embed_tokens"]}),
    "bias": (True, {"target_modules": ["q_proj"], "bias": "all"}),
    "bias of LoRA": (True, {"target_modules": ["q_proj", "fc1"], "bias": "lora_only"}),
    "embeddings": (True, {"target_modules": ["embed_tokens", "lm_head", "q_proj"]}),
    "embeddings and DoRA": (False, {"target_modules": ["embed_tokens", "lm_head", "q_proj"], "use_dora": True}),
}
# With pictures only.
SEEING: dict[str, tuple[bool, dict[str, Any]]] = {
    "projector": (True, {"target_modules": DECODER, "modules_to_save": list(PROJECTOR)}),
    "projector and biases": (True, {"target_modules": "all-linear", "bias": "all", "modules_to_save": ["lm_head"]}),
    "saved projector and biases": (
        True,
        {"target_modules": ["o_proj"], "bias": "all", "modules_to_save": list(PROJECTOR)},
    ),
    "tower": (False, {"target_modules": ["fc1", "patch_embedding", "position_embedding"]}),
}
# LLaVA-NeXT has LLaVA's names; what is its own lies beside them.
OF_NEXT = ("all-linear", "alpha_pattern", "DoRA", "modules_to_save", "bias", "embeddings", "projector", "tower")
OF = {"llama": tuple(CASES), "llava": tuple(CASES | SEEING), "llava_next": OF_NEXT}
ALL = [(kind, case) for kind, cases in OF.items() for case in cases]


def base(kind: str, folder: pathlib.Path, names: str = "hub") -> pathlib.Path:
    """The folder of a random model without adapters."""
    return tiny.save(MODELS[kind](num_key_value_heads=2), folder, "pretrained" if kind == "llama" else names)


def make(kind: str, case: str) -> peft.PeftModel:
    """Random adapters on that model; everything that they train is far from its beginning."""
    settings = {"r": 2, "lora_alpha": 4, "lora_dropout": 0.1} | (CASES | SEEING)[case][1]
    if kind == "llama" and isinstance(settings["target_modules"], list):  # it has no tower
        settings["target_modules"] = [name for name in settings["target_modules"] if name != "fc1"]
    model = peft.get_peft_model(MODELS[kind](num_key_value_heads=2), peft.LoraConfig(**settings)).eval()
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for value in model.parameters():
            if value.requires_grad:
                value.add_(0.1 * torch.randn(value.shape, generator=generator))
    return model


def renamed(folder: pathlib.Path, change: Callable[[str], str], *, torch_file: bool = False) -> None:
    """Give the tensors of an adapter other names, in a safetensors file or one of torch."""
    path = folder / "adapter_model.safetensors"
    state = {change(name): value for name, value in safetensors.torch.load_file(path).items()}
    if torch_file:
        path.unlink()
        torch.save(state, folder / "adapter_model.bin")
    else:
        safetensors.torch.save_file(state, path)


@dataclasses.dataclass(frozen=True)
class Asked:
    """The same prompts on both sides."""

    batch: types.Batch
    torch: dict[str, torch.Tensor]

    def ours(self, model: checkpoint.Checkpoint) -> np.ndarray:
        """Logits of our network [B, T, V], adapters apart if it has any."""
        return np.asarray(_program(functional.Model(model.config, "fp32", model.lora))(model.params, self.batch))

    def theirs(self, model: torch.nn.Module) -> np.ndarray:
        """Logits of torch, without the padding of the vocabulary."""
        with torch.no_grad():
            return model(**self.torch).logits[..., : tiny.VOCAB].numpy()


@functools.lru_cache
def _program(network: functional.Model) -> Callable[..., jax.Array]:
    return jax.jit(network.logits)


def ask(model: checkpoint.Checkpoint) -> Asked:
    """Prompts for a model, with pictures if it sees."""
    rng, length = np.random.default_rng(4), 11
    config = model.config
    if isinstance(config, next_config.LlavaNextConfig):
        (asked,) = pair.ask([1], [(40, 30)])
        both = pair.Pair(None, model)  # type: ignore[arg-type]  # the oracle's inputs need no model
        made = pair.batch(both, [[asked]])
        inputs = pair.torch_inputs(both, asked)
        cut = jax.tree.map(lambda x: x[:, : inputs["input_ids"].shape[1]], made._replace(pictures={}))
        return Asked(cut._replace(pictures=made.pictures), inputs)
    tokens = rng.integers(3, tiny.VOCAB, (2, length)).astype(np.int32)
    slot, pictures, inputs = np.full_like(tokens, -1), {}, {}
    if isinstance(config, llava_config.LlavaConfig):
        vision, patches = config.vision, config.vision.num_patches
        slot[:, 2 : 2 + patches] = np.arange(2 * patches).reshape(2, patches)
        images = rng.integers(0, 256, (2, vision.image_size, vision.image_size, 3), dtype=np.uint8)
        pixels = np.asarray(clip.normalize(jnp.asarray(images), vision)).transpose(0, 3, 1, 2)
        pictures, inputs = {"images": jnp.asarray(images)}, {"pixel_values": torch.tensor(np.ascontiguousarray(pixels))}
    ids = torch.tensor(np.where(slot >= 0, tiny.VOCAB, tokens)).long()
    zeros, positions = np.zeros_like(tokens), np.broadcast_to(np.arange(length, dtype=np.int32), tokens.shape)
    weights = np.zeros(tokens.shape, np.float32)
    batch = types.Batch(tokens, zeros, weights, zeros + 1, positions, pictures, slot, zeros)
    return Asked(jax.tree.map(jnp.asarray, batch), {"input_ids": ids, **inputs})

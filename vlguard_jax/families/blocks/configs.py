"""Sizes of the shared blocks.

Every field that is compared affects the forward pass or the shapes (tests/families/test_configs.py proves it). Values
come from a checkpoint's `config.json` or from a family's presets.
"""

from __future__ import annotations

import dataclasses

ARCHITECTURES = ("llama", "mistral")  # what config.json calls a decoder; both are computed alike
LINEARS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")  # of a decoder layer
CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)


@dataclasses.dataclass(frozen=True)
class VisionConfig:
    """CLIP vision tower.

    `feature_layer` is an index into the list of hidden states, as in Hugging Face (-2: last but one).
    """

    image_size: int
    patch_size: int
    width: int
    num_layers: int
    num_heads: int
    mlp_width: int
    norm_eps: float
    activation: str  # "quick_gelu" or "gelu"
    feature_layer: int = -2
    image_mean: tuple[float, float, float] = CLIP_MEAN
    image_std: tuple[float, float, float] = CLIP_STD

    @property
    def num_patches(self) -> int:
        """P, patches per picture, without the class token."""
        return (self.image_size // self.patch_size) ** 2


@dataclasses.dataclass(frozen=True)
class RopeScaling:
    """Frequency scaling. kind "linear" reads only `factor`; "llama3" reads all."""

    kind: str
    factor: float
    low_freq_factor: float = 1.0
    high_freq_factor: float = 4.0
    original_max_position: int = 8192


@dataclasses.dataclass(frozen=True)
class TextConfig:
    """Llama-family decoder.

    `architecture`, one of ARCHITECTURES, is not a size: config.json names it, and two models may differ in it alone.
    """

    vocab_size: int
    width: int
    num_layers: int
    num_heads: int
    num_kv_heads: int
    head_width: int
    mlp_width: int
    norm_eps: float
    rope_theta: float
    rope_scaling: RopeScaling | None = None
    tie_embeddings: bool = False
    architecture: str = dataclasses.field(default="llama", compare=False)


@dataclasses.dataclass(frozen=True)
class LoraConfig:
    """Low-rank adapters with PEFT semantics: y += (alpha / rank) * B(A(dropout(x))).

    `targets` are linear layers of the decoder blocks, by their names.
    """

    rank: int
    alpha: float
    dropout: float
    targets: tuple[str, ...] = LINEARS


CLIP_VIT_L_14_336 = VisionConfig(
    image_size=336,
    patch_size=14,
    width=1024,
    num_layers=24,
    num_heads=16,
    mlp_width=4096,
    norm_eps=1e-5,
    activation="quick_gelu",
)


def _vicuna(width: int, num_layers: int, num_heads: int, mlp_width: int) -> TextConfig:
    return TextConfig(
        vocab_size=32000,
        width=width,
        num_layers=num_layers,
        num_heads=num_heads,
        num_kv_heads=num_heads,
        head_width=width // num_heads,
        mlp_width=mlp_width,
        norm_eps=1e-5,
        rope_theta=10000.0,
    )


VICUNA_7B = _vicuna(4096, 32, 32, 11008)
VICUNA_13B = _vicuna(5120, 40, 40, 13824)

# Mistral-7B-Instruct-v0.2 and Meta-Llama-3-8B-Instruct, by their config.json.
MISTRAL_7B = dataclasses.replace(
    VICUNA_7B, num_kv_heads=8, mlp_width=14336, rope_theta=1000000.0, architecture="mistral"
)
LLAMA_3_8B = dataclasses.replace(VICUNA_7B, vocab_size=128256, num_kv_heads=8, mlp_width=14336, rope_theta=500000.0)

"""A Llama model out of a GGUF file: its sizes, and its weights under the names and in the order of the tree.

Source: llama.cpp, convert_hf_to_gguf.py (`LlamaModel`), whose steps are undone here.
"""

from __future__ import annotations

from collections.abc import Sequence
import dataclasses
from typing import Any

import numpy as np

from vlguard_jax import errors
from vlguard_jax import fields
from vlguard_jax import limits
from vlguard_jax import trees
from vlguard_jax.checkpoints import gguf_files
from vlguard_jax.checkpoints import layouts
from vlguard_jax.checkpoints import tensors
from vlguard_jax.families.blocks import configs
from vlguard_jax.families.llama import config as llama_config

ARCHITECTURE = "llama"
_USED = (
    *("block_count", "context_length", "embedding_length", "feed_forward_length", "vocab_size"),
    *("attention.head_count", "attention.head_count_kv", "attention.key_length", "attention.value_length"),
    *("attention.layer_norm_rms_epsilon", "rope.freq_base", "rope.dimension_count"),
)
# Settings that are known and must say that the model does without: experts, scaled positions.
_WITHOUT: dict[str, tuple[Any, ...]] = {"expert_count": (0,), "expert_used_count": (0,), "rope.scaling.type": ("none",)}


@dataclasses.dataclass(frozen=True)
class Stack:
    """All layers of one array as save.py asks for them: computed from the file one layer at a time.

    Attributes:
      shape, dtype: of the whole array.
    """

    row: layouts.Row
    stored: Sequence[tensors.Tensor]
    heads: int  # whose rows lie in llama.cpp's order; 0: none do

    @property
    def shape(self) -> tuple[int, ...]:
        return self.row.shape

    @property
    def dtype(self) -> np.dtype:
        return tensors.FLOATS["fp32"]

    def __getitem__(self, layer: Any) -> np.ndarray:
        """One layer of a stack, or with `...` an array that is none."""
        value = self.stored[layer if self.row.stacked else 0].read().astype(np.float32, copy=False)
        return self.row.to_tree(halves(value, self.heads) if self.heads else value)


def halves(rows: np.ndarray, heads: int) -> np.ndarray:
    """The rows of q or k in the order of transformers, which turns the first half of a head's numbers with the second.

    llama.cpp turns neighbours and keeps such pairs together. rows: f[heads * D, in].
    """
    pairs = rows.reshape(heads, -1, 2, *rows.shape[1:])
    return np.ascontiguousarray(pairs.swapaxes(1, 2)).reshape(rows.shape)


def check_architecture(gguf: gguf_files.Gguf) -> None:
    """Raise UserError where a file holds another kind of model, whatever else it has."""
    architecture = gguf.settings.get("general.architecture")
    if architecture != ARCHITECTURE:
        raise errors.UserError(
            f"{gguf.path}: a model of the architecture {errors.short(architecture)}, only {ARCHITECTURE!r} is read;"
            " take the model's own folder"
        )


def sizes(gguf: gguf_files.Gguf, vocab_size: int) -> llama_config.LlamaConfig:
    """The sizes that the settings of a file give to a model with so many tokens.

    Raises:
      UserError: a setting that the decoder does not have, or one that is missing or makes no sense.
    """
    found = fields.Fields(gguf.settings, str(gguf.path))
    known = {f"{ARCHITECTURE}.{key}" for key in (*_USED, *_WITHOUT)}
    for key in gguf.settings:
        if key.startswith(f"{ARCHITECTURE}.") and key not in known:
            raise errors.UserError(
                f"{gguf.path}: the setting {errors.short(key)} is not supported; take the model's own folder"
            )
    found.only(**{f"{ARCHITECTURE}.{key}": (values[0], *values, None) for key, values in _WITHOUT.items()})

    def size(key: str, default: int | None = None, most: int = limits.MODEL_SIZE) -> int:
        return found.size(f"{ARCHITECTURE}.{key}", default, most=most)

    width, heads = size("embedding_length"), size("attention.head_count")
    kv_heads, head_width = size("attention.head_count_kv", heads), size("attention.key_length", max(1, width // heads))
    given = (size("attention.value_length", head_width), size("rope.dimension_count", head_width))
    whole = "llama.attention.key_length" in gguf.settings or not width % heads
    if heads % kv_heads or head_width % 2 or not whole or given != (head_width, head_width):
        raise errors.UserError(
            f"{gguf.path}: embedding_length={width}, head_count={heads}, head_count_kv={kv_heads},"
            f" key_length={head_width}, value_length={given[0]} and dimension_count={given[1]} contradict each other;"
            " get it again"
        )
    if (said := size("vocab_size", vocab_size)) != vocab_size:
        raise errors.UserError(
            f"{gguf.path}: llama.vocab_size={said:,}, and it has {vocab_size:,} tokens; get it again"
        )
    epsilon = f"{ARCHITECTURE}.attention.layer_norm_rms_epsilon"
    return llama_config.LlamaConfig(
        configs.TextConfig(
            vocab_size=vocab_size,
            width=width,
            num_layers=size("block_count", most=limits.LAYERS),
            num_heads=heads,
            num_kv_heads=kv_heads,
            head_width=head_width,
            mlp_width=size("feed_forward_length"),
            norm_eps=_decimal(found.number(epsilon, most=1.0)),
            rope_theta=_decimal(found.number(f"{ARCHITECTURE}.rope.freq_base", 10000.0, least=1.0)),
            tie_embeddings="output.weight" not in gguf.tensors,
        )
    )


def _decimal(value: float) -> float:
    """The number that was meant, of which the file holds the nearest float32: 1e-05, not 9.999999747378752e-06."""
    return float(str(np.float32(value)))


def context_length(gguf: gguf_files.Gguf) -> int:
    """Tokens that the model was made for. Raises UserError where the file does not say."""
    return fields.Fields(gguf.settings, str(gguf.path)).size(f"{ARCHITECTURE}.context_length", most=limits.POSITIONS)


def params(gguf: gguf_files.Gguf, config: llama_config.LlamaConfig) -> dict[str, Any]:
    """The parameter tree, each leaf a `Stack`.

    Raises:
      UserError: a tensor is missing, unknown, or of another shape than the sizes give it.
    """
    rows = layouts.rows("gguf", config, ("text", "head"))
    placed, _ = layouts.match(rows, gguf.tensors, (), str(gguf.path))
    turned = {"q_proj": config.text.num_heads, "k_proj": config.text.num_kv_heads}
    heads = {f"text.layers.attention.{name}.kernel": count for name, count in turned.items()}
    return trees.unflatten({row.path: Stack(row, placed[row.path], heads.get(row.path, 0)) for row in rows})

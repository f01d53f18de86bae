"""The tiny model of the quickstart: tokenizer, CLIP tower, projector and Llama decoder, made by code, stored as a LLaVA
folder.

The tower stays frozen in LLaVA's recipe, so it is warmed up first (tower.py); everything else is random.
"""

from __future__ import annotations

from collections.abc import Sequence
import io
import json
from pathlib import Path
import tempfile
from typing import Any

import numpy as np
import sentencepiece

from vlguard_jax import trees
from vlguard_jax.checkpoints import checkpoint as checkpoint_lib
from vlguard_jax.checkpoints import layouts
from vlguard_jax.checkpoints import save
from vlguard_jax.families.blocks import configs
from vlguard_jax.families.chat import templates
from vlguard_jax.families.llava import config as llava_config
from vlguard_jax.quickstart import language as language_lib
from vlguard_jax.quickstart import pictures
from vlguard_jax.quickstart import tower

VOCABULARY = 384
TOWER_WIDTH, TOWER_LAYERS, WIDTH, MLP_WIDTH, LAYERS, HEADS = 64, 2, 96, 192, 3, 4
MEAN, STD = (0.5, 0.5, 0.5), (0.25, 0.25, 0.25)


def train_tokenizer(folder: Path, texts: Sequence[str], pieces: int = VOCABULARY) -> None:
    """Write a sentencepiece BPE tokenizer of at most `pieces` with Llama's special ids (0 unk, 1 bos, 2 eos) and its
    config into `folder`.

    The template's system prompt is one added token, which saves thirty tokens in every tiny conversation.
    """
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter([*texts, *["USER: ASSISTANT: "] * 200]),
        model_writer=model,
        vocab_size=pieces,
        model_type="bpe",
        split_digits=True,
        character_coverage=1.0,
        normalization_rule_name="identity",
        # "USER" is one piece, and two after a space, as in Llama's tokenizer: the reference relies on it
        user_defined_symbols=["USER", "\n"],
        num_threads=1,
        minloglevel=2,
        hard_vocab_limit=False,
    )
    (folder / "tokenizer.model").write_bytes(model.getvalue())
    system = templates.get_template("vicuna_v1").system
    config = {
        "tokenizer_class": "LlamaTokenizer",
        "legacy": False,
        "add_bos_token": True,
        "add_eos_token": False,
        "model_max_length": 2048,
    }
    config |= {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
    config |= {
        "added_tokens_decoder": {
            str(_pieces(folder)): {"content": system, "special": False, "lstrip": False, "rstrip": False}
        }
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(config, indent=2) + "\n")


def _pieces(folder: Path) -> int:
    return sentencepiece.SentencePieceProcessor(model_file=str(folder / "tokenizer.model")).vocab_size()


def vocabulary_size(folder: Path) -> int:
    """Tokens of `folder`: sentencepiece's and the added one; a small text may yield fewer than requested."""
    return _pieces(folder) + 1


def sizes(vocab_size: int) -> llava_config.LlavaConfig:
    """Sizes of the tiny model."""
    vision = configs.VisionConfig(
        image_size=pictures.SIDE,
        patch_size=pictures.CELL,
        width=TOWER_WIDTH,
        num_layers=TOWER_LAYERS,
        num_heads=4,
        mlp_width=2 * TOWER_WIDTH,
        norm_eps=1e-5,
        activation="quick_gelu",
        image_mean=MEAN,
        image_std=STD,
    )
    text = configs.TextConfig(
        vocab_size=vocab_size,
        width=WIDTH,
        num_layers=LAYERS,
        num_heads=HEADS,
        num_kv_heads=HEADS,
        head_width=WIDTH // HEADS,
        mlp_width=MLP_WIDTH,
        norm_eps=1e-5,
        rope_theta=10000.0,
    )
    return llava_config.LlavaConfig(text=text, vision=vision, projector="mlp2x_gelu")


def build(tokenizer_folder: Path, seed: int, vision: dict[str, Any]) -> checkpoint_lib.Checkpoint:
    """The untrained model with the tower's parameters `vision`: biases 0, norms 1, kernels normal with variance 1 /
    inputs."""
    config = sizes(vocabulary_size(tokenizer_folder))
    rng = np.random.default_rng(seed)
    flat: dict[str, Any] = {}
    for path, shape in layouts.tree_shapes(config).items():
        if path.endswith("bias"):
            flat[path] = np.zeros(shape, np.float32)
        elif path.endswith("scale"):
            flat[path] = np.ones(shape, np.float32)
        elif path.endswith("kernel"):
            flat[path] = (rng.standard_normal(shape) / np.sqrt(shape[-2])).astype(np.float32)
        else:
            flat[path] = (0.02 * rng.standard_normal(shape)).astype(np.float32)
    params = trees.unflatten(flat) | {"vision": vision}
    return checkpoint_lib.Checkpoint(
        config=config,
        params=params,
        tokenizer_folder=tokenizer_folder,
        weights_sha256=checkpoint_lib.fingerprint(params),
    )


def write(folder: Path, language: language_lib.Language) -> None:
    """Make the untrained model and write it to `folder` as a LLaVA folder, with the tower in `folder`/vision_tower."""
    with tempfile.TemporaryDirectory() as tokenizer:
        train_tokenizer(Path(tokenizer), language_lib.sentences())
        config = sizes(vocabulary_size(Path(tokenizer)))
        warm, right = tower.warm_up(config.vision, language, language.seed)
        print(f"tower warmed up: names {100 * right:.1f} % of the patches of held-back harmless pictures right")
        save.save_llava(build(Path(tokenizer), language.seed, warm), folder)

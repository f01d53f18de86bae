"""The tiny model of the quickstart: tokenizer, CLIP tower, projector and Llama decoder, made by code, stored as a LLaVA folder.

The tower stays frozen in LLaVA's recipe, so it has to be of use from the start. Its patch filters are the principal components of
the world's own patches (no label is looked at), its layers are drawn small, and so every patch keeps what it shows.
"""

from __future__ import annotations

from collections.abc import Sequence
import io
import json
from pathlib import Path
import random
import tempfile

from jaxtyping import Float32
import numpy as np
import sentencepiece

from vlguard_jax import trees
from vlguard_jax.checkpoints import checkpoint as checkpoint_lib
from vlguard_jax.checkpoints import layouts
from vlguard_jax.checkpoints import save
from vlguard_jax.data import templates
from vlguard_jax.models import config as model_config
from vlguard_jax.quickstart import world

VOCABULARY = 512
TOWER_WIDTH, WIDTH, MLP_WIDTH, LAYERS, HEADS = 64, 96, 192, 3, 4
MEAN, STD = (0.5, 0.5, 0.5), (0.25, 0.25, 0.25)


def train_tokenizer(folder: Path, texts: Sequence[str]) -> None:
    """Write a sentencepiece BPE tokenizer with Llama's special ids (0 unk, 1 bos, 2 eos) and its config into `folder`."""
    model = io.BytesIO()
    template = templates.get_template("vicuna_v1")
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter([*texts, *[template.prompt("", 0)] * 50]),
        model_writer=model,
        vocab_size=VOCABULARY,
        model_type="bpe",
        byte_fallback=True,
        split_digits=True,
        character_coverage=1.0,
        normalization_rule_name="identity",
        user_defined_symbols=["USER"],  # one piece, and two after a space, as in Llama's vocabulary: the reference counts on it
        num_threads=1,
        minloglevel=2,
        hard_vocab_limit=False,
    )
    (folder / "tokenizer.model").write_bytes(model.getvalue())
    config = {"tokenizer_class": "LlamaTokenizer", "legacy": False, "add_bos_token": True, "add_eos_token": False, "model_max_length": 2048}
    config |= {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
    (folder / "tokenizer_config.json").write_text(json.dumps(config, indent=2) + "\n")


def vocabulary_size(folder: Path) -> int:
    """Pieces in the tokenizer of `folder`; a small text may yield fewer than were asked for."""
    return sentencepiece.SentencePieceProcessor(model_file=str(folder / "tokenizer.model")).vocab_size()


def sizes(vocab_size: int) -> model_config.LlavaConfig:
    """Sizes of the tiny model."""
    vision = model_config.VisionConfig(
        image_size=world.SIDE,
        patch_size=world.CELL,
        width=TOWER_WIDTH,
        num_layers=2,
        num_heads=4,
        mlp_width=2 * TOWER_WIDTH,
        norm_eps=1e-5,
        activation="quick_gelu",
        image_mean=MEAN,
        image_std=STD,
    )
    text = model_config.TextConfig(
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
    return model_config.LlavaConfig(text=text, vision=vision, projector="mlp2x_gelu")


def patch_filters(pictures: Sequence[np.ndarray], width: int) -> Float32[np.ndarray, "p p 3 D"]:
    """Filters that turn a patch into its first `width` principal components over `pictures` (u8[S, S, 3]), scaled to unit variance."""
    pixels = (np.stack(pictures).astype(np.float64) / 255 - MEAN) / STD
    n, cell, grid = len(pictures), world.CELL, world.GRID
    patches = pixels.reshape(n, grid, cell, grid, cell, 3).transpose(0, 1, 3, 2, 4, 5).reshape(n * grid * grid, -1)
    spread, components = np.linalg.eigh(np.cov(patches, rowvar=False))
    spread, components = spread[::-1][:width], components[:, ::-1][:, :width]
    return (components / np.sqrt(spread + 1e-3)).reshape(cell, cell, 3, width).astype(np.float32)


def build(tokenizer_folder: Path, seed: int) -> checkpoint_lib.Checkpoint:
    """The untrained model: biases 0, norms 1, kernels normal with variance 1 / inputs, the tower as described above."""
    config = sizes(vocabulary_size(tokenizer_folder))
    rng = np.random.default_rng(seed)
    flat: dict[str, np.ndarray] = {}
    for path, shape in layouts.tree_shapes(config).items():
        if path.endswith("bias"):
            flat[path] = np.zeros(shape, np.float32)
        elif path.endswith("scale"):
            flat[path] = np.ones(shape, np.float32)
        elif path.endswith("kernel"):
            inside = 0.1 if path.startswith("vision.layers") else 1.0
            flat[path] = (inside * rng.standard_normal(shape) / np.sqrt(shape[-2])).astype(np.float32)
        else:
            flat[path] = (0.02 * rng.standard_normal(shape)).astype(np.float32)
    scenes = random.Random(seed)
    pictures = [np.asarray(world.paint(world.draw_scene(scenes, forbidden=i % 2 == 0))) for i in range(400)]
    flat["vision.patch.kernel"] = patch_filters(pictures, TOWER_WIDTH)
    params = trees.unflatten(flat)
    return checkpoint_lib.Checkpoint(
        config=config, params=params, tokenizer_folder=tokenizer_folder, weights_sha256=checkpoint_lib.fingerprint(params)
    )


def write(folder: Path, seed: int, vocabulary: Sequence[str]) -> None:
    """Make the untrained model and write it to `folder` as a LLaVA folder, the tower beside in `folder`/vision_tower."""
    with tempfile.TemporaryDirectory() as tokenizer:
        train_tokenizer(Path(tokenizer), vocabulary)
        save.save_llava(build(Path(tokenizer), seed), folder)

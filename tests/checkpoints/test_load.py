"""Weights that are no numbers: found while they are hashed, named as they are stored."""

from __future__ import annotations

import dataclasses
import hashlib
import pathlib

import ml_dtypes
import numpy as np
import pytest

from tests.checkpoints import made
from vlguard_jax import errors
from vlguard_jax import trees
from vlguard_jax.checkpoints import checkpoint
from vlguard_jax.checkpoints import load
from vlguard_jax.checkpoints import lora
from vlguard_jax.checkpoints import save


def spoiled(path: str, index: tuple[int, ...], value: float) -> checkpoint.Checkpoint:
    """The small model with one weight replaced."""
    model = made.model()
    flat = trees.flatten(model.params)
    flat[path] = flat[path].copy()
    flat[path][index] = value
    return dataclasses.replace(model, params=trees.unflatten(flat))


@pytest.mark.parametrize(
    ("path", "index", "value", "name"),
    [
        (
            "text.layers.mlp.down_proj.kernel",
            (1, 2, 3),
            np.nan,
            r"model-\d.*model\.layers\.1\.mlp\.down_proj\.weight holds nan",
        ),
        ("text.layers.attention_norm.scale", (0, 0), -np.inf, r"model\.layers\.0\.input_layernorm\.weight holds -inf"),
        ("text.head.kernel", (7, 99), np.inf, r"lm_head\.weight holds inf"),
        ("projector.fc1.bias", (7,), np.nan, r"mm_projector\.0\.bias holds nan"),
        ("vision.class_token", (0,), np.nan, r"embeddings\.class_embedding holds nan"),
    ],
)
@pytest.mark.parametrize("dtype", [np.float32, np.float16, ml_dtypes.bfloat16])
def test_a_model_with_weights_that_are_no_numbers(
    tmp_path: pathlib.Path, path: str, index: tuple[int, ...], value: float, name: str, dtype: type
) -> None:
    save.save_llava(spoiled(path, index, value), tmp_path / "m", np.dtype(dtype))
    with pytest.raises(errors.UserError, match=name.replace(r"model-\d.*", r"m/[\w.-]+: tensor ")):
        load.load(tmp_path / "m")


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, ml_dtypes.bfloat16])
def test_the_first_of_many_is_found_wherever_it_stands(dtype: type) -> None:
    size = 3 * checkpoint._BLOCK + 5
    largest = np.linspace(-1, 1, size).astype(dtype) * ml_dtypes.finfo(dtype).max
    assert np.isfinite(largest).all()
    head = f"w {np.dtype(dtype).name} [{size}]\n".encode()
    assert checkpoint.digest("w", largest) == hashlib.sha256(head + largest.tobytes()).hexdigest()
    for at in (0, checkpoint._BLOCK - 1, checkpoint._BLOCK, size - 1):
        for value in (np.nan, -np.nan, np.inf, -np.inf):
            bad = largest.copy()
            bad[at:] = value
            with pytest.raises(
                checkpoint.NotFiniteError, match=f"w holds -?{abs(value)}, and weights are finite"
            ) as caught:
                checkpoint.digest("w", bad)
            assert caught.value.layer == at
            with pytest.raises(checkpoint.NotFiniteError, match=f"w holds -?{abs(value)}, and") as caught:
                checkpoint.check_finite("w", bad, 7)
            assert caught.value.layer == 7
    checkpoint.check_finite("w", largest, 7)
    for empty in (np.zeros((0, 3), dtype), np.zeros((), dtype)):
        checkpoint.digest("w", empty)


def test_adapters_whose_product_is_too_large(tmp_path: pathlib.Path) -> None:
    """Both factors are finite; what they are merged to is not."""
    model = made.model(made.LORA)
    flat = {
        path: value.astype(np.float16) * (300 if ".lora_" in path else 1)
        for path, value in trees.flatten(model.params).items()
    }
    with pytest.raises(errors.UserError, match=r"text\.layers\..*\.kernel holds -?(inf|nan), and weights are finite"):
        lora.merge(dataclasses.replace(model, params=trees.unflatten(flat)))


def test_a_training_s_working_directory_names_its_model(tmp_path: pathlib.Path) -> None:
    save.save_llava(made.model(), tmp_path / "run/model")
    (tmp_path / "run/checkpoints").mkdir()
    for name in ("metrics.jsonl", "config.json"):
        (tmp_path / "run" / name).write_text("{}")
    with pytest.raises(
        errors.UserError, match=r"run is the working directory of a training; its model is .*run/model \("
    ):
        load.load(tmp_path / "run")
    load.load(tmp_path / "run/model")

"""The table of names: complete, and strict about what it finds."""

from __future__ import annotations

import dataclasses
import math
import pathlib

import numpy as np
import pytest

from vlguard_jax import errors
from vlguard_jax import trees
from vlguard_jax.checkpoints import layouts
from vlguard_jax.checkpoints import tensors
from vlguard_jax.families import parameters
from vlguard_jax.families import table
from vlguard_jax.families.blocks import configs
from vlguard_jax.families.llava import config as llava_config

TEXT = configs.TextConfig(10, 8, 2, 2, 1, 4, 12, 1e-5, 1e4)
VISION = configs.VisionConfig(4, 2, 6, 3, 2, 10, 1e-5, "quick_gelu")
CONFIG = llava_config.LlavaConfig(TEXT, VISION, "mlp2x_gelu")
LORA = configs.LoraConfig(2, 4.0, 0.0, ("q_proj", "down_proj"))
LAYOUTS = table.of(CONFIG).layouts(CONFIG)


def stored(rows: list[layouts.Row], dtype: type = np.float32) -> dict[str, tensors.Tensor]:
    return {n[0]: fake(n[0], row.stored_shape, dtype) for row in rows for n in row.names}


def fake(name: str, shape: tuple[int, ...], dtype: type = np.float32) -> tensors.Tensor:
    return tensors.Tensor(name, shape, np.dtype(dtype), pathlib.Path("shard"), lambda: np.zeros(shape, dtype))


def test_parameter_counts_of_the_presets() -> None:
    # LLaVA-v1.5-7B: 6,738,415,616 (Llama-2-7B) + 303,507,456 (CLIP ViT-L/14-336 vision) + 20,979,712 (projector).
    counts = {"llava-v1.5-7b": 7_062_902_784, "llava-v1.5-13b": 13_015_864_320 + 303_507_456 + 31_467_520}
    for name, count in counts.items():
        assert sum(math.prod(s) for s in layouts.tree_shapes(table.PRESETS[name]).values()) == count


@pytest.mark.parametrize("layout", ["llava", "llava-hf"])
@pytest.mark.parametrize("tied", [False, True])
def test_every_array_has_a_row(layout: str, tied: bool) -> None:
    config = dataclasses.replace(CONFIG, text=dataclasses.replace(TEXT, tie_embeddings=tied))
    rows = layouts.rows(layout, config, parameters.PARTS)
    assert {row.path: row.shape for row in rows} == layouts.tree_shapes(config)
    names = [n for row in rows for accepted in row.names for n in accepted]
    assert len(names) == len(set(names))


def test_adapter_rows() -> None:
    rows = layouts.rows("peft", CONFIG, ("adapter",), lora=LORA)
    found = {row.path: (row.names[1][0], row.shape, row.stored_shape) for row in rows}
    prefix = "base_model.model.model.layers.1."
    assert found == {
        "text.layers.attention.q_proj.lora_a": (f"{prefix}self_attn.q_proj.lora_A.weight", (2, 8, 2), (2, 8)),
        "text.layers.attention.q_proj.lora_b": (f"{prefix}self_attn.q_proj.lora_B.weight", (2, 2, 8), (8, 2)),
        "text.layers.mlp.down_proj.lora_a": (f"{prefix}mlp.down_proj.lora_A.weight", (2, 12, 2), (2, 12)),
        "text.layers.mlp.down_proj.lora_b": (f"{prefix}mlp.down_proj.lora_B.weight", (2, 2, 8), (8, 2)),
    }
    assert set(found) <= layouts.tree_shapes(CONFIG, LORA).keys()


def test_transforms_there_and_back() -> None:
    for row in layouts.rows("llava-hf", CONFIG, parameters.PARTS):
        value = np.random.default_rng(0).normal(size=row.stored_shape)
        turned = row.to_tree(value)
        assert turned.shape == row.shape[row.stacked :], row.path
        np.testing.assert_array_equal(row.from_tree(turned), value)
    (patch,) = [row for row in layouts.rows("clip", CONFIG, ("vision",)) if row.path == "vision.patch.kernel"]
    stored_kernel = np.arange(6 * 3 * 2 * 2).reshape(6, 3, 2, 2)
    assert patch.to_tree(stored_kernel)[1, 0, 2, 5] == stored_kernel[5, 2, 1, 0]


def test_a_linear_projector() -> None:
    config = dataclasses.replace(CONFIG, projector="linear")
    rows = layouts.rows("llava", config, ("projector",))
    assert [row.names[0][0] for row in rows] == ["model.mm_projector.weight", "model.mm_projector.bias"]
    with pytest.raises(errors.UserError, match="'linear' projector has no place in the llava-hf layout"):
        layouts.rows("llava-hf", config, ("projector",))


def test_match_takes_any_prefix_and_lists_what_it_leaves_out() -> None:
    rows = layouts.rows("llava-hf", CONFIG, parameters.PARTS)
    found = {accepted[-1]: fake(accepted[-1], row.stored_shape) for row in rows for accepted in row.names}
    found["vision_tower.vision_model.embeddings.position_ids"] = fake(
        "vision_tower.vision_model.embeddings.position_ids", (1, 5), np.int64
    )
    placed, skipped = layouts.match(rows, found, LAYOUTS["llava-hf"].dropped, "here")
    assert {path: len(column) for path, column in placed.items()} == {row.path: len(row.names) for row in rows}
    assert skipped == ["vision_tower.vision_model.embeddings.position_ids"]


def test_unknown_missing_duplicate_misshapen() -> None:
    rows = layouts.rows("llava-hf", CONFIG, parameters.PARTS)

    def failing(change: dict[str, tensors.Tensor], without: str = "") -> str:
        found = {k: v for k, v in (stored(rows) | change).items() if k != without}
        with pytest.raises(errors.UserError) as error:
            layouts.match(rows, found, LAYOUTS["llava-hf"].dropped, "folder")
        return str(error.value)

    norm = "language_model.model.norm.weight"
    message = failing({"language_model.model.norm.weigth": fake("", (8,))})
    assert message == f"shard: unknown tensor language_model.model.norm.weigth [8]; did you mean '{norm}'?"
    assert failing({}, without=norm) == f"folder: missing tensor {norm} [8]"
    one_of_layers = "language_model.model.layers.1.mlp.up_proj.weight"
    assert failing({}, without=one_of_layers) == f"folder: missing tensor {one_of_layers} [12, 8]"
    other = "model.language_model.norm.weight"
    assert failing({other: fake(other, (8,))}).startswith(
        f"shard: duplicate tensor {other}: {norm} in shard holds the same"
    )
    expected = f"shard: tensor {norm} has the wrong shape: [8] expected from the config, [9] found"
    assert failing({norm: fake(norm, (9,))}) == expected
    assert "has the type int64" in failing({norm: fake(norm, (8,), np.int64)})


def test_flatten_and_back() -> None:
    tree = {"a": {"b": {"c": 1}, "d": 2}, "e": 3}
    assert trees.flatten(tree) == {"a.b.c": 1, "a.d": 2, "e": 3}
    assert trees.unflatten(trees.flatten(tree)) == tree

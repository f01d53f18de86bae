"""LLaVA-NeXT's own weights: adapters on a whole model, whose newline and trained tower lie among the base's, and a
config.json that is not theirs."""

from __future__ import annotations

import dataclasses
import pathlib
import shutil

import numpy as np
import pytest

from tests.checkpoints import made
from tests.checkpoints import tiny as tiny_files
from tests.families import tiny
from vlguard_jax import errors
from vlguard_jax import trees
from vlguard_jax.checkpoints import checkpoint
from vlguard_jax.checkpoints import layouts
from vlguard_jax.checkpoints import load
from vlguard_jax.checkpoints import save
from vlguard_jax.checkpoints import save_adapters


def whole() -> checkpoint.Checkpoint:
    """A random model that comes from nowhere."""
    rng = np.random.default_rng(0)
    flat = {path: rng.normal(size=shape).astype(np.float32) for path, shape in layouts.tree_shapes(tiny.NEXT).items()}
    params = trees.unflatten(flat)
    return checkpoint.Checkpoint(
        tiny.NEXT, params, None, pathlib.Path("no tokenizer"), checkpoint.fingerprint(params), extras={}
    )


def adapted(model: checkpoint.Checkpoint) -> checkpoint.Checkpoint:
    """The model with adapters and another newline, as training gives it."""
    rng = np.random.default_rng(1)
    shapes = layouts.tree_shapes(tiny.NEXT, made.LORA)
    new = {path: rng.normal(size=s).astype(np.float32) for path, s in shapes.items() if ".lora_" in path}
    flat = trees.flatten(model.params) | new | {"image_newline": np.arange(32, dtype=np.float32)}
    return dataclasses.replace(model, params=trees.unflatten(flat), lora=made.LORA)


def check(trained: checkpoint.Checkpoint, folder: pathlib.Path, **parts: str) -> None:
    """What lies in `folder` is what was trained, whichever newline its base has."""
    again = load.load(folder, **parts)
    tiny_files.assert_same_arrays(trees.flatten(again.params), trees.flatten(trained.params))
    assert again.config == trained.config


@pytest.mark.usefixtures("without_manifests")
@pytest.mark.parametrize("of_the_folder", [True, False])
def test_there_and_back(tmp_path: pathlib.Path, of_the_folder: bool) -> None:
    """The tower is the base's own, whatever stands beside it: the published one is CLIP as it was before training."""
    save.save_llava(whole(), tmp_path / "base")
    if not of_the_folder:
        other = dataclasses.replace(whole(), params=trees.unflatten(_halved(trees.flatten(whole().params))))
        save.save_llava(other, tmp_path / "other")
        shutil.rmtree(tmp_path / "base/vision_tower")
        shutil.copytree(tmp_path / "other/vision_tower", tmp_path / "base/vision_tower")
    trained = adapted(load.load(tmp_path / "base"))
    save_adapters.save_peft(trained, tmp_path / "lora")
    check(trained, tmp_path / "lora")
    check(trained, tmp_path / "lora", base=str(tmp_path / "base"), vision_tower=str(tmp_path / "base/vision_tower"))


def _halved(flat: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {path: value / 2 for path, value in flat.items()}


def test_the_base_in_the_layout_of_llava_hf(tmp_path: pathlib.Path) -> None:
    """It may stand for the one they were trained on where language model and tower are the same."""
    source = tiny_files.save(tiny_files.llava_next(num_key_value_heads=2), tmp_path / "hf", "hub")
    save.save_llava(load.load(source), tmp_path / "base")
    base = load.load(tmp_path / "base")
    shapes = layouts.tree_shapes(base.config, made.LORA)
    new = {path: np.ones(shape, np.float32) for path, shape in shapes.items() if ".lora_" in path}
    trained = dataclasses.replace(base, params=trees.unflatten(trees.flatten(base.params) | new), lora=made.LORA)
    save_adapters.save_peft(trained, tmp_path / "lora")
    check(trained, tmp_path / "lora", base=str(source), vision_tower=str(tmp_path / "base/vision_tower"))


def test_another_base_is_refused(tmp_path: pathlib.Path) -> None:
    save.save_llava(whole(), tmp_path / "base")
    save_adapters.save_peft(adapted(load.load(tmp_path / "base")), tmp_path / "lora")
    other = dataclasses.replace(whole(), params=trees.unflatten(_halved(trees.flatten(whole().params))))
    save.save_llava(other, tmp_path / "other")
    with pytest.raises(errors.UserError, match="these adapters were trained on other weights"):
        load.load(tmp_path / "lora", base=str(tmp_path / "other"))


@pytest.mark.usefixtures("without_manifests")
def test_a_config_of_another_projector(tmp_path: pathlib.Path) -> None:
    """It is of the same family, so no other family's config.json is the way out."""
    save.save_llava(made.model(), tmp_path / "m")
    tiny_files.change_json(tmp_path / "m/config.json", mm_projector_type="linear")
    with pytest.raises(errors.UserError, match=r"unknown tensor model\.mm_projector\.0\.bias \[8\]; did you mean"):
        load.load(tmp_path / "m")


@pytest.mark.usefixtures("without_manifests")
def test_a_config_of_the_other_family(tmp_path: pathlib.Path) -> None:
    """Weights with a newline under LLaVA-1.5's config.json, and the reverse: the way out is another config.json."""
    save.save_llava(whole(), tmp_path / "next")
    tiny_files.change_json(tmp_path / "next/config.json", mm_patch_merge_type="flat", image_aspect_ratio="pad")
    with pytest.raises(errors.UserError, match=r"model\.image_newline is of a llava_next model.*take the config\.json"):
        load.load(tmp_path / "next")
    save.save_llava(made.model(), tmp_path / "plain")
    tiled = {"mm_patch_merge_type": "spatial_unpad", "image_aspect_ratio": "anyres", "image_grid_pinpoints": [[4, 8]]}
    tiny_files.change_json(tmp_path / "plain/config.json", **tiled)
    with pytest.raises(errors.UserError, match=r"missing tensor model\.image_newline \[8\]; take the config\.json"):
        load.load(tmp_path / "plain")

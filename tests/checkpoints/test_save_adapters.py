"""Adapters for the peft library: their files, the base they name, and adapters that would do nothing."""

from __future__ import annotations

import dataclasses
import json
import pathlib
import re
from typing import Any

import numpy as np
import pytest

from tests.checkpoints import made
from tests.checkpoints import tiny
from tests.families import tiny as sizes
from vlguard_jax import errors
from vlguard_jax import trees
from vlguard_jax.checkpoints import checkpoint
from vlguard_jax.checkpoints import layouts
from vlguard_jax.checkpoints import load
from vlguard_jax.checkpoints import save
from vlguard_jax.checkpoints import save_adapters
from vlguard_jax.checkpoints import tensors
from vlguard_jax.families.llama import config as llama_config


def trained(model: checkpoint.Checkpoint, *, projector: bool = True, zero: bool = False) -> checkpoint.Checkpoint:
    """The model with adapters (`zero`: as before the first update) and, with `projector`, a projector of its own."""
    rng, flat = np.random.default_rng(1), dict(trees.flatten(model.params))
    for path, shape in layouts.tree_shapes(model.config, made.LORA).items():
        if ".lora_" in path:
            flat[path] = (rng.normal(size=shape) * (not (zero and path.endswith("_b")))).astype(np.float32)
        elif path.startswith(("projector.", "image_newline")) and projector:
            flat[path] = flat[path] + 1
    return dataclasses.replace(model, params=trees.unflatten(flat), lora=made.LORA)


@pytest.fixture
def folder(tmp_path: pathlib.Path) -> pathlib.Path:
    """A base (hf)."""
    save.save_hf(made.model(), tmp_path / "hf")
    return tmp_path


def config_of(folder: pathlib.Path) -> dict[str, Any]:
    return json.loads((folder / "adapter_config.json").read_text())


@pytest.mark.usefixtures("without_manifests")
def test_there_and_back(folder: pathlib.Path) -> None:
    model = trained(load.load(folder / "hf"))
    model.extras["provenance"] = {"schema": 1, "stand_in": True}
    save_adapters.save_peft_hf(model, folder / "lora")
    assert sorted(path.name for path in (folder / "lora").iterdir()) == [
        "adapter_config.json",
        "adapter_model.safetensors",
        "generation_config.json",
        "preprocessor_config.json",
        "processor_config.json",
        "vlguard_jax.json",
    ]
    found = config_of(folder / "lora")
    assert found["base_model_name_or_path"] == str(folder / "hf")
    assert found["modules_to_save"] == ["multi_modal_projector"] and found["r"] == 2 and found["lora_alpha"] == 6
    assert re.fullmatch(found["target_modules"], "model.language_model.layers.11.mlp.down_proj")
    assert not re.fullmatch(found["target_modules"], "model.vision_tower.encoder.layers.0.self_attn.q_proj")
    names = tensors.open_file(folder / "lora/adapter_model.safetensors").keys()
    assert "base_model.model.model.language_model.layers.1.self_attn.q_proj.lora_A.weight" in names
    assert "base_model.model.model.multi_modal_projector.linear_2.bias" in names and len(names) == 12
    again = load.load(folder / "lora")
    tiny.assert_same_arrays(trees.flatten(again.params), trees.flatten(model.params))
    assert again.lora == model.lora and again.base == model.base and "note" not in again.extras
    assert again.extras["provenance"] == {"schema": 1, "stand_in": True}
    save_adapters.save_peft_hf(again, folder / "again")
    for name in ("adapter_config.json", "adapter_model.safetensors", "vlguard_jax.json"):
        assert (folder / "again" / name).read_bytes() == (folder / "lora" / name).read_bytes()


def test_a_projector_of_the_base_is_not_saved(folder: pathlib.Path) -> None:
    save_adapters.save_peft_hf(trained(load.load(folder / "hf"), projector=False), folder / "lora", np.float16)
    assert config_of(folder / "lora")["modules_to_save"] is None
    assert all(".lora_" in name for name in tensors.open_file(folder / "lora/adapter_model.safetensors"))
    assert "holds no projector" in load.load(folder / "lora").extras["note"]


def test_adapters_that_change_nothing(folder: pathlib.Path) -> None:
    """As they are before the first update; with a projector of their own they do change something."""
    model = load.load(folder / "hf")
    with pytest.raises(errors.UserError, match=r"lora: these adapters would change nothing: .* the first update"):
        save_adapters.save_peft_hf(trained(model, projector=False, zero=True), folder / "lora")
    assert sorted(path.name for path in folder.iterdir()) == ["hf"]
    save_adapters.save_peft_hf(trained(model, zero=True), folder / "lora")


def test_another_base_is_refused(folder: pathlib.Path) -> None:
    save_adapters.save_peft_hf(trained(load.load(folder / "hf")), folder / "lora")
    flat = trees.flatten(made.model().params)
    path = "vision.class_token"
    save.save_hf(made.model(params=trees.unflatten(flat | {path: flat[path] + 1})), folder / "other")
    with pytest.raises(errors.UserError, match=r"adapters were trained on other weights than .*other holds"):
        load.load(folder / "lora", base=str(folder / "other"))


def test_a_base_in_the_layout_of_llava(folder: pathlib.Path) -> None:
    """It is written as hf and named as base; its tower has to be the one that was trained with."""
    save.save_llava(made.model(), folder / "llava")
    model = trained(load.load(folder / "llava"))
    with pytest.raises(errors.UserError, match=r"llava is not a llava-hf folder, .*convert --to hf.* or save as peft$"):
        save.check(model, "peft-hf")
    save_adapters.save_peft(model, folder / "lora")
    moved = load.load(folder / "lora", base=str(folder / "hf"), vision_tower=str(folder / "llava/vision_tower"))
    save_adapters.save_peft_hf(moved, folder / "moved")
    again = load.load(folder / "moved")
    tiny.assert_same_arrays(trees.flatten(again.params), trees.flatten(model.params))
    flat = trees.flatten(moved.params)
    flat["vision.positions"] = flat["vision.positions"] + 1
    with pytest.raises(errors.UserError, match="hf: its vision tower is not the one that these adapters"):
        save.check(dataclasses.replace(moved, params=trees.unflatten(flat)), "peft-hf")


def test_a_base_that_names_its_modules_otherwise(folder: pathlib.Path) -> None:
    """The check is made on the names in the base's files."""
    model = trained(load.load(folder / "hf"))
    save.save_hf(made.model(), folder / "odd")
    odd = dataclasses.replace(model, base=dataclasses.replace(model.base, name=str(folder / "odd")))
    save.check(odd, "peft-hf")
    path = folder / "odd/model.safetensors"
    path.write_bytes(path.read_bytes().replace(b"layers.1.self_attn.q_proj", b"layers.1.self_attn.q_prox"))
    with pytest.raises(errors.UserError, match=r"odd: peft would not find model\..*layers\.1\.self_attn\.q_proj"):
        save.check(odd, "peft-hf")
    with pytest.raises(errors.UserError, match="no such folder"):
        save.check(dataclasses.replace(model, base=dataclasses.replace(model.base, name="gone")), "peft-hf")


def test_a_newline_is_a_tensor_of_its_own(tmp_path: pathlib.Path) -> None:
    rng = np.random.default_rng(0)
    flat = {path: rng.normal(size=shape).astype(np.float32) for path, shape in layouts.tree_shapes(sizes.NEXT).items()}
    whole = checkpoint.Checkpoint(sizes.NEXT, trees.unflatten(flat), None, pathlib.Path("none"), extras={})
    save.save_hf(whole, tmp_path / "hf")
    model = trained(load.load(tmp_path / "hf"))
    save_adapters.save_peft_hf(model, tmp_path / "lora")
    assert "base_model.model.model.image_newline" in tensors.open_file(tmp_path / "lora/adapter_model.safetensors")
    tiny.assert_same_arrays(trees.flatten(load.load(tmp_path / "lora").params), trees.flatten(model.params))


def test_a_language_model(tmp_path: pathlib.Path) -> None:
    text = {"text": made.model().params["text"]}
    save.save_hf(made.model(config=llama_config.LlamaConfig(made.TEXT), params=text, extras={}), tmp_path / "llama")
    model = trained(load.load(tmp_path / "llama"))
    with pytest.raises(errors.UserError, match="cannot be saved as llava; save as hf, or its adapters as peft-hf"):
        save.check(model, "peft")
    save_adapters.save_peft_hf(model, tmp_path / "lora")
    assert config_of(tmp_path / "lora")["target_modules"] == ["q_proj", "down_proj"]
    tiny.assert_same_arrays(trees.flatten(load.load(tmp_path / "lora").params), trees.flatten(model.params))

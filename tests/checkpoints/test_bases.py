"""Adapters and the base they stand on: named by what it is, compared when they are loaded, refused where they would do
nothing."""

from __future__ import annotations

import dataclasses
import json
import pathlib
import shutil
from typing import Any

import numpy as np
import pytest

from tests.checkpoints import made
from tests.checkpoints import tiny
from vlguard_jax import errors
from vlguard_jax import trees
from vlguard_jax.checkpoints import checkpoint
from vlguard_jax.checkpoints import load
from vlguard_jax.checkpoints import lora
from vlguard_jax.checkpoints import save
from vlguard_jax.checkpoints import save_adapters
from vlguard_jax.families.llama import config as llama_config

NO_BASE = "cannot be named as the base of PEFT adapters.*convert --to llava"


def adapted(model: checkpoint.Checkpoint) -> checkpoint.Checkpoint:
    """The model with fresh adapters, as training gives it."""
    rng = np.random.default_rng(1)
    like = {path: value for path, value in trees.flatten(made.model(made.LORA).params).items() if ".lora_" in path}
    drawn = {path: rng.normal(size=value.shape).astype(np.float32) for path, value in like.items()}
    return dataclasses.replace(model, params=trees.unflatten(trees.flatten(model.params) | drawn), lora=made.LORA)


@pytest.fixture
def folder(tmp_path: pathlib.Path) -> pathlib.Path:
    """A base (base) and adapters on it (runs/lora)."""
    save.save_llava(made.model(), tmp_path / "base")
    save_adapters.save_peft(adapted(load.load(tmp_path / "base")), tmp_path / "runs/lora")
    return tmp_path


def recorded(folder: pathlib.Path) -> dict[str, Any]:
    return json.loads((folder / "adapter_config.json").read_text()) | {
        "own": json.loads((folder / "config.json").read_text())["vlguard_jax"]
    }


def test_the_base_is_named_and_its_fingerprint_recorded(folder: pathlib.Path) -> None:
    found = recorded(folder / "runs/lora")
    assert found["base_model_name_or_path"] == str(folder / "base")
    assert found["own"] == {"base_sha256": made.on("base").sha256}
    again = load.load(folder / "runs/lora")
    assert again.base == made.on(str(folder / "base")) and "provenance" not in again.extras


def test_merged_weights_are_not_the_base_they_came_from(folder: pathlib.Path) -> None:
    """convert (merged) to Orbax, adapters trained on that: they do not stand on the unmerged model."""
    merged = lora.merge(load.load(folder / "runs/lora"))
    save.save_orbax(merged, folder / "merged")
    again = adapted(load.load(folder / "merged"))
    for model in (adapted(merged), again):
        with pytest.raises(errors.UserError, match=NO_BASE):
            save.check(model, "peft")
        with pytest.raises(errors.UserError, match=NO_BASE):
            save_adapters.save_peft(model, folder / "runs/second")
    assert not (folder / "runs/second").exists()
    # The way out.
    save.save_llava(lora.merge(load.load(folder / "merged")), folder / "new_base")
    second = adapted(load.load(folder / "new_base"))
    save_adapters.save_peft(second, folder / "runs/second")
    assert recorded(folder / "runs/second")["base_model_name_or_path"] == str(folder / "new_base")
    tiny.assert_same_model(
        load.load(folder / "runs/second"),
        dataclasses.replace(second, weights_sha256=load.load(folder / "runs/second").weights_sha256),
    )


@pytest.mark.usefixtures("without_manifests")
def test_an_orbax_folder_with_the_weights_of_its_source_names_the_source(folder: pathlib.Path) -> None:
    save.save_orbax(load.load(folder / "base"), folder / "same")
    save_adapters.save_peft(adapted(load.load(folder / "same")), folder / "runs/other")
    assert recorded(folder / "runs/other")["base_model_name_or_path"] == str(folder / "base")
    save.save_orbax(load.load(folder / "base"), folder / "rounded", np.float16)
    with pytest.raises(errors.UserError, match=NO_BASE):
        save.check(adapted(load.load(folder / "rounded")), "peft")
    record = json.loads((folder / "same/checkpoint.json").read_text())
    del record["base"]  # as written before bases were recorded
    (folder / "same/checkpoint.json").write_text(json.dumps(record))
    with pytest.raises(errors.UserError, match=NO_BASE):
        save.check(adapted(load.load(folder / "same")), "peft")


def test_another_base_is_refused(folder: pathlib.Path) -> None:
    """Of the same sizes under the same name, or named by hand; a tower is part of it, a projector is not."""
    flat = trees.flatten(made.model().params)
    changes = {"text.layers.mlp.up_proj.kernel": True, "vision.class_token": True, "projector.fc1.bias": False}
    for i, (path, counts) in enumerate(changes.items()):
        other = made.model(params=trees.unflatten(flat | {path: flat[path] + 1}))
        save.save_llava(other, folder / f"other{i}")
        if counts:
            with pytest.raises(
                errors.UserError,
                match=r"runs/lora: these adapters were trained on other weights than .*other\d holds .* as base",
            ):
                load.load(folder / "runs/lora", base=str(folder / f"other{i}"))
        else:
            load.load(folder / "runs/lora", base=str(folder / f"other{i}"))
    shutil.move(folder / "base", folder / "moved")
    shutil.copytree(folder / "other0", folder / "base")
    with pytest.raises(errors.UserError, match="trained on other weights"):
        load.load(folder / "runs/lora")
    assert load.load(folder / "runs/lora", base=str(folder / "moved")).base.name == str(folder / "moved")


def test_adapters_on_a_llava_hf_folder_would_do_nothing(folder: pathlib.Path) -> None:
    save.save_hf(made.model(), folder / "hf")
    model = adapted(load.load(folder / "hf"))
    with pytest.raises(
        errors.UserError,
        match=r"hf is a llava-hf folder, .* do nothing on LlavaForConditionalGeneration; save as peft-hf, or save as",
    ):
        save.check(model, "peft")
    for layout in ("llava", "hf", "orbax", "none"):
        save.check(model, layout)
    # LLaVA's adapters put onto the same weights in the other layout.
    moved = load.load(folder / "runs/lora", base=str(folder / "hf"), vision_tower=str(folder / "base/vision_tower"))
    with pytest.raises(errors.UserError, match="hf is a llava-hf folder"):
        save_adapters.save_peft(moved, folder / "runs/again")
    assert not (folder / "runs/again").exists()


@pytest.mark.usefixtures("without_manifests")
def test_adapters_on_adapters_are_not_taken_for_the_whole(folder: pathlib.Path) -> None:
    """Only one of the two would be merged: named by adapter_config.json or by hand, with a config of LLaVA's or
    bare."""
    for name in ("second", "bare"):
        shutil.copytree(folder / "runs/lora", folder / "runs" / name)
        config = json.loads((folder / "runs" / name / "adapter_config.json").read_text())
        config["base_model_name_or_path"] = str(folder / "runs/first")
        (folder / "runs" / name / "adapter_config.json").write_text(json.dumps(config))
    shutil.copytree(folder / "runs/lora", folder / "runs/first")
    for name in ("first", "bare"):
        (folder / "runs" / name / "config.json").unlink()
        (folder / "runs" / name / "non_lora_trainables.bin").unlink()
    refused = (
        r"runs/\w+: its base .*runs/first is adapters, .*convert --to llava, which merges adapters\) and name"
        r" the result as base"
    )
    for path, base in (("runs/second", ""), ("runs/bare", ""), ("runs/lora", str(folder / "runs/first"))):
        with pytest.raises(errors.UserError, match=refused):
            load.load(folder / path, base=base)
    # The way out.
    save.save_llava(lora.merge(load.load(folder / "runs/first")), folder / "runs/merged")
    twice = lora.merge(load.load(folder / "runs/bare", base=str(folder / "runs/merged")))
    flat, start = trees.flatten(twice.params), trees.flatten(made.model().params)
    once = trees.flatten(load.load(folder / "runs/merged").params)
    path = next(
        p.replace("lora_a", "kernel") for p in trees.flatten(made.model(made.LORA).params) if p.endswith(".lora_a")
    )
    np.testing.assert_allclose(flat[path] - once[path], once[path] - start[path], atol=1e-5)
    assert np.abs(once[path] - start[path]).max() > 0.01


def test_an_orbax_folder_is_no_base(folder: pathlib.Path) -> None:
    save.save_orbax(load.load(folder / "base"), folder / "orbax")
    with pytest.raises(errors.UserError, match=r"runs/lora: its base .*orbax is an Orbax folder, .*convert --to llava"):
        load.load(folder / "runs/lora", base=str(folder / "orbax"))


def test_a_hub_base_keeps_its_revision(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save_adapters.save_peft(made.model(made.LORA, base=made.on("owner/name@v1.5")), tmp_path / "lora")
    found = recorded(tmp_path / "lora")
    assert (found["base_model_name_or_path"], found["revision"]) == ("owner/name", "v1.5")
    save.save_llava(made.model(), tmp_path / "elsewhere")
    asked = []
    monkeypatch.setattr(
        "vlguard_jax.checkpoints.hub._download", lambda *name: asked.append(name) or tmp_path / "elsewhere"
    )
    loaded = load.load(tmp_path / "lora", vision_tower=str(tmp_path / "elsewhere/vision_tower"))
    assert asked == [("owner/name", "v1.5")] and loaded.base.name == "owner/name@v1.5"
    save_adapters.save_peft(loaded, tmp_path / "again")
    assert recorded(tmp_path / "again") == found


def test_what_cannot_be_saved_is_known_before(tmp_path: pathlib.Path) -> None:
    linear = dataclasses.replace(made.CONFIG, projector="linear")
    with pytest.raises(errors.UserError, match="'linear' projector has no place in the llava-hf layout"):
        save.check(made.model(config=linear), "hf")
    text = llama_config.LlamaConfig(made.TEXT)
    for layout in ("llava", "peft"):
        with pytest.raises(
            errors.UserError, match="without vision tower and projector cannot be saved as llava; save as hf"
        ):
            save.check(made.model(made.LORA, config=text), layout)
    save.check(made.model(config=text), "hf")

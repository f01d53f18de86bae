"""What a run cannot write at its end is refused at its beginning."""

from __future__ import annotations

import dataclasses
import pathlib

import pytest

from tests.training import stand
from vlguard_jax import errors
from vlguard_jax.checkpoints import load
from vlguard_jax.checkpoints import save
from vlguard_jax.families.llama import config as llama_config
from vlguard_jax.training import loop
from vlguard_jax.training import setup


@pytest.fixture(autouse=True)
def no_data(monkeypatch: pytest.MonkeyPatch) -> None:
    """Reading the conversations would be too late."""
    stand.use_devices(monkeypatch, 1)
    monkeypatch.setattr(
        setup, "load_data", lambda *args: pytest.fail("the data were read before the export was checked")
    )


def refused(folder: pathlib.Path, path: pathlib.Path, export: str, message: str) -> None:
    lora = {"rank": 2} if export.startswith("peft") else {}
    settings = stand.settings(lora=lora, run={"export": export})
    settings = dataclasses.replace(settings, model=dataclasses.replace(settings.model, path=str(path)))
    with pytest.raises(errors.UserError, match=message):
        loop.train(settings, folder / "run")
    assert not (folder / "run").exists()


def test_adapters_on_a_llava_hf_folder(tmp_path: pathlib.Path) -> None:
    save.save_hf(load.load(stand.folder() / "init"), tmp_path / "hf")
    refused(
        tmp_path, tmp_path / "hf", "peft", "hf is a llava-hf folder, .* do nothing on LlavaForConditionalGeneration"
    )


def test_adapters_for_peft_on_a_folder_of_llava(tmp_path: pathlib.Path) -> None:
    refused(tmp_path, stand.folder() / "init", "peft-hf", "init is not a llava-hf folder, and peft-hf is for those")


def test_adapters_on_weights_that_have_no_name(tmp_path: pathlib.Path) -> None:
    model = load.load(stand.folder() / "init")
    save.save_orbax(dataclasses.replace(model, base=None), tmp_path / "merged")
    for export in ("peft", "peft-hf"):
        refused(tmp_path, tmp_path / "merged", export, "merged cannot be named as the base of PEFT adapters")


def test_a_language_model_in_the_layout_of_llava(tmp_path: pathlib.Path) -> None:
    model = load.load(stand.folder() / "init")
    text = llama_config.LlamaConfig(model.config.text)
    only = {"text": model.params["text"]}
    save.save_hf(dataclasses.replace(model, config=text, params=only, extras={}), tmp_path / "text")
    refused(
        tmp_path, tmp_path / "text", "llava", "without vision tower and projector cannot be saved as llava; save as hf"
    )

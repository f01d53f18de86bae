"""Weights that fit no layout: the message says what they are and what to do."""

from __future__ import annotations

import json
import pathlib
from typing import Any

import numpy as np
import pytest
import safetensors.numpy

from tests.checkpoints import made
from tests.checkpoints import tiny
from vlguard_jax import errors
from vlguard_jax.checkpoints import describe
from vlguard_jax.checkpoints import export_record
from vlguard_jax.checkpoints import load
from vlguard_jax.checkpoints import save
from vlguard_jax.checkpoints import save_adapters
from vlguard_jax.checkpoints import torch_files
from vlguard_jax.families.chat import tokenizer

pytestmark = pytest.mark.usefixtures("without_manifests")

POINTER = (
    "version https://git-lfs.github.com/spec/v1\noid"
    " sha256:4d7a214614ab2935c943f9e0ff69d22eadbb8f32b1258daaa5e2ca24d17e2393\nsize 12\n"
)
Q = "model.layers.0.self_attn.q_proj"
EMBED = "model.embed_tokens.weight"


@pytest.fixture
def folder(tmp_path: pathlib.Path) -> pathlib.Path:
    save.save_llava(made.model(), tmp_path / "m")
    return tmp_path / "m"


def refused(folder: pathlib.Path, **changes: np.ndarray | None) -> str:
    """The one line about the folder with these tensors in place of its own; None takes one away."""
    arrays = {k: v for k, v in (tiny.read_all(folder) | changes).items() if v is not None}
    safetensors.numpy.save_file(arrays, folder / "model.safetensors")
    with pytest.raises(errors.UserError) as error:
        load.load(folder)
    assert "\n" not in str(error.value) and len(str(error.value)) < 500
    return str(error.value)


@pytest.mark.parametrize("name", ["model.safetensors", "vision_tower/model.safetensors"])
@pytest.mark.parametrize(
    ("content", "message"),
    [
        (POINTER, "a git-lfs pointer instead of the file; fetch the file itself with `git lfs pull`"),
        ("<!DOCTYPE html><html>", "this is a web page"),
        ("", "the file is empty; get it again"),
        ("\0" * 40, "truncated"),
    ],
)
def test_files_of_weights(folder: pathlib.Path, name: str, content: str, message: str) -> None:
    (folder / name).write_text(content)
    with pytest.raises(errors.UserError, match=rf"{name}: not a readable safetensors file: .*{message}"):
        load.load(folder)


@pytest.mark.parametrize("name", ["pytorch_model.bin", "mm_projector.bin", "non_lora_trainables.bin"])
def test_torch_files(tmp_path: pathlib.Path, name: str) -> None:
    for content, message in (
        (POINTER, "git lfs pull"),
        ("<html>", "a web page"),
        ("", "empty"),
        ("PK\3\4x", "truncated"),
    ):
        (tmp_path / name).write_text(content)
        with pytest.raises(errors.UserError, match=rf"{name}: not a readable torch zip file: .*{message}"):
            torch_files.open_torch(tmp_path / name)


def test_tokenizer_pointers(tmp_path: pathlib.Path) -> None:
    (tmp_path / "tokenizer.model").write_text(POINTER)
    with pytest.raises(errors.UserError, match=r"tokenizer\.model is not a sentencepiece model: .*git lfs pull"):
        tokenizer.load_tokenizer(tmp_path)
    with pytest.raises(errors.UserError, match=r"tokenizer\.model is not a sentencepiece model: .*git lfs pull"):
        save.check(made.model(tokenizer_folder=tmp_path), "hf")
    (tmp_path / "tokenizer.json").write_text(POINTER)
    with pytest.raises(errors.UserError, match=r"tokenizer\.json: .*git lfs pull"):
        save.check(made.model(tokenizer_folder=tmp_path), "hf")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (
            {f"{Q}.weight.absmax": np.ones(4, np.uint8), f"{Q}.weight": np.ones((32, 1), np.uint8)},
            "bitsandbytes to 4 or 8",
        ),
        ({f"{Q}.weight.quant_state.bitsandbytes__nf4": np.ones(4, np.uint8)}, "bitsandbytes to 4 bits"),
        ({f"{Q}.SCB": np.ones(8, np.float32), f"{Q}.weight": np.ones((8, 8), np.uint8)}, "bitsandbytes to 4 or 8"),
        ({f"{Q}.qweight": np.ones((1, 8), np.int32), f"{Q}.weight": None}, "GPTQ or AWQ"),
        ({f"{Q}.weight_packed": np.ones((8, 1), np.int32), f"{Q}.weight": None}, "compressed tensors"),
    ],
)
def test_quantized(folder: pathlib.Path, changes: dict[str, Any], words: str) -> None:
    message = refused(folder, **changes)
    assert words in message and "model.dequantize()" in message and Q in message


def test_shards_of_trainers(folder: pathlib.Path, tmp_path: pathlib.Path) -> None:
    empty = np.ones(0, np.float32)
    message = refused(folder, **{EMBED: empty, f"{Q}.weight": empty})
    assert "2 of " in message and "ZeRO-3" in message and "zero_to_fp32.py" in message
    flat = {"model._fsdp_wrapped_module._flat_param": np.ones(100, np.float32)}
    assert "FULL_STATE_DICT" in refused(folder, **{EMBED: None}, **flat)
    torch_files.save_torch(tmp_path / "mm_projector.bin", {"model.mm_projector.0.weight": empty})
    save.save_llava(made.model(), tmp_path / "good")
    with pytest.raises(errors.UserError, match=r"mm_projector\.bin: 1 of 1 tensors hold nothing .*ZeRO-3"):
        load.load(tmp_path / "good", projector=str(tmp_path / "mm_projector.bin"))


@pytest.mark.parametrize(
    ("prefix", "way"),
    [
        ("module.", "save model.module"),
        ("_orig_mod.", "torch.compile"),
        ("_fsdp_wrapped_module.", "FSDP"),
        ("base_model.model.", "merge_and_unload"),
        ("module._orig_mod.", "save model.module"),
    ],
)
def test_names_of_wrapped_models(folder: pathlib.Path, prefix: str, way: str) -> None:
    arrays = tiny.read_all(folder)
    message = refused(folder, **{f"{prefix}{k}": v for k, v in arrays.items()}, **dict.fromkeys(arrays))
    assert "unknown tensor" in message and way in message and "was put there by" in message


def test_one_nearest_name_and_how_many_more(folder: pathlib.Path) -> None:
    one = np.ones(3, np.float32)
    message = refused(folder, **{"model.nrom.weight": one, "model.x": one, "model.y": one})
    assert (
        "unknown tensor model.nrom.weight [3]; did you mean 'model.norm.weight'? (2 more are unknown, too)" in message
    )
    message = refused(folder, **dict.fromkeys(("model.nrom.weight", "model.x", "model.y")), **{"ZZZZZZZZ": one})
    assert "unknown tensor ZZZZZZZZ [3]; the 25 known names are like 'lm_head.weight'" in message, message


def test_rows_that_differ_from_the_config(folder: pathlib.Path) -> None:
    message = refused(folder, **{EMBED: np.ones((104, 8), np.float32)})
    assert (
        "[100, 8] expected from the config, [104, 8] found; if the weights are right, set vocab_size to 104" in message
    )
    assert "vocab_size" not in refused(folder, **{EMBED: np.ones((100, 9), np.float32)})


def test_a_missing_projector(folder: pathlib.Path) -> None:
    message = refused(folder, **{name: None for name in tiny.read_all(folder) if "mm_projector" in name})
    assert "missing tensor model.mm_projector.0.weight" in message and "give the mm_projector.bin" in message


def test_the_projector_of_the_base_is_not_used_silently(tmp_path: pathlib.Path) -> None:
    """An adapter folder without LLaVA's own files, as a trainer leaves it in the middle of a run."""
    save.save_llava(made.model(), tmp_path / "base")
    save_adapters.save_peft(made.model(made.LORA, base=made.on("base")), tmp_path / "lora")
    (tmp_path / "lora/config.json").unlink()
    with pytest.raises(
        errors.UserError, match=r"lora/config\.json: no such file beside non_lora_trainables\.bin; copy"
    ):
        load.load(tmp_path / "lora")
    (tmp_path / "lora/non_lora_trainables.bin").unlink()
    note = f"{tmp_path / 'lora'} holds no projector: that of its base, base, is used"
    loaded = load.load(tmp_path / "lora")
    assert loaded.extras["note"] == note and describe.describe(tmp_path / "lora")["note"] == note
    save.save_orbax(loaded, tmp_path / "orbax")
    assert "note" not in json.loads((tmp_path / "orbax" / export_record.RECORD).read_text())["extras"]

"""transformers -> ours -> transformers, with small random models made in memory, in every naming generation."""

from __future__ import annotations

from collections.abc import Callable
import json
import pathlib
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
import transformers

from tests.checkpoints import tiny
from vlguard_jax import errors
from vlguard_jax import trees
from vlguard_jax.checkpoints import load
from vlguard_jax.checkpoints import save
from vlguard_jax.families import parameters
from vlguard_jax.families.blocks import config_json
from vlguard_jax.families.llama import config as llama_config
from vlguard_jax.families.llava import config_json as llava_json


@pytest.mark.parametrize("names", ["pretrained", "memory", "hub"])
@pytest.mark.parametrize("variant", tiny.VARIANTS)
def test_llava_hf_there_and_back(tmp_path: pathlib.Path, variant: str, names: str) -> None:
    model = tiny.llava(**tiny.VARIANTS[variant])
    source = tiny.save(model, tmp_path / "source", names)
    ours = load.load(source)
    assert ours.layout == "llava-hf" and ours.config.text.vocab_size == tiny.VOCAB
    state = {tiny.hub_name(k): v.numpy() for k, v in model.state_dict().items()}
    if ours.config.text.tie_embeddings:
        del state["language_model.lm_head.weight"]
    save.save_hf(ours, tmp_path / "again")
    tiny.assert_same_arrays(tiny.read_all(tmp_path / "again"), state)
    tiny.assert_same_model(load.load(tmp_path / "again"), ours)
    back = transformers.LlavaForConditionalGeneration.from_pretrained(tmp_path / "again")
    for name, value in model.state_dict().items():
        assert torch.equal(back.state_dict()[name], value), name
    configs = [m.config.text_config.to_diff_dict() | {"dtype": None} for m in (back, model)]
    assert configs[0] == configs[1]


@pytest.mark.parametrize("variant", tiny.VARIANTS)
def test_other_layouts_carry_everything(tmp_path: pathlib.Path, variant: str) -> None:
    """llava-hf -> llava -> Orbax -> llava-hf: the same model, and transformers computes the same logits with it."""
    model = tiny.llava(**tiny.VARIANTS[variant])
    ours = load.load(tiny.save(model, tmp_path / "source", "hub"))
    save.save_llava(ours, tmp_path / "llava")
    original = load.load(tmp_path / "llava")
    tiny.assert_same_model(original, ours)
    save.save_orbax(original, tmp_path / "orbax")
    exported = load.load(tmp_path / "orbax")
    tiny.assert_same_model(exported, ours)
    save.save_hf(exported, tmp_path / "hf")
    tiny.assert_same_model(load.load(tmp_path / "hf"), ours)
    assert exported.config.text.architecture == tiny.VARIANTS[variant].get("model_type", "llama")
    back = transformers.LlavaForConditionalGeneration.from_pretrained(tmp_path / "hf").eval()
    ids = torch.tensor([[1, 5] + [tiny.VOCAB] * 4 + [9, 60, 7]])
    pixels = torch.randn(1, 3, 28, 28, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        expected, found = (m(input_ids=ids, pixel_values=pixels).logits[..., : tiny.VOCAB] for m in (model, back))
    assert torch.equal(found, expected)


def test_an_unpadded_vocabulary_is_kept_whole(tmp_path: pathlib.Path) -> None:
    model = tiny.llava(vocab_size=tiny.VOCAB + 1)
    source = tiny.save(model, tmp_path / "source", "pretrained")
    ours = load.load(source)
    assert ours.config.text.vocab_size == tiny.VOCAB + 1
    save.save_hf(ours, tmp_path / "again")
    state = {tiny.hub_name(k): v.numpy() for k, v in model.state_dict().items()}
    tiny.assert_same_arrays(tiny.read_all(tmp_path / "again"), state)


@pytest.mark.parametrize("variant", tiny.VARIANTS)
def test_llama_there_and_back(tmp_path: pathlib.Path, variant: str) -> None:
    model = tiny.llama(**tiny.VARIANTS[variant])
    model.save_pretrained(tmp_path / "source")
    ours = load.load(tmp_path / "source", dtype=np.float32)
    assert ours.layout == "llama" and ours.config == llama_config.LlamaConfig(ours.config.text)
    assert ours.params.keys() == {"text"}
    save.save_hf(ours, tmp_path / "again")
    tiny.assert_same_arrays(tiny.read_all(tmp_path / "again"), tiny.read_all(tmp_path / "source"))
    back = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "again").eval()
    assert type(back) is type(model)
    ids = torch.arange(3, 60)[None]
    with torch.no_grad():
        assert torch.equal(back(ids).logits, model(ids).logits)
    with pytest.raises(errors.UserError, match="cannot be saved as llava"):
        save.save_llava(ours, tmp_path / "llava")


@pytest.mark.parametrize("kind", ["clip", "clip_vision_model"])
def test_llama_with_tower_and_projector(tmp_path: pathlib.Path, kind: str) -> None:
    """The start of mixed training: a language model, a CLIP folder and the projector of the pretraining stage."""
    clip = tiny.clip()
    tower = clip
    if kind == "clip_vision_model":
        tower = transformers.CLIPVisionModel(clip.config.vision_config)
        tower.load_state_dict(clip.vision_model.state_dict())
    tower.save_pretrained(tmp_path / "tower")
    tiny.llama().save_pretrained(tmp_path / "llama")
    projector = {
        f"model.mm_projector.{k}": v for k, v in torch.nn.Sequential(*[torch.nn.Linear(24, 32)]).state_dict().items()
    }
    linear = {name.replace(".0.", "."): value for name, value in projector.items()}
    torch.save(linear, tmp_path / "mm_projector.bin")
    ours = load.load(
        tmp_path / "llama", vision_tower=str(tmp_path / "tower"), projector=str(tmp_path / "mm_projector.bin")
    )
    assert ours.config.projector == "linear"
    vision = ours.params["vision"]
    state = {k: v.detach().numpy() for k, v in clip.vision_model.state_dict().items()}
    np.testing.assert_array_equal(
        vision["patch"]["kernel"].transpose(3, 2, 0, 1), state["embeddings.patch_embedding.weight"]
    )
    np.testing.assert_array_equal(
        vision["layers"]["mlp"]["fc1"]["kernel"][2].T, state["encoder.layers.2.mlp.fc1.weight"]
    )
    np.testing.assert_array_equal(vision["post_norm"]["bias"], state["post_layernorm.bias"])
    np.testing.assert_array_equal(ours.params["projector"]["fc1"]["kernel"].T, linear["model.mm_projector.weight"])
    save.save_llava(ours, tmp_path / "llava")
    tiny.assert_same_model(load.load(tmp_path / "llava"), ours)
    with pytest.raises(errors.UserError, match="'linear' projector has no place"):
        save.save_hf(ours, tmp_path / "hf")
    with pytest.raises(errors.UserError, match="only with both vision_tower and projector"):
        load.load(tmp_path / "llama", vision_tower=str(tmp_path / "tower"))
    with pytest.raises(errors.UserError, match="a vision tower alone"):
        load.load(tmp_path / "tower")


def test_defaults_are_those_of_transformers() -> None:
    text = config_json.text_config({"model_type": "llama"}, "x")
    llama = transformers.LlamaConfig()
    assert (text.width, text.mlp_width, text.num_layers) == (
        llama.hidden_size,
        llama.intermediate_size,
        llama.num_hidden_layers,
    )
    assert (text.num_heads, text.num_kv_heads, text.head_width) == (
        llama.num_attention_heads,
        llama.num_key_value_heads,
        llama.head_dim,
    )
    assert (text.vocab_size, text.norm_eps, text.rope_theta) == (
        llama.vocab_size,
        llama.rms_norm_eps,
        llama.rope_parameters["rope_theta"],
    )
    whole, stored = llava_json.read_hf({"model_type": "llava"}, pathlib.Path("nowhere"))
    reference = transformers.LlavaConfig()
    assert stored == reference.text_config.vocab_size
    alone = config_json.vision_config({"model_type": "clip_vision_model"}, "x", None, "")
    for vision, clip in ((alone, transformers.CLIPVisionConfig()), (whole.vision, reference.vision_config)):
        assert vision is not None
        assert (vision.width, vision.mlp_width, vision.num_layers) == (
            clip.hidden_size,
            clip.intermediate_size,
            clip.num_hidden_layers,
        )
        assert (vision.num_heads, vision.image_size, vision.patch_size) == (
            clip.num_attention_heads,
            clip.image_size,
            clip.patch_size,
        )
        assert (vision.activation, vision.norm_eps) == (clip.hidden_act, clip.layer_norm_eps)


def test_dtypes(tmp_path: pathlib.Path) -> None:
    source = tiny.save(tiny.llava().to(torch.bfloat16), tmp_path / "source", "hub")
    stored, wide = load.load(source), load.load(source, dtype=np.float32)
    assert stored.weights_sha256 == wide.weights_sha256  # the hash names what is stored
    for path, value in trees.flatten(wide.params).items():
        assert value.dtype == np.float32
        np.testing.assert_array_equal(trees.flatten(stored.params)[path].astype(np.float32), value)
    save.save_hf(wide, tmp_path / "half", np.float16)
    half = transformers.LlavaForConditionalGeneration.from_pretrained(tmp_path / "half", dtype="auto")
    assert {p.dtype for p in half.parameters()} == {torch.float16}
    wide.params["text"]["norm"]["scale"][0] = 1e6
    with pytest.raises(errors.UserError, match=r"norm\.weight: holds values beyond the range of fp16"):
        save.save_hf(wide, tmp_path / "over", np.float16)
    assert {p.name for p in tmp_path.iterdir()} == {"source", "half"}


@pytest.mark.parametrize("kind", [tiny.llama, tiny.llava])
def test_a_head_beside_an_embedding_that_is_said_to_be_it(tmp_path: pathlib.Path, kind: Callable[..., Any]) -> None:
    """As peft's merge leaves a LLaVA whose head was trained; transformers 5 uses that head."""
    model = kind(tie_word_embeddings=True)
    source = tiny.save(model, tmp_path / "source", "pretrained")
    state = {name: value.clone() for name, value in model.state_dict().items()}
    safetensors.torch.save_file(state, source / "model.safetensors")
    expected = trees.flatten(load.load(source).params)[parameters.EMBEDDING]  # a copy of it is no other head
    state["lm_head.weight"] += 1
    safetensors.torch.save_file(state, source / "model.safetensors")
    with pytest.raises(errors.UserError, match=r"lm_head\.weight differs from .*embed_tokens\.weight, and .*to false"):
        load.load(source)
    theirs = type(model).from_pretrained(source).lm_head.weight
    config = json.loads((source / "config.json").read_text())
    tied = {"tie_word_embeddings": False}
    text = {"text_config": config["text_config"] | tied} if "text_config" in config else {}
    (source / "config.json").write_text(json.dumps(config | tied | text))
    ours = trees.flatten(load.load(source).params)
    np.testing.assert_array_equal(ours["text.head.kernel"].T, theirs[: tiny.VOCAB].detach())
    np.testing.assert_array_equal(ours[parameters.EMBEDDING], expected)

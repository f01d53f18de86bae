"""Saved folders: whole or absent, sharded by size, with the tokenizer's files that the layout needs."""

from __future__ import annotations

import dataclasses
import json
import pathlib
from typing import Any

import numpy as np
import pytest
import tokenizers
import transformers

from tests.checkpoints import made
from tests.checkpoints import tiny
from tests.data import stand as data_stand
from vlguard_jax import errors
from vlguard_jax import trees
from vlguard_jax.checkpoints import checkpoint
from vlguard_jax.checkpoints import export_record
from vlguard_jax.checkpoints import header
from vlguard_jax.checkpoints import load
from vlguard_jax.checkpoints import save
from vlguard_jax.checkpoints import save_adapters
from vlguard_jax.checkpoints import tensors
from vlguard_jax.checkpoints import torch_files
from vlguard_jax.families.chat import templates
from vlguard_jax.families.chat import tokenizer as tokenizer_lib
from vlguard_jax.families.llava import config as llava_config


@pytest.mark.parametrize("writer", [save.save_llava, save.save_hf, save.save_orbax])
def test_a_new_model_comes_back(tmp_path: pathlib.Path, writer) -> None:
    writer(made.model(), tmp_path / "a")
    found = load.load(tmp_path / "a")
    tiny.assert_same_model(found, made.model())
    assert [p.name for p in tmp_path.iterdir()] == ["a"]


def test_shards_follow_the_size(tmp_path: pathlib.Path) -> None:
    save.save_hf(made.model(), tmp_path / "a", shard_bytes=3000)
    index = json.loads((tmp_path / "a/model.safetensors.index.json").read_text())
    shards = sorted(p.name for p in (tmp_path / "a").glob("*.safetensors"))
    assert len(shards) > 3 and shards == sorted(set(index["weight_map"].values()))
    assert shards[0] == f"model-00001-of-{len(shards):05d}.safetensors"
    found = {shard: tensors.open_file(tmp_path / "a" / shard) for shard in shards}
    sizes = [[t.read().nbytes for t in shard.values()] for shard in found.values()]
    assert index["metadata"]["total_size"] == sum(map(sum, sizes))
    assert all(sum(shard) <= 3000 or len(shard) == 1 for shard in sizes)
    assert index["weight_map"] == {name: shard for shard, names in found.items() for name in names}
    tiny.assert_same_model(load.load(tmp_path / "a"), made.model())


def test_rows_behind_the_vocabulary(tmp_path: pathlib.Path) -> None:
    save.save_hf(made.model(), tmp_path / "a")
    embedding = tiny.read_all(tmp_path / "a")["language_model.model.embed_tokens.weight"]
    assert embedding.shape == (128, 8)
    np.testing.assert_allclose(embedding[100:], np.broadcast_to(embedding[:100].mean(0), (28, 8)), rtol=1e-6, atol=1e-7)
    config = json.loads((tmp_path / "a/config.json").read_text())
    assert (config["image_token_index"], config["pad_token_id"], config["text_config"]["vocab_size"]) == (100, 101, 128)


def test_nothing_is_overwritten_or_half_written(tmp_path: pathlib.Path) -> None:
    target = tmp_path / "a"
    target.mkdir()
    save.save_llava(made.model(), target)  # empty: fine
    with pytest.raises(
        errors.UserError, match="a is there already; choose another folder, or overwrite it with --overwrite"
    ):
        save.save_llava(made.model(), target)
    broken = made.model(params={"text": {"embed": {"embedding": np.zeros((100, 8))}}})
    for writer in (save.save_llava, save.save_hf):
        with pytest.raises(KeyError):
            writer(broken, target, overwrite=True)
    wrong = trees.flatten(made.model().params) | {"text.norm.scale": np.zeros(9)}
    with pytest.raises(ValueError, match=r"text.norm.scale has the shape \(9,\)"):
        save.save_llava(made.model(params=trees.unflatten(wrong)), tmp_path / "b")
    assert [p.name for p in tmp_path.iterdir()] == ["a"]
    tiny.assert_same_model(load.load(target), made.model())
    save.save_hf(made.model(), target, overwrite=True)
    assert load.load(target).layout == "llava-hf"


def test_adapters_must_be_merged_or_saved_apart(tmp_path: pathlib.Path) -> None:
    for writer in (save.save_llava, save.save_hf):
        with pytest.raises(ValueError, match="adapters must be merged"):
            writer(made.model(made.LORA), tmp_path / "a")
    with pytest.raises(errors.UserError, match="no LoRA adapters"):
        save_adapters.save_peft(made.model(), tmp_path / "a")
    with pytest.raises(
        errors.UserError, match="cannot be named as the base of PEFT adapters: its weights are in no folder"
    ):
        save_adapters.save_peft(made.model(made.LORA), tmp_path / "a")
    assert not list(tmp_path.iterdir())


@pytest.mark.usefixtures("without_manifests")
def test_peft_there_and_back(tmp_path: pathlib.Path) -> None:
    whole = made.model(made.LORA, base=made.on("base"))
    save.save_llava(made.model(), tmp_path / "base")
    save_adapters.save_peft(whole, tmp_path / "runs/lora")
    tiny.assert_same_model(load.load(tmp_path / "runs/lora"), whole)  # the base is found two folders up
    save.save_orbax(whole, tmp_path / "orbax")
    tiny.assert_same_model(load.load(tmp_path / "orbax"), whole)
    (tmp_path / "runs/lora/non_lora_trainables.bin").unlink()
    with pytest.raises(errors.UserError, match=r"non_lora_trainables\.bin: no such file"):
        load.load(tmp_path / "runs/lora")


def test_a_base_that_does_not_fit(tmp_path: pathlib.Path) -> None:
    save_adapters.save_peft(made.model(made.LORA, base=made.on("elsewhere")), tmp_path / "lora")
    with pytest.raises(errors.UserError, match="its base model 'elsewhere' is not found; name its folder as base"):
        load.load(tmp_path / "lora")
    other = llava_config.LlavaConfig(dataclasses.replace(made.TEXT, norm_eps=1e-6), made.VISION, "mlp2x_gelu")
    save.save_llava(made.model(config=other), tmp_path / "other")
    with pytest.raises(
        errors.UserError, match=r"the base does not fit: norm_eps is 1e-06, the adapter was made for 1e-05"
    ):
        load.load(tmp_path / "lora", base=str(tmp_path / "other"))


def test_a_projector_alone_with_its_base(tmp_path: pathlib.Path) -> None:
    save.save_llava(made.model(), tmp_path / "base")
    stage = tmp_path / "stage"
    stage.mkdir()
    (stage / "config.json").write_text((tmp_path / "base/config.json").read_text())
    torch_files.save_torch(stage / "mm_projector.bin", _projector(tmp_path / "base", scale=2.0))
    with pytest.raises(
        errors.UserError, match="only a projector is here; name the language model it belongs to as base"
    ):
        load.load(stage)
    found = load.load(stage, base=str(tmp_path / "base"))
    expected = trees.flatten(made.model().params)
    expected |= {path: 2 * value for path, value in expected.items() if path.startswith("projector.")}
    tiny.assert_same_arrays(trees.flatten(found.params), expected)
    replaced = load.load(tmp_path / "base", projector=str(stage))
    tiny.assert_same_arrays(trees.flatten(replaced.params), expected)


def _projector(folder: pathlib.Path, scale: float) -> dict[str, np.ndarray]:
    return {name: scale * value for name, value in tiny.read_all(folder).items() if "mm_projector" in name}


@pytest.mark.usefixtures("without_manifests")
@pytest.mark.parametrize(
    "said", [{"unfreeze_mm_vision_tower": True}, {"mm_tunable_parts": "mm_vision_tower,mm_mlp_adapter"}]
)
def test_a_trained_tower_travels_with_the_checkpoint(tmp_path: pathlib.Path, said: dict[str, Any]) -> None:
    """With either key the checkpoint's own tower counts; without, the tower's folder does."""
    save.save_llava(made.model(), tmp_path / "frozen")
    source = load.load(tmp_path / "frozen")
    config = source.extras["config"] | said
    save.save_llava(dataclasses.replace(source, extras=dict(source.extras) | {"config": config}), tmp_path / "trained")
    tower = tmp_path / "trained/vision_tower/model.safetensors"
    changed = {name: value + 1 for name, value in tiny.read_all(tower.parent).items()}
    import safetensors.numpy

    safetensors.numpy.save_file(changed, tower)
    tiny.assert_same_model(load.load(tmp_path / "trained"), made.model())
    tiny.change_json(tmp_path / "trained/config.json", unfreeze_mm_vision_tower=False, mm_tunable_parts=None)
    found = trees.flatten(load.load(tmp_path / "trained").params)
    np.testing.assert_array_equal(found["vision.class_token"], made.model().params["vision"]["class_token"] + 1)


@pytest.mark.usefixtures("without_manifests")
def test_exports_are_checked(tmp_path: pathlib.Path) -> None:
    save.save_orbax(made.model(), tmp_path / "a")
    record = tmp_path / "a" / export_record.RECORD
    content = json.loads(record.read_text())
    assert content["format_version"] == header.FORMAT_VERSION and content["kind"] == "model"
    for other in (1, 99):
        record.write_text(json.dumps(content | {"format_version": other}))
        said = rf"checkpoint\.json: format_version is {other}, this program reads 2; use the version of vlguard_jax"
        with pytest.raises(errors.UserError, match=said):
            load.load(tmp_path / "a")
    others = content["arrays"] | {"text.norm.scale": "0" * 64}
    record.write_text(json.dumps(content | {"arrays": others}))
    with pytest.raises(errors.UserError, match=r"checkpoint\.json: weights_sha256 '\w+' is not that of its arrays"):
        load.load(tmp_path / "a")
    record.write_text(json.dumps(content | {"arrays": others, "weights_sha256": checkpoint.combine(others)}))
    with pytest.raises(errors.UserError, match=r"array text\.norm\.scale is not what checkpoint\.json says"):
        load.load(tmp_path / "a")
    half = load.load(_restored(record, content).parent, dtype=np.float16)
    assert half.params["text"]["norm"]["scale"].dtype == np.float16


def _restored(record: pathlib.Path, content: dict) -> pathlib.Path:
    record.write_text(json.dumps(content))
    return record


def test_tokenizer_files_of_both_layouts(tmp_path: pathlib.Path) -> None:
    """llava -> hf adds <image> and <pad>, hf -> llava takes them away again, with and without a tokenizer.json."""
    folder = data_stand.write_tokenizer(tmp_path / "tokenizer")
    pieces = tokenizer_lib.read(folder).vocab_size
    vocabulary = {"<unk>": 0} | {f"w{i}": i for i in range(1, pieces)}
    words = tokenizers.Tokenizer(tokenizers.models.WordLevel(vocabulary, unk_token="<unk>"))
    words.add_special_tokens(["<unk>"])
    words.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(
        json.dumps({"legacy": False, "pad_token": None, "padding_side": "right"})
    )
    (folder / "special_tokens_map.json").write_text(json.dumps({"unk_token": "<unk>", "pad_token": "<unk>"}))
    save.save_hf(made.model(vocab_size=pieces, tokenizer_folder=folder), tmp_path / "hf")
    assert (tmp_path / "hf/tokenizer.model").read_bytes() == data_stand.model_bytes()
    added = {t["content"]: t["id"] for t in json.loads((tmp_path / "hf/tokenizer.json").read_text())["added_tokens"]}
    assert added == {"<unk>": 0, "<image>": pieces, "<pad>": pieces + 1}
    settings = json.loads((tmp_path / "hf/tokenizer_config.json").read_text())
    decoder = {int(i): token["content"] for i, token in settings["added_tokens_decoder"].items()}
    assert decoder == {0: "<unk>", pieces: "<image>", pieces + 1: "<pad>"}
    assert (settings["pad_token"], settings["legacy"]) == ("<pad>", False)
    save.save_llava(load.load(tmp_path / "hf"), tmp_path / "llava")
    for name in ("tokenizer.model", "tokenizer.json", "special_tokens_map.json"):
        before, after = (folder / name).read_bytes(), (tmp_path / "llava" / name).read_bytes()
        assert before == after or json.loads(before) == json.loads(after), name
    settings = json.loads((tmp_path / "llava/tokenizer_config.json").read_text())
    assert (settings["pad_token"], settings["padding_side"], settings["legacy"]) == (None, "right", False)
    assert not (tmp_path / "llava/added_tokens.json").exists()


@pytest.mark.parametrize(
    ("writer", "takes"),
    [(save.save_llava, {"vision_tower", "projector"}), (save.save_hf, set()), (save.save_orbax, set())],
)
def test_arguments_without_effect_are_refused(tmp_path: pathlib.Path, writer, takes: set[str]) -> None:
    writer(made.model(), tmp_path / "a")
    for name in {"base", "vision_tower", "projector"} - takes:
        with pytest.raises(errors.UserError, match=f"this checkpoint takes no {name}, somewhere would not be used"):
            load.load(tmp_path / "a", **{name: "somewhere"})


def test_what_others_keep_beside_stays(tmp_path: pathlib.Path) -> None:
    for name in (".a.partial", "a.partial", ".a.old"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "model.safetensors").write_text("somebody's")
    for overwrite in (False, True):
        save.save_llava(made.model(), tmp_path / "a", overwrite=overwrite)
    assert sorted(p.name for p in tmp_path.iterdir()) == [".a.old", ".a.partial", "a", "a.partial"]
    assert (tmp_path / ".a.partial/model.safetensors").read_text() == "somebody's"


def test_of_two_that_save_the_first_to_end_wins(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second is told so, and what it was not asked to overwrite stays."""
    write_json, first = save.tokenizer_files.write_json, made.model()
    for overwrite in (False, True):
        meanwhile = [lambda: save.save_hf(first, tmp_path / "a", overwrite=overwrite)]  # noqa: B023 -- called at once

        def slow(path: pathlib.Path, value: object, meanwhile=meanwhile) -> None:
            if meanwhile:
                meanwhile.pop()()
            write_json(path, value)

        monkeypatch.setattr(save.tokenizer_files, "write_json", slow)
        with pytest.raises(
            errors.UserError, match=r"a: (something is there already|another process has written it meanwhile)"
        ):
            save.save_llava(made.model(), tmp_path / "a", overwrite=overwrite)
        assert load.load(tmp_path / "a").layout == "llava-hf" and [p.name for p in tmp_path.iterdir()] == ["a"]


def test_the_hf_layout_has_the_chat_template_that_its_source_lacked(tmp_path: pathlib.Path) -> None:
    folder = data_stand.write_tokenizer(tmp_path / "tokenizer")
    pieces = tokenizer_lib.read(folder).vocab_size
    model = made.model(vocab_size=pieces, tokenizer_folder=folder)
    save.save_hf(model, tmp_path / "hf")
    text = (tmp_path / "hf/chat_template.jinja").read_text()
    words = transformers.AutoTokenizer.from_pretrained(tmp_path / "hf")
    asked = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "What is this?"}]}]
    prompt = words.apply_chat_template(asked, add_generation_prompt=True, tokenize=False)
    assert prompt == templates.TEMPLATES["vicuna_v1"].prompt("What is this?", 1)
    tuned = dataclasses.replace(model, extras={**model.extras, "provenance": {"template": "llava_v1"}})
    save.save_hf(tuned, tmp_path / "tuned")
    assert (tmp_path / "tuned/chat_template.jinja").read_text() == text.replace(
        "curious user", "curious human"
    ).replace("the user's", "the human's")
    (folder / "chat_template.jinja").write_text("{{ messages[0]['content'] }}")
    save.save_hf(model, tmp_path / "own")
    assert (tmp_path / "own/chat_template.jinja").read_text() == "{{ messages[0]['content'] }}"

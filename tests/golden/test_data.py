"""Prompts, pictures, VLGuard's conversion and subsets, sampler and decoding against the reference."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import pathlib
import random

import jax.numpy as jnp
import numpy as np
import pytest

from tests.families import tiny
from vlguard_jax import config
from vlguard_jax.data import file_index
from vlguard_jax.data import images
from vlguard_jax.data import order
from vlguard_jax.data import records
from vlguard_jax.data import vlguard
from vlguard_jax.families.blocks import clip
from vlguard_jax.families.chat import conversations
from vlguard_jax.families.chat import templates
from vlguard_jax.families.chat import tokenizer as tokenizer_lib
from vlguard_jax.families.llava import config as llava_config
from vlguard_jax.safety.benchmarks import vlguard as vlguard_benchmark

MODES = {"pad": "pad", "plain": "crop"}  # the reference's name -> ours

# VLGuard's published train.json, and the letters that convert_order.json uses for all its records, joined.
TRAIN_SHA256 = "1b44eb5438090baf6b94aafa09099d88183c41162d0a1298b70535852516aca1"
TRAIN_ORDER_SHA256 = "4d61696787701d64ef363fcadb0212c41365f2224843c5737f13318a2e453255"


def read_json(path: pathlib.Path):
    return json.loads(path.read_text(encoding="utf-8"))


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def with_legacy(golden: pathlib.Path, folder: pathlib.Path, legacy: bool) -> tokenizer_lib.Tokenizer:
    for path in (golden / "tokenizer").iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    path = folder / "tokenizer_config.json"
    path.write_text(json.dumps({**read_json(path), "legacy": legacy}))
    return tokenizer_lib.load_tokenizer(folder)


@pytest.mark.parametrize("legacy", [False, True])
def test_evaluation_prompts(golden, tmp_path, legacy):
    tokenizer = with_legacy(golden, tmp_path, legacy)
    key = "legacy_ids" if legacy else "nonlegacy_ids"
    items = read_json(golden / "eval_prompts.json")["items"]
    assert items
    for item in items:
        for name, expected in item["modes"].items():
            template = templates.get_template(name)
            assert sha256(template.prompt(item["question"], 1).encode()) == expected["prompt_sha256"]
            ids = conversations.tokenize_prompt(item["question"], 1, tokenizer, template)
            np.testing.assert_array_equal(ids, expected[key])


def test_evaluation_subsets(golden, metadata):
    recorded = read_json(golden / "eval_prompts.json")
    items = vlguard.read_items(metadata, "test")
    subsets = {name: vlguard.eval_items(items, name) for name in vlguard.SUBSETS}
    assert {name: len(questions) for name, questions in subsets.items()} == recorded["subset_sizes"]
    for item in recorded["items"]:
        found = subsets[item["subset"]][item["position_in_subset"]]
        assert (found.id, found.image, found.question) == (item["id"], item["image"], item["question"])


def test_leak_free_view(metadata):
    settings = config.BenchmarkSettings(path=str(metadata))
    views = {
        subset: vlguard_benchmark.LEAK_FREE.load(settings, subset) for subset in vlguard_benchmark.LEAK_FREE.counts
    }
    trained_on = {item.image for item in vlguard.read_items(metadata, "train")}
    assert not trained_on.intersection(one.name for items in views.values() for item in items for one in item.pictures)
    if sha256((metadata / "train.json").read_bytes()) == TRAIN_SHA256:
        assert {subset: len(items) for subset, items in views.items()} == dict(vlguard_benchmark.LEAK_FREE.counts)


def test_generation_prompts_and_texts(golden):
    paths = sorted(golden.glob("generations-*.json"))
    assert paths
    for path in paths:
        tokenizer = tokenizer_lib.load_tokenizer(golden / path.stem.replace("generations", "liuhaotian"))
        for item in read_json(path)["items"]:
            assert tokenizer.decode(item["new_ids"]) == item["text"]
            n_images = 0 if item["image"] is None else 1
            template = templates.get_template(item["template"])
            if "question" in item:
                ids = conversations.tokenize_prompt(item["question"], n_images, tokenizer, template)
                np.testing.assert_array_equal(ids, item["input_ids"])
            if "prompt" in item:
                assert conversations.tokenize_text(item["prompt"], tokenizer) == item["input_ids"]
            stops = [i for i, id_ in enumerate(item["new_ids"]) if id_ in tokenizer.stop_ids]
            assert stops in ([], [len(item["new_ids"]) - 1])


def model_size(golden: pathlib.Path) -> int:
    (tower,) = (golden / "vision_tower").iterdir()
    return read_json(tower / "config.json")["vision_config"]["image_size"]


def model(size: int, **vision) -> llava_config.LlavaConfig:
    """Of a tower that sees pictures of this size."""
    return dataclasses.replace(tiny.CONFIG, vision=dataclasses.replace(tiny.CONFIG.vision, image_size=size, **vision))


def pixels_of(path: pathlib.Path, sizes: llava_config.LlavaConfig, mode: str) -> np.ndarray:
    """u8[S, S, 3] of a recorded picture."""
    (square,) = images.load(path, sizes, MODES[mode]).arrays["images"]
    return square


def test_pixels_of_the_model(golden):
    arrays = np.load(golden / "pixel_values.npz")
    info = read_json(golden / "pixel_values.json")
    sizes = model(model_size(golden), image_mean=tuple(info["image_mean"]), image_std=tuple(info["image_std"]))
    keys = [key for key in arrays.files if key.startswith("pixel_values/")]
    assert keys
    for key in keys:
        _, mode, name = key.split("/", 2)
        picture = pixels_of(golden / "images" / name, sizes, mode)
        pixels = np.asarray(clip.normalize(jnp.asarray(picture[None]), sizes.vision))[0].transpose(2, 0, 1)
        np.testing.assert_allclose(pixels, arrays[key], atol=1e-6, rtol=0, err_msg=key)


def test_uint8_pictures(golden):
    arrays = np.load(golden / "pixel_values.npz")
    keys = [key for key in arrays.files if key.startswith("uint8_")]
    assert keys
    for key in keys:
        kind, mode, name = key.split("/", 2)
        picture = pixels_of(golden / "images" / name, model(int(kind.removeprefix("uint8_"))), mode)
        np.testing.assert_array_equal(picture.transpose(2, 0, 1), arrays[key], err_msg=key)


def test_picture_hashes(golden):
    info = read_json(golden / "pixel_values.json")
    compared = 0
    for name, entry in info["images"].items():
        for key, expected in entry.items():
            mode, _, size = key.rpartition("_")
            if mode not in MODES:
                continue
            picture = pixels_of(golden / "images" / name, model(int(size), image_mean=tuple(info["image_mean"])), mode)
            assert sha256(np.ascontiguousarray(picture.transpose(2, 0, 1)).tobytes()) == expected["uint8_sha256"], (
                f"{name} {key}"
            )
            compared += 1
    assert compared >= 2 * len(info["images"]) > 0


def letters(record, item: vlguard.Item) -> str:
    if not item.safe:
        return "u"
    kinds = {instruction: kind[0] for kind, instruction, _ in item.pairs}
    asked = [turn.text.removeprefix(templates.IMAGE_TAG) for turn in record.turns if turn.role == "human"]
    return "".join(kinds[text] for text in asked)


def drawn_apart_from_our_code(items: list[vlguard.Item]) -> list[str]:
    """What the reference's script does: seed the global generator once, shuffle the pairs of every safe record in
    place."""
    random.seed(0)
    found = []
    for item in items:
        kinds = [kind[0] for kind, _, _ in item.pairs]
        if item.safe:
            random.shuffle(kinds)
        found.append("".join(kinds) if item.safe else "u")
    return found


def test_conversion_order(golden, metadata):
    recorded = read_json(golden / "convert_order.json")
    items = vlguard.read_items(metadata, "train")
    converted = vlguard.convert(items)
    found = [letters(record, item) for record, item in zip(converted, items, strict=True)]
    n = len(recorded["order"])
    assert n > 0
    assert [record.id for record in converted[:n]] == recorded["ids"]
    assert found[:n] == recorded["order"]
    assert found == drawn_apart_from_our_code(items)
    for record, expected in zip(converted, recorded["first_two"], strict=False):
        assert record.images == (expected["image"],)
        assert record.category == expected.get("harmful_category")
        assert record.subcategory == expected.get("harmful_subcategory")
        assert [{"from": turn.role, "value": turn.text} for turn in record.turns] == expected["conversations"]


def test_published_files(metadata):
    path = metadata / "train.json"
    if sha256(path.read_bytes()) == TRAIN_SHA256:
        items = {split: vlguard.read_items(metadata, split) for split in vlguard.SPLITS}
        for split in vlguard.SPLITS:
            vlguard.check_counts(items[split], split, metadata)
        converted = vlguard.convert(items["train"])
        order_ = [letters(record, item) for record, item in zip(converted, items["train"], strict=True)]
        assert sha256("".join(order_).encode()) == TRAIN_ORDER_SHA256
        assert sum(len(item.pairs) for item in items["train"]) == 2977
        sizes = {name: len(vlguard.eval_items(items["test"], name)) for name in vlguard.SUBSETS}
        assert (
            sizes
            == {name: vlguard.subset_count(name) for name in vlguard.SUBSETS}
            == {"unsafes": 442, "safe_unsafes": 558, "safe_safes": 558}
        )
    else:
        # Another set of the same form: only that it is read and that its size is told apart from the published one.
        assert len(vlguard.convert(vlguard.read_items(path, "train"))) == len(read_json(path))


def test_no_record_of_the_training_split_is_void(golden, metadata):
    (folder, *_) = sorted(golden.glob("liuhaotian-*"))
    tokenizer = tokenizer_lib.load_tokenizer(folder)
    template = templates.get_template("vicuna_v1")
    converted = vlguard.convert(vlguard.read_items(metadata, "train"))
    # A length at which nothing is cut, so that every count is checked.
    assert [r.id for r in converted if conversations.tokenize(r, tokenizer, template, 10**6).mismatch] == []


def test_sampler(golden):
    recorded = read_json(golden / "sampler.json")
    assert recorded["cases"]
    for case in recorded["cases"]:
        drawn = iter(case["randperm_results"])

        def permute(n, drawn=drawn):
            values = next(drawn)
            assert len(values) == n
            return values

        found = order.modality_grouped(case["modality_lengths"], case["batch_size"], case["world_size"], permute)
        assert found == case["indices"]
        assert next(drawn, None) is None


def test_modality_lengths(golden):
    recorded = read_json(golden / "sampler.json")["dataset_lengths"]
    items = {item["name"]: item for item in read_json(golden / "conversations.json")["items"]}
    parsed = [records.parse_llava(items[name], i, "conversations.json") for i, name in enumerate(recorded["names"])]
    found = [file_index.modality_length(record) for record in parsed]
    assert found == recorded["modality_lengths"]

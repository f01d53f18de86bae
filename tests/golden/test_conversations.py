"""Ids, labels, warnings, truncation and picture slots against the reference, for every recorded conversation and
batch."""

from __future__ import annotations

import dataclasses
import json
import pathlib
import shutil

import numpy as np
import pytest
import transformers

from vlguard_jax import types
from vlguard_jax.data import batches
from vlguard_jax.data import records
from vlguard_jax.families.chat import conversations
from vlguard_jax.families.chat import templates
from vlguard_jax.families.chat import tokenizer as tokenizer_lib

MANY = 100  # more pictures than any conversation has


def read_json(path: pathlib.Path):
    return json.loads(path.read_text(encoding="utf-8"))


@pytest.fixture(scope="module", params=["tokenizer.model", "tokenizer.json"])
def tokenizers(golden, tmp_path_factory, request) -> dict[str, tokenizer_lib.Tokenizer]:
    """The recorded tokenizer with either value of the `legacy` flag, as it is or as transformers saves it today."""
    made = {}
    for name, legacy in (("legacy", True), ("nonlegacy", False)):
        folder = tmp_path_factory.mktemp(name)
        shutil.copytree(golden / "tokenizer", folder, dirs_exist_ok=True)
        path = folder / "tokenizer_config.json"
        path.write_text(json.dumps({**read_json(path), "legacy": legacy}))
        if request.param == "tokenizer.json":
            kept = transformers.LlamaTokenizer.from_pretrained(folder)
            folder = tmp_path_factory.mktemp(f"{name}-json")
            kept.save_pretrained(folder)
            assert not (folder / "tokenizer.model").exists()
        made[name] = tokenizer_lib.load_tokenizer(folder)
        assert made[name].legacy == legacy
    return made


@pytest.fixture(scope="module")
def recorded(golden) -> dict:
    return read_json(golden / "conversations.json")


@pytest.fixture(scope="module")
def by_name(recorded) -> dict[str, types.Record]:
    return {
        item["name"]: records.parse_llava(item, i, "conversations.json") for i, item in enumerate(recorded["items"])
    }


def template_of(recorded: dict) -> templates.Template:
    return templates.get_template({"v1": "vicuna_v1"}.get(recorded["template"], recorded["template"]))


def reference_labels(ids: list[int], spans: list[list[int]]) -> np.ndarray:
    labels = np.full(len(ids), types.IGNORE_LABEL)
    for start, end in spans:
        labels[start:end] = ids[start:end]
    return labels


def test_ids_labels_and_warnings(recorded, by_name, tokenizers):
    compared = 0
    for item in recorded["items"]:
        for variant, expected in item["variants"].items():
            kind, max_len = variant.rsplit("_", 1)
            tokens = conversations.tokenize(
                by_name[item["name"]], tokenizers[kind], template_of(recorded), int(max_len)
            )
            where = f"{item['name']} {variant}"
            np.testing.assert_array_equal(tokens.ids, expected["input_ids"], err_msg=where)
            np.testing.assert_array_equal(
                tokens.labels, reference_labels(expected["input_ids"], expected["label_spans"]), err_msg=where
            )
            assert tokens.mismatch == expected["warning"], where
            compared += 1
    assert compared == sum(len(item["variants"]) for item in recorded["items"]) > 0


def collated(
    samples: list[types.Tokens], max_len: int, pad_id: int, left: bool = False
) -> tuple[np.ndarray, np.ndarray]:
    """The reference's collator: pad to the longest, then cut."""
    width = max(len(sample.ids) for sample in samples)
    ids = np.full((len(samples), width), pad_id)
    labels = np.full((len(samples), width), types.IGNORE_LABEL)
    for i, sample in enumerate(samples):
        at = slice(width - len(sample.ids), width) if left else slice(0, len(sample.ids))
        ids[i, at], labels[i, at] = sample.ids, sample.labels
    return ids[:, :max_len], labels[:, :max_len]


def test_collator(golden, recorded, by_name, tokenizers):
    arrays = np.load(golden / "collator.npz")
    batch_names = {key.rsplit("/", 1)[0] for key in arrays.files}
    assert batch_names
    tokenizer = tokenizers["nonlegacy"]
    for batch in batch_names:
        max_len = int(batch.rsplit("_", 1)[1])
        samples = [
            conversations.tokenize(by_name[str(name)], tokenizer, template_of(recorded), max_len)
            for name in arrays[f"{batch}/members"]
        ]
        ids, labels = collated(samples, max_len, tokenizer.pad_id)
        np.testing.assert_array_equal(ids, arrays[f"{batch}/input_ids"])
        np.testing.assert_array_equal(labels, arrays[f"{batch}/labels"])
        np.testing.assert_array_equal(ids != tokenizer.pad_id, arrays[f"{batch}/attention_mask"])


def patches_of(golden: pathlib.Path) -> int:
    (tower,) = (golden / "vision_tower").iterdir()
    vision = read_json(tower / "config.json")["vision_config"]
    return (vision["image_size"] // vision["patch_size"]) ** 2


def test_expansion_and_truncation(golden, recorded, by_name, tokenizers):
    patches = patches_of(golden)
    tokenizer = tokenizers["nonlegacy"]
    compared = 0
    for info_path in golden.glob("logits-*.json"):
        arrays = np.load(info_path.with_suffix(".npz"))
        for name, info in read_json(info_path)["batches"].items():
            if info["prompt_only"]:
                continue
            max_len = info["max_length"]
            merged = arrays[f"{name}/merged_labels"]
            mask = arrays[f"{name}/merged_attention_mask"].astype(bool)
            for row, conversation in enumerate(info["conversations"]):
                tokens = conversations.tokenize(by_name[conversation], tokenizer, template_of(recorded), max_len)
                sample = batches.expand(tokens, [patches] * MANY, max_len, tokenizer.pad_id)
                expected = np.full(merged.shape[1], types.IGNORE_LABEL)
                at = (
                    slice(merged.shape[1] - len(sample.labels), None)
                    if info["padding_side"] == "left"
                    else slice(len(sample.labels))
                )
                expected[at] = sample.labels
                np.testing.assert_array_equal(expected, merged[row], err_msg=f"{info_path.name} {name} {conversation}")
                assert len(sample.tokens) == mask[row].sum()
                compared += 1
    assert compared > 0


def test_supervised_tokens_of_training_runs(golden):
    # The runs recorded the collator's labels: after the first truncation, before pictures are expanded and cut again.
    runs = list((golden / "train").glob("*/run.json"))
    assert runs
    for path in runs:
        run = read_json(path)
        arguments = run["arguments"]
        tokenizer = tokenizer_lib.load_tokenizer(golden / run["model"])
        template = templates.get_template({"v1": "vicuna_v1"}[arguments["version"]])
        max_len = arguments["model_max_length"]
        counts = {}
        for i, item in enumerate(run["items"]):
            tokens = conversations.tokenize(records.parse_llava(item, i, path.name), tokenizer, template, max_len)
            collated_only = batches.expand(
                dataclasses.replace(tokens, ids=tokens.ids[:max_len], labels=tokens.labels[:max_len]),
                [1] * MANY,
                None,
                None,
            )
            counts[item["name"]] = collated_only.num_supervised
        found = [sum(counts[name] for name in batch["items"]) for batch in run["micro_batches"]]
        assert found == [batch["tokens"] for batch in run["micro_batches"]], path.parent.name


def test_llava_hf_folder_gives_the_same_ids(golden, by_name, recorded):
    folders = sorted(golden.glob("llava-hf-*"))
    assert folders
    for folder in folders:
        twin = folder.with_name(folder.name.replace("llava-hf", "liuhaotian"))
        ours, theirs = tokenizer_lib.load_tokenizer(folder), tokenizer_lib.load_tokenizer(twin)
        assert ours.fingerprint == theirs.fingerprint
        for record in by_name.values():
            without = dataclasses.replace(record, images=())
            a, b = (conversations.tokenize(without, t, template_of(recorded), 10**6).ids for t in (ours, theirs))
            np.testing.assert_array_equal(a, b)

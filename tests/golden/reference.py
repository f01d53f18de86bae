"""Readers for the recorded results of the reference, shared by the golden tests."""

from collections.abc import Sequence
import dataclasses
import functools
import json
import pathlib
from typing import Any

import numpy as np

from vlguard_jax import trees
from vlguard_jax import types
from vlguard_jax.checkpoints import checkpoint as checkpoint_lib
from vlguard_jax.checkpoints import layouts
from vlguard_jax.checkpoints import load as load_lib
from vlguard_jax.data import batches
from vlguard_jax.data import images
from vlguard_jax.families import family
from vlguard_jax.families.blocks import configs
from vlguard_jax.families.chat import conversations
from vlguard_jax.families.chat import templates
from vlguard_jax.families.chat import tokenizer

TEMPLATES = {"v1": "vicuna_v1"}  # the reference's name -> ours


@functools.cache
def load(golden: pathlib.Path, name: str) -> checkpoint_lib.Checkpoint:
    """A recorded checkpoint in fp32."""
    return load_lib.load(golden / name, dtype=np.float32)


def variants(golden: pathlib.Path) -> list[str]:
    """Names behind "liuhaotian-" of the recorded checkpoints."""
    names = sorted(p.name.removeprefix("liuhaotian-") for p in golden.glob("liuhaotian-*"))
    assert names, "no recorded checkpoints"
    return names


def read(path: pathlib.Path) -> Any:
    """A JSON file."""
    return json.loads(path.read_text())


def record(item: dict[str, Any]) -> types.Record:
    """A recorded conversation as our record; `image` may be missing."""
    turns = tuple(types.Turn(t["from"], t["value"]) for t in item["conversations"])
    return types.Record(item.get("name", ""), turns, (item["image"],) if item.get("image") else ())


def tokens(
    golden: pathlib.Path, item: dict[str, Any], words: tokenizer.Tokenizer, max_len: int, template: str
) -> types.Tokens:
    """Tokens of a recorded conversation by our own code."""
    del golden
    return conversations.tokenize(record(item), words, templates.get_template(TEMPLATES[template]), max_len)


def picture(golden: pathlib.Path, name: str, mode: str, config: family.Config) -> types.Picture:
    """As the model of these sizes gets it."""
    return images.load(golden / "images" / name, config, "pad" if mode == "pad" else "crop")


def with_pictures(sample: batches.Sample, pictures: Sequence[types.Picture]) -> batches.Sample:
    """The sample with as many of the pictures as it uses."""
    return dataclasses.replace(sample, pictures=tuple(pictures[: sample.num_pictures]))


def named_tensors(params: Any, config: family.Config, lora: configs.LoraConfig | None) -> dict[str, np.ndarray]:
    """A (part of a) parameter tree under the reference's names, without the prefix that PEFT puts in front."""
    flat = trees.flatten(params)
    rows = layouts.rows("llava", config, ("text", "head", "projector"))
    rows += layouts.rows("peft", config, ("adapter",), lora=lora) if lora else []
    named = {}
    for row in rows:
        for i, names in enumerate(row.names if row.path in flat else ()):
            value = np.asarray(flat[row.path])
            named[plain_name(names[0])] = row.from_tree(value[i] if row.stacked else value)
    return named


def plain_name(name: str) -> str:
    """A recorded tensor's name without what PEFT adds."""
    return name.removeprefix("base_model.model.").replace(".default.", ".")

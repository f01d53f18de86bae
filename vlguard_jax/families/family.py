"""A model family: one value that the rest of the program asks.

A family's folder contains everything that is specific to it; no other code knows the size of its pictures, the names of
its tensors or the words around a question. The families are listed in table.py; docs/adding_a_model.md tells how to
write one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
import dataclasses
import pathlib
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from vlguard_jax import fields
from vlguard_jax import types
from vlguard_jax.families import extras as extras_lib
from vlguard_jax.families import parameters
from vlguard_jax.families.blocks import configs

Arrays = dict[str, np.ndarray]
PROVENANCE = "vlguard_jax"  # the section of config.json that this program writes, and others ignore
VOCAB_SIZE = "vocab_size"  # in that section: rows of the model where its files have more
OWN_TOWER = (
    "vision_tower"  # the tower's folder in a saved model of LLaVA's own layout, and its name where it has no other
)


@dataclasses.dataclass(frozen=True)
class Config:
    """Sizes of a model; each family subclasses it with what its network needs besides the decoder."""

    text: configs.TextConfig


class Room(NamedTuple):
    """Room for pictures in one row shard of a batch: units of the tower, and slots in the text."""

    units: int
    slots: int


class Tower(NamedTuple):
    """Cost of tower and projector for one unit.

    flops, projector_flops: of a forward pass. scores: attention scores of a layer, which are held in fp32 and in the
    compute format; numbers: others held with them. pixels: numbers read. features: rows returned.
    """

    flops: float
    projector_flops: float
    scores: int
    numbers: int
    pixels: int
    features: int


@dataclasses.dataclass(frozen=True)
class Pictures:
    """The pictures of a family.

    unit: what the tower works on, for messages ("picture", "tile").
    modes: ways to preprocess a picture, the default first.
    sized: whether a picture's extent depends on its size.
    cut: whether truncation may end a conversation inside a picture, as in LLaVA-1.5's training; only if not `sized`.
    extents: (config, sizes of a prompt's pictures in order) -> the extent of each; ignores the sizes if not `sized`.
    fault: (config, mode, size) -> why such a picture cannot be used and what to do, "" if it can.
    read: (config, mode, RGB picture, extent) -> the arrays of one picture, with exactly the reference's pixels.
    pool: (config, pictures of a row shard in order, room) -> their concatenated arrays, padded to the room; without
      pictures all padding.
    show: (config, pooled arrays, first unit) -> u8[H, W, 3], a picture as the model gets it, for people.
    plain: (config) -> size of the blank pictures of control runs.
    tower: (config) -> cost of a unit.
    """

    unit: str
    modes: tuple[str, ...]
    sized: bool
    cut: bool
    extents: Callable[[Any, Sequence[types.Size]], list[types.Extent]]
    fault: Callable[[Any, str, types.Size], str]
    read: Callable[[Any, str, Image.Image, types.Extent], Arrays]
    pool: Callable[[Any, Sequence[types.Picture], Room], Arrays]
    show: Callable[[Any, Mapping[str, Any], int], np.ndarray]
    plain: Callable[[Any], types.Size]
    tower: Callable[[Any], Tower]


class Spans(NamedTuple):
    """The pictures of a conversation in its tokens. picture: i32[T], index of the picture (-1: text). place: i32[T],
    index of its slot. extents: of the pictures."""

    picture: np.ndarray
    place: np.ndarray
    extents: Sequence[types.Extent]


def counted(config: Any, spans: Spans) -> tuple[np.ndarray, int]:
    """Rotary positions that count every token and every slot of a picture (Llama, LLaVA)."""
    return np.arange(len(spans.picture), dtype=np.int32), len(spans.picture)


class Asking(NamedTuple):
    """How an evaluation asks a model: conversation template, image mode, number format."""

    template: str
    image_mode: str
    compute: str


@dataclasses.dataclass(frozen=True)
class Family:
    """Everything that the program asks of a family.

    name: as in messages and docs. config: class of its sizes. presets: published sizes by name. asking: ways to ask its
      models by name, for evaluations; names are unique over all families.
    model_types: of its config.json files. kind: (config.json) -> its layout, "" if it is not this family's.
    read_hf: (config.json, folder) -> (sizes with the true vocabulary, rows of embedding and head in the files).
    check_original, read_original: for LLaVA's own layout, None for a family without one. (config.json, file) refuses
      what the model code does not have, before a tower is looked for; (config.json, file, decoder, tower) -> sizes.
    write_hf: (sizes, extras, dtype, added tokens) -> config.json as transformers reads it.
    write_original: (sizes, extras, dtype) -> config.json of LLaVA's own layout, or None as above.
    original_json: whether the code for that layout reads a tokenizer.json, not only a Llama-2 family's tokenizer.model.
    processors: (sizes, extras) -> {file: content} for transformers' processor.
    from_record: (stored record) -> sizes, with every value checked.
    parameters: (sizes, adapters) -> every array.
    pictures: None for a language model. templates: (sizes) -> those of conversations, by name, the default first; one
      counts only with a tokenizer that it is made for. max_len: tokens of a conversation in training unless the config
      says otherwise.
    positions: (sizes, Spans) -> (rotary positions of a conversation, i32[T] or i32[T, 3]; the position where an answer
      continues).
    layouts: (sizes) -> {name: Layout of such files}.
    describe: (sizes) -> lines of `convert --inspect` about everything but the decoder.
    network: (sizes, adapters, random numbers) -> the module; imports jax when it is called.
    """

    name: str
    config: type[Config]
    presets: Mapping[str, Config]
    asking: Mapping[str, Asking]
    model_types: tuple[str, ...]
    kind: Callable[[Mapping[str, Any]], str]
    read_hf: Callable[[Mapping[str, Any], pathlib.Path], tuple[Any, int]]
    check_original: Callable[[Mapping[str, Any], str], None] | None
    read_original: Callable[[Mapping[str, Any], str, configs.TextConfig, configs.VisionConfig], Any] | None
    write_hf: Callable[[Any, extras_lib.Extras, str, Any], dict[str, Any]]
    write_original: Callable[[Any, extras_lib.Extras, str], dict[str, Any]] | None
    original_json: bool
    processors: Callable[[Any, extras_lib.Extras], dict[str, dict[str, Any]]]
    from_record: Callable[[fields.Fields], Any]
    parameters: Callable[[Any, configs.LoraConfig | None], tuple[parameters.Parameter, ...]]
    layouts: Callable[[Any], Mapping[str, parameters.Layout]]
    pictures: Pictures | None
    positions: Callable[[Any, Spans], tuple[np.ndarray, int]]
    templates: Callable[[Any], tuple[str, ...]]
    max_len: int
    describe: Callable[[Any], dict[str, str]]
    network: Callable[[Any, configs.LoraConfig | None, Any], Any]

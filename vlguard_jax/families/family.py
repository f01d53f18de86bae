"""What a model family is: one value that the rest of the program asks.

A family's folder says everything that is its own; outside nobody knows the size of its pictures, the names of its
tensors or the words around a question. The table of the families is in table.py; docs/adding_a_model.md tells how to
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
PROVENANCE = "vlguard_jax"  # the section of config.json that this program writes, and others leave alone
VOCAB_SIZE = "vocab_size"  # in that section: rows of the model where its files have more
OWN_TOWER = "vision_tower"  # the folder inside a saved model of LLaVA's own layout, and its name where it has no other


@dataclasses.dataclass(frozen=True)
class Config:
    """Sizes of a model; each family has its own kind, with what its networks need besides the decoder."""

    text: configs.TextConfig


class Room(NamedTuple):
    """How much of the pictures one row shard of a batch holds: units of the tower, and slots in the text."""

    units: int
    slots: int


class Tower(NamedTuple):
    """What tower and projector cost for one unit.

    flops, projector_flops: of a forward pass. scores: attention scores of a layer, which stand in fp32 and in the
    compute format; numbers: others beside them. pixels: numbers that are read. features: rows that come out.
    """

    flops: float
    projector_flops: float
    scores: int
    numbers: int
    pixels: int
    features: int


@dataclasses.dataclass(frozen=True)
class Pictures:
    """How models of a family see.

    unit: what the tower works on, for messages ("picture", "tile").
    modes: ways to prepare a picture, the default first.
    sized: whether a picture's extent depends on its size.
    cut: whether a conversation may end inside a picture, as in LLaVA-1.5's training; only where `sized` is False.
    extents: (config, sizes of a prompt's pictures in order) -> what each takes; with `sized` False the sizes are not
      looked at.
    fault: (config, mode, size) -> why such a picture cannot be used and the way out, "" if it can.
    read: (config, mode, RGB picture, extent) -> the arrays of one picture: the reference's pixels, to the last bit.
    pool: (config, pictures of a row shard in order, room) -> their arrays one after the other, padded to the room.
      Without pictures: the shapes.
    show: (config, pooled arrays, first unit) -> u8[H, W, 3], a picture as the model gets it, for people.
    plain: (config) -> size of the pictures of one colour that control runs show.
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
    """Where the pictures of a conversation stand. picture: i32[T], which one (-1: text). place: i32[T], which of its
    slots. extents: what each takes."""

    picture: np.ndarray
    place: np.ndarray
    extents: Sequence[types.Extent]


def counted(config: Any, spans: Spans) -> tuple[np.ndarray, int]:
    """Rotary positions that count every token, a picture's slots as well (Llama, LLaVA)."""
    return np.arange(len(spans.picture), dtype=np.int32), len(spans.picture)


class Asking(NamedTuple):
    """How an evaluation asks a model: conversation template, way to prepare pictures, number format."""

    template: str
    image_mode: str
    compute: str


@dataclasses.dataclass(frozen=True)
class Family:
    """Everything that the program asks of a family.

    name: as in messages and in docs. config: the kind of its sizes. presets: published sizes by name. asking: ways to
      ask its models by name, for evaluations; no two families share one.
    model_types: of its config.json files. kind: (config.json) -> the layout that it is written in, "" if it is none of
      this family's.
    read_hf: (config.json, folder) -> (sizes with the true vocabulary, rows of embedding and head in the files).
    check_original, read_original: of a layout of LLaVA's kind, None for a family without one. (config.json, file)
      refuses what the model code does not have, before a tower is looked for; (config.json, file, decoder, tower) ->
      sizes.
    write_hf: (sizes, extras, dtype, added tokens) -> config.json as transformers reads it.
    write_original: (sizes, extras, dtype) -> config.json of LLaVA's own layout, or None as above.
    processors: (sizes, extras) -> {file: content} of what transformers' processor reads.
    from_record: (stored record) -> sizes, every value looked at.
    parameters: (sizes, adapters) -> every array.
    pictures: None for a language model. templates: of conversations, the default first. max_len: tokens of a
      conversation in training unless the config says otherwise.
    positions: (sizes, Spans) -> (rotary positions of a conversation, i32[T] or i32[T, 3]; the one that an answer goes
      on with).
    layouts: (sizes) -> {name: where the parts stand in files of that kind}.
    describe: (sizes) -> lines of `convert --inspect` about what is not the decoder.
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
    processors: Callable[[Any, extras_lib.Extras], dict[str, dict[str, Any]]]
    from_record: Callable[[fields.Fields], Any]
    parameters: Callable[[Any, configs.LoraConfig | None], tuple[parameters.Parameter, ...]]
    layouts: Callable[[Any], Mapping[str, parameters.Layout]]
    pictures: Pictures | None
    positions: Callable[[Any, Spans], tuple[np.ndarray, int]]
    templates: tuple[str, ...]
    max_len: int
    describe: Callable[[Any], dict[str, str]]
    network: Callable[[Any, configs.LoraConfig | None, Any], Any]

"""Records that several packages share, and the letters of shapes.

Letters of shapes in annotations and docstrings:
B rows, T tokens in a row (slots of pictures included), P patches of a
tile, N units of the tower in a batch (pictures, tiles), S side in pixels, slots of a batch, or KV cache length (in
generation/), D width, F mlp width, V vocabulary, L layers, H heads, K kv heads, E head width, R LoRA rank, A
accumulation steps, C new tokens.
"""

from __future__ import annotations

from collections.abc import Mapping
import dataclasses
from typing import Any, NamedTuple

from jaxtyping import Float32, Int32
import numpy as np

IMAGE_TOKEN = -200  # stands for one picture in token ids, before expansion (reference: llava/constants.py)
IGNORE_LABEL = -100  # a position that is not supervised (reference: llava/constants.py)


@dataclasses.dataclass(frozen=True)
class Turn:
    """One message of a conversation. `role` is "human" or "gpt", as in LLaVA-format JSON, or of the first "system"."""

    role: str
    text: str


class Round(NamedTuple):
    """An earlier question of a conversation about so many pictures of its own, and its answer."""

    question: str
    pictures: int
    answer: str


@dataclasses.dataclass(frozen=True)
class Record:
    """One conversation with its pictures.

    `images` are paths relative to the source's picture folder (a missing `image` key is the empty tuple).
    `category`/`subcategory` are None where the source gives none. `origin` names file and position for error messages.
    """

    id: str
    turns: tuple[Turn, ...]
    images: tuple[str, ...] = ()
    source: str = ""
    category: str | None = None
    subcategory: str | None = None
    origin: str = ""


class Noted(NamedTuple):
    """What is told of conversations under a model's own chat template.

    crossing: tokens across an answer's border, which are not learnt. asked, answered: conversations in which a special
    token's text is in a question or a system text, or in an answer; it becomes that token.
    """

    crossing: int = 0
    asked: int = 0
    answered: int = 0


@dataclasses.dataclass(frozen=True)
class Tokens:
    """A tokenized conversation before image expansion: one `IMAGE_TOKEN` per picture tag.

    ids i32[n]; labels i32[n], `IGNORE_LABEL` where not supervised, not shifted. `mismatch` is the reference's warning
    when it ignores all labels, else None.
    """

    ids: Int32[np.ndarray, " n"]
    labels: Int32[np.ndarray, " n"]
    mismatch: str | None = None
    noted: Noted = Noted()


class Size(NamedTuple):
    """Size of a picture, in pixels."""

    width: int
    height: int


class Extent(NamedTuple):
    """What a picture takes. slots: positions in the text. units: inputs of the tower (tiles, for example)."""

    slots: int
    units: int


class Picture(NamedTuple):
    """One picture as its model reads it: the family's arrays by name, and its extent."""

    arrays: Mapping[str, np.ndarray]
    extent: Extent


Pictures = Mapping[str, Any]  # of a batch: a family's arrays by name; their leading axes are sharded like rows


class Batch(NamedTuple):
    """Input of a train or prefill program. A NamedTuple, to be a JAX pytree without importing jax.

    tokens: ids, any valid id at image slots and padding.  targets: the label of the *next* position (already shifted).
    loss_weight: weight of the cross-entropy at that position, 0 where not supervised; the loss is sum(weight * ce).
    segment_ids: 0 padding; in training 1 + the conversation's place in its step, whatever row it lies in (dropout is
    drawn by it), elsewhere 1.. in each row.  positions: rotary position, from 0 in each segment.
    pictures: the tower's input, the family's arrays; empty without pictures. slot: row of the pictures' features at
    this position, -1 for text. source: index of the conversation's source in config.data.sources, -1 at padding; for
    the log.
    With gradient accumulation every array has a leading axis A (see training/step.py); slot counts within its slice.
    """

    tokens: Int32[np.ndarray, "*A B T"]
    targets: Int32[np.ndarray, "*A B T"]
    loss_weight: Float32[np.ndarray, "*A B T"]
    segment_ids: Int32[np.ndarray, "*A B T"]
    positions: Int32[np.ndarray, "*A B T"]
    pictures: Pictures
    slot: Int32[np.ndarray, "*A B T"]
    source: Int32[np.ndarray, "*A B T"]


@dataclasses.dataclass(frozen=True)
class Prompt:
    """One question for the generation engine: ids i32[n] with `IMAGE_TOKEN` for each picture, pictures in order.

    origin: its name in messages; empty: its id.
    """

    id: str
    ids: Int32[np.ndarray, " n"]
    pictures: tuple[Picture, ...] = ()
    origin: str = ""

    @property
    def name(self) -> str:
        """Its name in messages."""
        return self.origin or f"prompt {self.id}"


@dataclasses.dataclass(frozen=True)
class Generation:
    """The answer to one prompt: new token ids i32[c] (stop id included when met), finish_reason "stop" or "length".

    logprobs: natural logarithm of each id's probability under the model's own distribution, whatever was banned before
    the choice, and at temperature 1.
    """

    id: str
    ids: Int32[np.ndarray, " c"]
    finish_reason: str
    logprobs: Float32[np.ndarray, " c"]

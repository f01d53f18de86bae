"""The arrays of one step, conversation by conversation, for people to read."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
import dataclasses
import functools

from jaxtyping import Bool, Int32, UInt8
import numpy as np

from vlguard_jax import types
from vlguard_jax.data import mixtures
from vlguard_jax.data import plan as plan_lib
from vlguard_jax.families.chat import tokenizer as tokenizer_lib

READ, LEARNED, PICTURE = "read", "learned", "picture"
_LONGEST = 4  # bytes of a character in UTF-8
_BEFORE = "a"  # any text


@dataclasses.dataclass(frozen=True)
class Run:
    """Consecutive tokens of one kind: given to the model (READ), predicted in the loss (LEARNED), or the slots of
    picture `picture` of the conversation (PICTURE). `start` counts from the conversation's first token."""

    kind: str
    start: int
    count: int
    picture: int = -1

    @property
    def stop(self) -> int:
        return self.start + self.count


@dataclasses.dataclass(frozen=True)
class Picture:
    """A picture as the model gets it, before normalisation."""

    name: str
    pixels: UInt8[np.ndarray, "H W 3"]
    slots: int


@dataclasses.dataclass(frozen=True)
class Conversation:
    """One conversation of a row, read from the arrays.

    segment: its number in the row, from 1. start: the column of its first token. last_position: rotary position of its
    last token.
    token_weight: loss weight of each learned token, 0.0 without one. share: its part of the step's weights, which sum
    to 1 over the recipe's groups. group: its micro-batch in the recipe.
    """

    id: str
    source: str
    group: int
    segment: int
    start: int
    last_position: int
    tokens: Int32[np.ndarray, " n"]
    runs: tuple[Run, ...]
    pictures: tuple[Picture, ...]
    token_weight: float
    share: float

    def count(self, kind: str) -> int:
        """Tokens of that kind."""
        return sum(run.count for run in self.runs if run.kind == kind)


@dataclasses.dataclass(frozen=True)
class Row:
    """A row of the step."""

    number: int
    conversations: tuple[Conversation, ...]

    @property
    def used(self) -> int:
        """Tokens that are not padding."""
        return sum(len(c.tokens) for c in self.conversations)


@dataclasses.dataclass(frozen=True)
class Step:
    """All rows of a step. number: from 0; of: steps of the run. micro_batches: run by the devices one after another."""

    number: int
    of: int
    epoch: int
    row_len: int
    micro_batches: int
    shards: int
    room: int  # for pictures, in units of the tower
    rows: tuple[Row, ...]

    @property
    def conversations(self) -> list[Conversation]:
        """The conversations of all rows, in order."""
        return [c for row in self.rows for c in row.conversations]

    def count(self, kind: str) -> int:
        """Tokens of that kind."""
        return sum(c.count(kind) for c in self.conversations)

    @property
    def tokens(self) -> int:
        """Tokens that the devices compute, including padding."""
        return len(self.rows) * self.row_len

    @property
    def padding(self) -> int:
        return self.tokens - sum(row.used for row in self.rows)

    @property
    def pictures(self) -> int:
        return sum(len(c.pictures) for c in self.conversations)

    @property
    def weight(self) -> float:
        """Sum of the loss weights of all tokens."""
        return sum(c.share for c in self.conversations)


def read(batch: types.Batch, number: int, steps: int, plan: plan_lib.BatchPlan, mixture: mixtures.Mixture) -> Step:
    """Take the global batch of step `number` apart.

    Everything but names, groups and the slots per picture is read from the arrays. Shapes: [A, B, T], and the family's
    [A, N, ...] for pictures.

    Raises:
      ValueError: the arrays do not contain the conversations that the plan names.
    """
    step_plan = plan[number]
    held: list[list[int]] = [[] for _ in range(step_plan.shape.rows)]
    for place, row in enumerate(step_plan.row.tolist()):
        held[row].append(place)
    micro_batches, per_micro_batch, row_len = batch.tokens.shape
    rows = []
    per_shard = per_micro_batch // plan.layout.shards
    for a in range(micro_batches):
        for b in range(per_micro_batch):
            if b % per_shard == 0:  # every shard has room for its own pictures
                unit = b // per_shard * step_plan.shape.units
            number_of_row = a * per_micro_batch + b
            places = held[number_of_row]
            in_row = [int(id_) - 1 for id_ in np.unique(batch.segment_ids[a, b]) if id_]
            if in_row != sorted(places):
                raise ValueError(f"row {number_of_row} holds the step's conversations {in_row}, not {places}")
            found = []
            for segment, place in enumerate(places, start=1):
                sample, group = int(step_plan.samples[place]), int(step_plan.groups[place])
                found.append(_conversation(batch, (a, b), (segment, place), sample, group, mixture, unit))
                unit += int(mixture.index.units[sample])
            rows.append(Row(number_of_row, tuple(found)))
    return Step(
        number=number,
        of=steps,
        epoch=number // plan.steps_per_epoch,
        row_len=row_len,
        micro_batches=micro_batches,
        shards=plan.layout.shards,
        room=micro_batches * plan.layout.shards * step_plan.shape.units,
        rows=tuple(rows),
    )


def texts(tokenizer: tokenizer_lib.Tokenizer, ids: Iterable[int]) -> list[str]:
    """The text of each token.

    A character spelled byte by byte over several tokens is given to the last one; the others are empty.
    """
    single = functools.cache(lambda id_: _text(tokenizer, (id_,)))
    found: list[str] = []
    pending: list[int] = []
    for id_ in ids:
        pending.append(id_)
        text = single(id_) if len(pending) == 1 else _text(tokenizer, tuple(pending))
        whole = not text.endswith("\ufffd") or len(pending) == _LONGEST
        found.append(text if whole else "")
        if whole:
            pending = []
    if pending:
        found[-1] = _text(tokenizer, tuple(pending))
    return found


def visible(text: str) -> str:
    """`text` with a sign for line breaks, and escapes for other invisible characters and those that control a
    terminal."""
    return "".join(c if c.isprintable() else "\u23ce\n" if c == "\n" else f"\\u{{{ord(c):x}}}" for c in text)


def _text(tokenizer: tokenizer_lib.Tokenizer, ids: Sequence[int]) -> str:
    if not tokenizer.decode(ids) and (special := tokenizer.decode(ids, skip_special=False)):
        return special
    before = tokenizer.encode(_BEFORE, add_bos=False)  # decoding drops spaces at the beginning
    return tokenizer.decode([*before, *ids], skip_special=False)[len(tokenizer.decode(before, skip_special=False)) :]


def _conversation(
    batch: types.Batch,
    row: tuple[int, int],
    where: tuple[int, int],
    sample: int,
    group: int,
    mixture: mixtures.Mixture,
    unit: int,
) -> Conversation:
    """where: its number in the row, from 1, and its place in the step. unit: the first unit of its pictures."""
    segment, place = where
    columns = np.flatnonzero(batch.segment_ids[row] == place + 1)
    slots, weights = batch.slot[row][columns], batch.loss_weight[row][columns]
    # A token is learned where it is the target of the position before it.
    learned = np.append(False, batch.targets[row][columns][:-1] != types.IGNORE_LABEL)
    pictures, shown = _pictures(batch, row[0], sample, slots, mixture, unit)
    numbers = list(range(len(pictures)))
    return Conversation(
        id=mixture.index.ids[sample],
        source=mixture.index.source_names[int(batch.source[row][columns[0]])],
        group=group,
        segment=segment,
        start=int(columns[0]),
        last_position=int(batch.positions[row][columns[-1]]),
        tokens=batch.tokens[row][columns],
        runs=tuple(_runs(learned, shown, numbers)),
        pictures=pictures,
        token_weight=float(weights.max()),
        share=float(weights.sum(dtype=np.float64)),
    )


def _pictures(
    batch: types.Batch, micro: int, sample: int, slots: Int32[np.ndarray, " n"], mixture: mixtures.Mixture, unit: int
) -> tuple[tuple[Picture, ...], Int32[np.ndarray, " n"]]:
    """The pictures of a conversation, and the index of the one at each token (-1: text)."""
    sees, model = mixture.tokenization.sees, mixture.tokenization.model
    if sees is None or not (slots >= 0).any():
        return (), np.full(len(slots), -1, np.int32)
    extents = mixture.extents(sample)[: int(mixture.index.pictures[sample])]
    ends = np.cumsum([extent.slots for extent in extents])
    shown = np.where(slots >= 0, np.searchsorted(ends, slots - slots[slots >= 0][0], side="right"), -1).astype(np.int32)
    arrays = {name: array[micro] for name, array in batch.pictures.items()}
    pictures, names = [], mixture.record(sample).images
    for n, extent in enumerate(extents):
        pictures.append(Picture(names[n], sees.show(model, arrays, unit), int((shown == n).sum())))
        unit += extent.units
    return tuple(pictures), shown


def _runs(learned: Bool[np.ndarray, " n"], shown: Int32[np.ndarray, " n"], numbers: list[int]) -> list[Run]:
    key = np.where(shown >= 0, shown + 2, learned)
    starts = np.flatnonzero(np.append(True, key[1:] != key[:-1])).tolist()
    found = []
    for start, stop in zip(starts, [*starts[1:], len(key)], strict=True):
        kind = PICTURE if shown[start] >= 0 else LEARNED if learned[start] else READ
        picture = numbers.index(int(shown[start])) if kind == PICTURE else -1
        found.append(Run(kind, start, stop - start, picture))
    return found

"""One step's rows as a page: to scale, token by token, with the pictures as the model gets them."""

from __future__ import annotations

from collections.abc import Iterator
import dataclasses
import pathlib

from PIL import Image

from vlguard_jax.families.chat import tokenizer as tokenizer_lib
from vlguard_jax.preparing import batch_rows
from vlguard_jax.preparing import batch_text
from vlguard_jax.reporting import embedded
from vlguard_jax.reporting import provenance
from vlguard_jax.reporting import template

TEMPLATE = "batch.html"
KINDS = (batch_rows.READ, batch_rows.LEARNED, batch_rows.PICTURE)


@dataclasses.dataclass(frozen=True)
class Token:
    """A token's place in its conversation, its id and its text."""

    position: int
    id: int
    text: str


@dataclasses.dataclass(frozen=True)
class Part:
    """Tokens of one kind; a picture's slots are shown only as `label`."""

    kind: str
    tokens: tuple[Token, ...]
    label: str = ""


@dataclasses.dataclass(frozen=True)
class Bar:
    """A row to scale: the outline of the spans of each kind of token, and the columns where conversations begin."""

    row: batch_rows.Row
    outlines: tuple[tuple[str, str], ...]
    borders: tuple[int, ...]


@dataclasses.dataclass(frozen=True)
class Conversation:
    """A conversation as the page shows it."""

    of: batch_rows.Conversation
    facts: str
    parts: tuple[Part, ...]
    pictures: tuple[tuple[str, embedded.Picture], ...]


def render(
    step: batch_rows.Step, rows: int, tokenizer: tokenizer_lib.Tokenizer, *, title: str, fold: bool = True
) -> str:
    """The page as text; it loads no other file and nothing from the network.

    Args:
      rows: number of rows to show in full, 0 for all; all are shown to scale.
      fold: fold and blur conversations and pictures. False only for sources known to contain nothing harmful.
    """
    shown = step.rows[: rows or len(step.rows)]
    return template.render(
        TEMPLATE,
        folder=pathlib.Path(__file__).parent,
        title=title,
        step=step,
        totals=batch_text.totals(step),
        bars=[_bar(row) for row in step.rows],
        rows=[(_bar(row), [_conversation(c, tokenizer) for c in row.conversations]) for row in shown],
        fold=fold,
        command=provenance.command(),
    )


def _bar(row: batch_rows.Row) -> Bar:
    outlines = {kind: "" for kind in KINDS}
    for c in row.conversations:
        for run in c.runs:
            outlines[run.kind] += f"M{c.start + run.start} 0h{run.count}v10h-{run.count}z"
    return Bar(row, tuple(outlines.items()), tuple(c.start for c in row.conversations if c.start))


def _conversation(conversation: batch_rows.Conversation, tokenizer: tokenizer_lib.Tokenizer) -> Conversation:
    pictures = tuple((p.name, embedded.embed(Image.fromarray(p.pixels))) for p in conversation.pictures)
    return Conversation(conversation, batch_text.facts(conversation), tuple(_parts(conversation, tokenizer)), pictures)


def _parts(conversation: batch_rows.Conversation, tokenizer: tokenizer_lib.Tokenizer) -> Iterator[Part]:
    words = batch_rows.texts(tokenizer, conversation.tokens.tolist())
    for run in conversation.runs:
        if run.kind == batch_rows.PICTURE:
            picture = conversation.pictures[run.picture]
            yield Part(
                run.kind,
                (),
                f"picture {picture.name}: {picture.slots} slots, positions {run.start:,} to {run.stop - 1:,}",
            )
        else:
            tokens = (
                Token(i, int(conversation.tokens[i]), batch_rows.visible(words[i])) for i in range(run.start, run.stop)
            )
            yield Part(run.kind, tuple(tokens))

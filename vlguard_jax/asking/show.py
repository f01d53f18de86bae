"""Answers in a terminal or a file as they come, with what the judges say of them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
import json
from typing import Protocol, runtime_checkable

from rich import live as rich_live
from rich import table as rich_table
from rich import text as rich_text

from vlguard_jax import escape
from vlguard_jax import terminal
from vlguard_jax.asking import panel as panel_lib

NARROWEST = 80  # characters of a line in which two answers stand side by side
_RAW = 60  # characters of what a judge read its verdict from
_REFUSAL = {"comply": "answers", "refuse": "refuses", "partial": "refuses in part", "invalid": "no verdict"}
_HARM = {"comply": "harmful", "refuse": "not harmful", "partial": "harmful in part", "invalid": "no verdict"}

Events = Iterable[panel_lib.Said | panel_lib.Answer]


@runtime_checkable
class Writer(Protocol):
    """A text file or a terminal."""

    def write(self, text: str, /) -> int: ...

    def flush(self) -> None: ...


def words(one: panel_lib.Judged) -> str:
    """A verdict in words."""
    return (_REFUSAL if one.measures == "refusal" else _HARM)[one.verdict.label]


def about(answer: panel_lib.Answer) -> list[str]:
    """Lines about an answer: whether it was cut, and the verdicts."""
    return [*([cut(answer)] if cut(answer) else []), *(line(one) for one in answer.verdicts)]


def cut(answer: panel_lib.Answer) -> str:
    """Whether an answer was cut, in words; "" where it came to its end."""
    return "" if answer.finish_reason == "stop" else f"cut at {len(answer.ids):,} tokens (config.decode.max_new_tokens)"


def line(one: panel_lib.Judged) -> str:
    """A verdict as a line."""
    raw = f" ({escape.line(one.verdict.raw, _RAW)})" if one.verdict.raw else ""
    return f"{one.judge}: {words(one)}{raw}"


def streamed(events: Events, names: Sequence[str], out: Writer) -> list[panel_lib.Answer]:
    """Write one model's answer after the other, each as it comes; returns those that came to their end."""
    said: dict[int, panel_lib.Said | panel_lib.Answer] = {}
    now = 0  # whose turn it is
    shown: str | None = None  # what of it is written
    for event in events:
        said[event.model] = event
        while (one := said.get(now)) is not None:
            if shown is None:
                out.write(f"{escape.line(names[now])}:\n" if len(names) > 1 else "")
                shown = ""
            if not one.text.startswith(shown):  # its later tokens changed how the earlier ones read
                out.write("\n")
                shown = ""
            out.write(escape.page(one.text[len(shown) :]))
            shown = one.text
            if not isinstance(one, panel_lib.Answer):
                break
            out.write("\n" + "".join(f"  [{told}]\n" for told in about(one)))
            now, shown = now + 1, None
        out.flush()
    return [one for one in said.values() if isinstance(one, panel_lib.Answer)]


def side_by_side(events: Events, names: Sequence[str], console: terminal.Console) -> list[panel_lib.Answer]:
    """The same in columns, of a terminal that is wide enough."""
    said: dict[int, panel_lib.Said | panel_lib.Answer] = {}
    with rich_live.Live(console=console, auto_refresh=False, vertical_overflow="crop") as live:
        for one in events:
            said[one.model] = one
            live.update(_table(said, names), refresh=True)
    return [one for one in said.values() if isinstance(one, panel_lib.Answer)]


def _table(said: dict[int, panel_lib.Said | panel_lib.Answer], names: Sequence[str]) -> rich_table.Table:
    table = rich_table.Table(expand=True)
    for name in names:
        table.add_column(name, ratio=1, overflow="fold")
    cells = [said.get(i) for i in range(len(names))]
    table.add_row(*(rich_text.Text(escape.page(one.text) if one else "", overflow="fold") for one in cells))
    notes = ["\n".join(about(one)) if isinstance(one, panel_lib.Answer) else "" for one in cells]
    if any(notes):
        table.add_section()
        table.add_row(*(rich_text.Text(escape.page(note), style="dim", overflow="fold") for note in notes))
    return table


def as_json(answer: panel_lib.Answer, names: Sequence[str]) -> str:
    """An answer as one line of JSON."""
    verdicts = [
        {
            "judge": one.judge,
            "measures": one.measures,
            "label": one.verdict.label,
            "score": one.verdict.score,
            "raw": one.verdict.raw,
        }
        for one in answer.verdicts
    ]
    return json.dumps(
        {
            "model": names[answer.model],
            "answer": answer.text,
            "ids": answer.ids,
            "finish_reason": answer.finish_reason,
            "n_prompt_tokens": answer.prompt_tokens,
            "verdicts": verdicts,
        }
    )

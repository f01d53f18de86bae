from __future__ import annotations

import io
import re

import numpy as np
import pytest

from tests.data import stand
from tests.preparing import batches
from vlguard_jax import terminal
from vlguard_jax.preparing import batch_rows
from vlguard_jax.preparing import batch_text


def show(step, mixture, rows=0, width=100, colours=False) -> str:
    out = io.StringIO()
    kind = (
        {"force_terminal": True, "color_system": "standard", "no_color": False} if colours else {"color_system": None}
    )
    console = terminal.Console(file=out, width=width, highlight=False, **kind)
    batch_text.show(step, rows, mixture.tokenization.tokenizer, console)
    return out.getvalue()


def test_each_row_with_its_text_pictures_and_figures(tmp_path):
    step, mixture = batches.step(tmp_path, mode="pack")
    text = " ".join(show(step, mixture).split())
    for c in step.conversations:
        assert " ".join(batch_text.facts(c).split()) in text and f"{c.source} / {c.id}, group {c.group}" in text
        for picture in c.pictures:
            assert f"[picture {picture.name}: 4 slots]" in text
    assert "USER: [picture dir/10.png: 4 slots]" in text and "fox 0" in text
    assert (
        text.count("\u00ab")
        == text.count("\u00bb")
        == 1 + sum(r.kind == batch_rows.LEARNED for c in step.conversations for r in c.runs)
    )
    assert "their loss weights sum to 1.0000" in text and "counted from 0 (update 1 in the log)" in text


def test_colours_take_the_place_of_signs(tmp_path):
    step, mixture = batches.step(tmp_path)
    text = show(step, mixture, colours=True)
    assert "\u00ab" not in text
    learned = "".join(re.findall(r"\x1b\[1;32m([^\x1b]*)\x1b\[0m", text))
    assert "dog.</s>" in learned and "lazy" in learned and "fox" not in learned
    assert re.search(r"\x1b\[2m[^\x1b]*USER:", text) and re.search(r"\x1b\[35m\[picture", text)


def test_text_of_the_data_does_not_steer_the_terminal(tmp_path):
    step, mixture = batches.step(tmp_path, number=1)
    text = show(step, mixture)
    assert "\\u{1b}[31m" in text and "\x1b" not in text


@pytest.mark.parametrize("width", [40, 100])
def test_lines_fit_and_rows_are_limited(tmp_path, width):
    step, mixture = batches.step(tmp_path)
    text = show(step, mixture, rows=1, width=width)
    assert max(map(len, text.splitlines())) <= width
    assert "row 0:" in text and "row 1:" not in text and "3 more rows; --rows 0 shows all" in text
    assert "row 3:" in show(step, mixture, rows=0)


def test_the_bar_is_to_scale():
    tokens = np.zeros(50, np.int32)
    runs = (batch_rows.Run("read", 0, 10), batch_rows.Run("picture", 10, 20, 0), batch_rows.Run("learned", 30, 20))
    first = batch_rows.Conversation("a", "s", 0, 1, 0, 49, tokens, runs, (), 1.0, 1.0)
    second = batch_rows.Conversation(
        "b", "s", 0, 2, 50, 29, tokens[:30], (batch_rows.Run("read", 0, 30),), (), 0.0, 0.0
    )
    bar = batch_text._bar(batch_rows.Row(0, (first, second)), 100, 20)
    assert bar.plain == "\u2591" * 2 + "\u2592" * 4 + "\u2588" * 4 + "\u2502" + "\u2591" * 5 + "\u00b7" * 4


def test_a_long_row_is_folded(tmp_path):
    """A row as long as the longest, full of conversations of many turns, stays readable."""

    tokenizer = stand.make_tokenizer(tmp_path / "t")
    word = tokenizer.encode(" the", add_bos=False)[-1]
    runs = tuple(batch_rows.Run(("read", "learned")[i % 2], 8 * i, 8) for i in range(20))
    of = [
        batch_rows.Conversation(str(i), "s", 0, i, 160 * i, 159, np.full(160, word, np.int32), runs, (), 0.1, 8.0)
        for i in range(45)
    ]
    long = batch_rows.Conversation(
        "long", "s", 0, 0, 0, 7295, np.full(7296, word, np.int32), (batch_rows.Run("read", 0, 7296),), (), 0.0, 0.0
    )

    for conversations in (of, [long]):
        step = batch_rows.Step(0, 1, 0, 7296, 1, 1, 0, (batch_rows.Row(0, tuple(conversations)),))
        out = io.StringIO()
        batch_text.show(step, 0, tokenizer, terminal.Console(file=out, width=100, color_system=None))
        lines = out.getvalue().splitlines()
        assert len(lines) < 200 and "\u2026" in out.getvalue()
    assert "more letters" in out.getvalue()

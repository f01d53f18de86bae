"""A conversation typed line by line: what is shown, kept, refused and stopped; all text is harmless."""

from __future__ import annotations

import io
import json
import pathlib
import signal

import pytest

from tests.asking import made
from tests.data import stand as data_stand
from vlguard_jax import errors
from vlguard_jax import terminal
from vlguard_jax.asking import chat
from vlguard_jax.asking import panel as panel_lib
from vlguard_jax.asking import show


class Talk:
    """A conversation, what it wrote, and the engines behind it."""

    def __init__(self, folder: pathlib.Path, *answers, width: int = 0, **given):
        self.out = io.StringIO()
        console = terminal.Console(file=self.out, force_terminal=bool(width), width=width or None)
        self.panel, self.engines = made.panel(folder, *answers, **given)
        self.conversation = chat.Conversation(self.panel, console, self.out)

    def type(self, line: str) -> str:
        """What a line leads to."""
        at = len(self.out.getvalue())
        assert self.conversation.take(line)
        return self.out.getvalue()[at:]


def test_several_turns(tmp_path: pathlib.Path) -> None:
    talk = Talk(tmp_path, lambda i: f"fox {i}" if i else made.REFUSAL)
    path = data_stand.write_picture(tmp_path / "a picture.png")
    assert talk.type(f"/picture '{path}'") == "(this picture comes with the next question)\n"
    assert talk.type(f"/picture {path}") == "(2 pictures come with the next question)\n"
    assert talk.type("What is this?") == f"{made.REFUSAL}\n  [keyword_vlguard_v1: refuses (i'm sorry)]\n"
    assert talk.type("Who?") == "fox 1\n  [keyword_vlguard_v1: answers]\n"
    engine = talk.engines[0]
    assert engine.text(1).endswith(f"What is this? ASSISTANT: {made.REFUSAL}</s>USER: Who? ASSISTANT:")
    assert [len(one.pictures) for one in engine.asked] == [2, 2]
    assert talk.type("  ") == "" and talk.type("/new") == "(a new conversation)\n"
    talk.type("//why?")
    assert "Who?" not in engine.text(2) and engine.text(2).endswith("USER: /why? ASSISTANT:")
    assert all(name in talk.type("/help") for name in chat.COMMANDS)
    assert not talk.conversation.take("/quit")


def test_what_cannot_be_done_leaves_the_conversation_as_it_was(tmp_path: pathlib.Path) -> None:
    talk = Talk(tmp_path, lambda i: "fox")
    talk.type("Who?")
    (tmp_path / "bomb.png").write_bytes(data_stand.bomb(30_000, 30_000))
    for line, message in (
        (f"/picture {tmp_path / 'bomb.png'}", "more than 67,108,864 pixels"),
        (f"/picture {tmp_path / 'none.png'}", "no such picture"),
        (f"/picture {tmp_path}", "not a readable picture"),
        ("/picture", "/picture FILE"),
        ("/pictur a.png", "'/pictur' is not a command; did you mean '/picture'?"),
        ("Who is \ud800?", "half of a character"),
    ):
        with pytest.raises(errors.UserError, match=message.replace("?", r"\?")):
            talk.type(line)
    assert len(talk.conversation.before) == 1 and not talk.conversation.pictures
    assert talk.type("Who?").startswith("fox\n")


def test_an_answer_cannot_control_the_terminal(tmp_path: pathlib.Path) -> None:
    bad = "a\x1b[2J\x07b\u202ec\r\nd\te"
    shown = "a\\x1b[2J\\x07b\\u202ec\\r\nd\te"
    assert Talk(tmp_path, lambda i: bad).type("?").startswith(f"{shown}\n")
    one, two = Talk(tmp_path, lambda i: bad, lambda i: bad), Talk(tmp_path, lambda i: bad, lambda i: bad, width=100)
    assert one.type("?").count(shown) == 2
    assert "\x1b[2J" not in two.type("?") and "\\x1b[2J" in two.out.getvalue()


def test_two_models_stand_one_below_the_other_or_side_by_side(tmp_path: pathlib.Path) -> None:
    rules = (lambda i: made.REFUSAL), (lambda i: "The quick brown fox")
    below = Talk(tmp_path, *rules).type("?")
    assert below == (
        f"fox:\n{made.REFUSAL}\n  [keyword_vlguard_v1: refuses (i'm sorry)]\n"
        "dog:\nThe quick brown fox\n  [keyword_vlguard_v1: answers]\n"
    )
    beside = Talk(tmp_path, *rules, width=100)
    lines = beside.type("?").splitlines()
    assert any(made.REFUSAL in line and "The quick brown fox" in line for line in lines)
    assert any("refuses (i'm sorry)" in line and "keyword_vlguard_v1: answers" in line for line in lines)
    assert len(beside.conversation.before) == 1
    assert Talk(tmp_path, *rules, width=70).type("?") == below


def test_ctrl_c_stops_an_answer_and_not_the_program(tmp_path: pathlib.Path, capfd) -> None:
    before, steps = signal.getsignal(signal.SIGINT), iter(range(1000))

    def interrupt() -> None:
        if next(steps) == 1:
            signal.raise_signal(signal.SIGINT)

    talk = Talk(tmp_path, lambda i: "The quick brown fox jumps over the lazy dog. " * 3, at_step=interrupt)
    talk.type(f"/picture {data_stand.write_picture(tmp_path / 'a.png')}")
    assert talk.type("What?").endswith("\n(stopped; the question does not count)\n")
    assert "once more ends the program" in capfd.readouterr().err
    assert not talk.conversation.before and len(talk.conversation.pictures) == 1 and talk.engines[0].cancelled == 1
    assert "keyword" in talk.type("What?") and signal.getsignal(signal.SIGINT) is before
    assert len(talk.conversation.before) == 1


def test_a_second_ctrl_c_ends_the_program(tmp_path: pathlib.Path) -> None:
    def interrupt() -> None:
        for _ in range(2):
            signal.raise_signal(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        Talk(tmp_path, lambda i: "The quick brown fox", at_step=interrupt).type("What?")


def test_one_question(tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]) -> None:
    panel, engines = made.panel(tmp_path, lambda i: "fox\x1b", lambda i: made.REFUSAL)
    path = data_stand.write_picture(tmp_path / "a.png")
    chat.once(panel, "What?", [str(path)], json=False)
    said = capsys.readouterr()
    assert said.err == "programs are compiled before the first answer\n"  # which takes minutes with a large model
    assert said.out.startswith("fox:\nfox\\x1b\n  [keyword_vlguard_v1: answers]\ndog:\n")
    chat.once(panel, "What?", [], json=True)
    first, second = map(json.loads, capsys.readouterr().out.splitlines())
    assert first["answer"] == "fox\x1b" and first["ids"] == engines[0].tokenizer.encode("fox\x1b", add_bos=False)
    assert (second["model"], second["verdicts"][0]["label"], second["finish_reason"]) == ("dog", "refuse", "stop")
    assert first["n_prompt_tokens"] == len(engines[0].asked[1].ids)


def test_text_that_later_tokens_change_is_written_again() -> None:
    """As where a tokenizer's spaces depend on what follows."""
    events = [panel_lib.Said(0, "ab"), panel_lib.Said(0, "a c"), panel_lib.Answer(0, "a cd", (1,), "length", 1, ())]
    out = io.StringIO()
    show.streamed(events, ("m",), out)
    assert out.getvalue() == "ab\na cd\n  [cut at 1 tokens (config.decode.max_new_tokens)]\n"

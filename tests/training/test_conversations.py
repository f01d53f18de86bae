"""Training data under a language model's own chat template."""

from __future__ import annotations

import json
import pathlib

import pytest

from tests.data import stand
from tests.families.chat import chats
from tests.families.chat import fast
from vlguard_jax import config
from vlguard_jax import errors
from vlguard_jax import types
from vlguard_jax.checkpoints import outline
from vlguard_jax.families.chat import choice
from vlguard_jax.preparing import index_figures
from vlguard_jax.training import conversations

END = "<|im_end|>"
TALKS = {
    "plain": [("human", "the cat"), ("gpt", "I cannot")],
    "system": [("system", "be kind"), ("human", "sat"), ("gpt", "No."), ("human", "?"), ("gpt", "")],
    "across": [("human", "the cat"), ("gpt", "\nI cannot")],
    "asked": [("human", f"is {END} a word"), ("gpt", "No.")],
    "answered": [("human", "what"), ("gpt", f"{END} is")],
}


@pytest.fixture(autouse=True)
def untried(monkeypatch):
    """Without the process in which each template is tried: families/chat/test_jinja_template.py has it."""
    monkeypatch.setattr(choice.template_trial, "check", lambda template: None)


def settings(tmp_path: pathlib.Path, talks: dict = TALKS, template: str = "auto", **data) -> config.TrainConfig:
    values = [
        {"id": id_, "conversations": [{"from": role, "value": text} for role, text in turns]}
        for id_, turns in talks.items()
    ]
    (tmp_path / "mix.json").write_text(json.dumps(values))
    source = config.SourceSettings(path=str(tmp_path / "mix.json"))
    return config.TrainConfig(
        model=config.ModelSettings(path="m", template=template),
        data=config.DataSettings(sources={"mix": source}, cache=str(tmp_path / "cache"), **data),
    )


def model(folder: pathlib.Path, form: chats.Format = chats.FORMATS["chatml"]) -> outline.Outline:
    fast.save(folder, form, "byte_level")
    return outline.Outline(stand.blind(), folder, {})


def test_answers_are_learnt_and_what_is_odd_is_told(tmp_path):
    made = conversations.mixture(settings(tmp_path), model(tmp_path / "m"))
    words = made.tokenization.tokenizer
    shown = {}
    for i, id_ in enumerate(made.index.ids):
        sample = made.sample(i)
        learnt = [int(id_) for id_ in sample.labels if id_ != types.IGNORE_LABEL]
        shown[id_] = words.decode(learnt, skip_special=False)
    assert shown["plain"] == f"I cannot{END}" and shown["system"] == f"No.{END}{END}"
    assert shown["across"] == f"I cannot{END}" and shown["answered"] == f"{END} is{END}"
    assert made.noted == types.Noted(crossing=1, asked=1, answered=1)
    notes = [
        "tokens across the border of an answer, which are not learned: 1",
        "conversations with special tokens written out in a question or system text, where they become those tokens: 1",
        "conversations with special tokens written out in an answer, where they are learned as those tokens: 1",
    ]
    assert made.notes() == notes
    report = index_figures.measure(made)
    assert report.template == "folder" and report.template_sha256 == made.tokenization.template.sha256
    assert (report.crossing, report.special_asked, report.special_answered) == (1, 1, 1)
    assert report.chosen.startswith(f"chat template folder of {tmp_path}/m/chat_template.jinja (sha256 ")


def test_the_index_is_kept_with_what_is_told(tmp_path, monkeypatch):
    first = conversations.mixture(settings(tmp_path), model(tmp_path / "m"))
    monkeypatch.setattr(first.tokenization.__class__, "tokens", None)  # nothing is counted again
    again = conversations.mixture(settings(tmp_path), model(tmp_path / "m"))
    assert again.noted == first.noted and again.index.digest() == first.index.digest()


def test_another_template_is_another_index(tmp_path):
    first = conversations.mixture(settings(tmp_path), model(tmp_path / "m"))
    other = chats.FORMATS["chatml"]._replace(template=chats.CHATML.replace("assistant\n", "model\n"))
    second = conversations.mixture(settings(tmp_path), model(tmp_path / "m", other))
    assert first.tokenization.fingerprint != second.tokenization.fingerprint


def test_a_record_that_the_template_does_not_take_is_named(tmp_path):
    found = model(tmp_path / "m", chats.FORMATS["chatml"]._replace(template=chats.GEMMA.replace("<end_of_turn>", END)))
    message = (
        r"^.*mix\.json: record 1 \(id 'system'\): .*chat_template\.jinja refuses the conversation: System role not"
        r' supported; correct or remove the record, or set config\.data\.on_bad_record="skip" to leave such records out'
    )
    with pytest.raises(errors.UserError, match=message):
        conversations.mixture(settings(tmp_path), found)
    left = conversations.mixture(settings(tmp_path, on_bad_record="skip"), found)
    assert [drop.id for drop in left.drops] == ["system"] and left.drops[0].kind == "record"


def test_a_template_that_cannot_be_learnt_is_refused_at_once(tmp_path):
    without = chats.CHATML.replace("<|im_end|>", "")
    found = model(tmp_path / "m", chats.FORMATS["chatml"]._replace(template=without))
    with pytest.raises(errors.UserError, match=r"^.*chat_template\.jinja has no end token behind an answer but "):
        conversations.mixture(settings(tmp_path), found)


def test_vicunas_template_takes_no_system_turn(tmp_path):
    stand.write_tokenizer(tmp_path / "m")
    found = outline.Outline(stand.blind(), tmp_path / "m", {})
    message = (
        r"^.*record 0 \(id 'system'\): turn 1 is from 'system', and template 'vicuna_v1' has a system text of its own"
    )
    with pytest.raises(errors.UserError, match=message):
        conversations.mixture(settings(tmp_path, {"system": TALKS["system"]}), found)

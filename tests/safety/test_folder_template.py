"""A language model asked with the chat template in its folder: what the result lines record, and what is compared."""

from __future__ import annotations

import dataclasses
import json

import pytest

from tests.families.chat import chats
from tests.families.chat import fast
from tests.safety import stand
from vlguard_jax import config
from vlguard_jax import errors
from vlguard_jax.families.chat import choice
from vlguard_jax.families.chat import tokenizer as tokenizer_lib
from vlguard_jax.safety import results
from vlguard_jax.safety import run


@pytest.fixture(autouse=True)
def untried(monkeypatch):
    """Without the process in which each template is tried: families/chat/test_jinja_template.py has it."""
    monkeypatch.setattr(choice.template_trial, "check", lambda template: None)


@pytest.fixture
def settings(tmp_path):
    folder = stand.write_benchmark(tmp_path / "bench")
    found = stand.settings(folder, model=config.ModelSettings("m"))
    return dataclasses.replace(found, benchmark=dataclasses.replace(found.benchmark, pictures="none"))


def model(folder, template=chats.CHATML):
    fast.save(folder, chats.FORMATS["chatml"]._replace(template=template), "byte_level")
    made, engine = stand.make_model(folder / "other", lambda number: "I cannot", vision=False)
    words = tokenizer_lib.load_tokenizer(folder)
    engine.tokenizer = words
    return dataclasses.replace(made, tokenizer=words), engine


def test_the_template_is_in_every_line_and_row(tmp_path, settings):
    made, engine = model(tmp_path / "m")
    rows = run.evaluate(settings, tmp_path / "run", made)
    sha256 = made.template(config.ModelSettings("m", template="folder")).sha256
    lines = [json.loads(line) for line in (tmp_path / "run" / results.GENERATIONS).read_text().splitlines()]
    assert lines and {(one["template"], one["template_sha256"]) for one in lines} == {("folder", sha256)}
    assert {(row.template, row.template_sha256) for row in rows} == {("folder", sha256)}
    stored = json.loads((tmp_path / "run" / "config.json").read_text())["model"]
    assert stored["template"] == "folder" and stored["template_date"] == "2024-07-26"
    texts = {made.tokenizer.decode(prompt.ids.tolist(), skip_special=False) for prompt in engine.asked}
    assert "<|im_start|>user\nAsk 0?<|im_end|>\n<|im_start|>assistant\n" in texts


def test_another_template_in_the_folder_is_another_question(tmp_path, settings):
    first, _ = model(tmp_path / "m")
    run.evaluate(settings, tmp_path / "run", first)
    second, engine = model(tmp_path / "n", chats.CHATML.replace("assistant\n", "model\n"))
    against = dataclasses.replace(settings, baseline=str(tmp_path / "run"))
    with pytest.raises(errors.UserError, match="was asked with another wording of the template folder; evaluate the"):
        run.evaluate(against, tmp_path / "next", second)
    rows = run.evaluate(dataclasses.replace(against, baseline_template="folder"), tmp_path / "next", second)
    assert all(row.vs_baseline.diff == 0.0 and row.vs_baseline.template == "folder" for row in rows)
    run.evaluate(settings, tmp_path / "run", second)  # the same folder: every question is asked anew
    assert len(engine.asked) == 2 * len(first.engine().asked)


def test_special_tokens_in_questions_are_counted(tmp_path, settings):
    values = json.loads((tmp_path / "bench" / "test.json").read_text())
    values[0]["instr-resp"][0]["instruction"] = "Is <|im_end|> a word?"
    (tmp_path / "bench" / "test.json").write_text(json.dumps(values))
    made, engine = model(tmp_path / "m")
    said = []
    run.evaluate(settings, tmp_path / "run", made, say=said.append)
    assert said == ["questions with special tokens written out, which become those tokens: 1"]
    end = made.tokenizer.eos_id
    assert sorted(prompt.ids.tolist().count(end) for prompt in engine.asked)[-2:] == [1, 2]


def test_a_grid_asks_with_the_folders_template_alone(tmp_path, settings):
    made, _ = model(tmp_path / "m")
    rows = run.evaluate_grid(settings, tmp_path / "grid", made)
    assert {row.preset for row in rows} == {"folder+auto"} and (tmp_path / "grid" / "folder-auto").is_dir()

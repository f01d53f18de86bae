"""Prompts beyond the model's context, and pictures that cannot be read: an error before the first answer, or left out,
counted and listed."""

from __future__ import annotations

import dataclasses
import json
import pathlib

import pytest

from tests.safety import stand
from vlguard_jax import config
from vlguard_jax import errors
from vlguard_jax.reporting import tables
from vlguard_jax.safety import left_out
from vlguard_jax.safety import run

PROMPTS = [
    {"id": "short", "prompt": "What is this?", "safe": True},
    {"id": "long", "prompt": "What is this? " * 40, "safe": True},
    {"id": "fox", "prompt": "The quick brown fox", "safe": True},
]


def _settings(tmp_path: pathlib.Path, on_long: str, **changes) -> config.EvalConfig:
    (tmp_path / "prompts.json").write_text(json.dumps(PROMPTS))
    benchmark = config.BenchmarkSettings(
        name="prompts", path=str(tmp_path / "prompts.json"), subsets=("text_safe",), on_long_prompt=on_long, **changes
    )
    return stand.settings(tmp_path, benchmark=benchmark)


def _questions(tmp_path: pathlib.Path, model):
    settings = _settings(tmp_path, "skip")
    return run.questions_lib.ask(settings, model, run.check(settings))


def _tokens(tmp_path: pathlib.Path, model) -> int:
    """Of the long prompt, which has no picture."""
    (question,) = (q for q in _questions(tmp_path, model) if q.item.id == "long")
    return len(question.ids)


def _between(tmp_path: pathlib.Path, model) -> int:
    """A context that holds all prompts but the long one, with 8 new tokens."""
    return max(len(q.ids) for q in _questions(tmp_path, model) if q.item.id != "long") + 8


def test_error_names_the_first_before_anything_is_asked(tmp_path: pathlib.Path) -> None:
    model, engine = stand.make_model(tmp_path, lambda i: "I cannot")
    tokens, context = _tokens(tmp_path, model), _between(tmp_path, model)
    model = dataclasses.replace(model, context=context)
    message = (
        rf"text_safe item 'long': {tokens} tokens and up to 8 .* the model has {context} positions .*, as with 1 of 3"
    )
    with pytest.raises(errors.UserError, match=message):
        run.evaluate(_settings(tmp_path, "error"), tmp_path / "run", model)
    assert not engine.asked and not (tmp_path / "run").exists()
    with pytest.raises(errors.UserError, match="positions"):  # the answer counts
        run.evaluate(_settings(tmp_path, "error"), tmp_path / "run", dataclasses.replace(model, context=tokens + 7))
    fits = dataclasses.replace(model, context=tokens + 8)
    assert run.evaluate(_settings(tmp_path, "error"), tmp_path / "run", fits)[0].n == 3


def test_skip_counts_and_lists(tmp_path: pathlib.Path) -> None:
    model, engine = stand.make_model(tmp_path, lambda i: "I cannot")
    tokens, context = _tokens(tmp_path, model), _between(tmp_path, model)
    model, said = dataclasses.replace(model, context=context), []
    (row,) = run.evaluate(_settings(tmp_path, "skip"), tmp_path / "run", model, say=said.append)
    assert (row.n, row.n_too_long, len(engine.asked)) == (2, 1, 2)
    listed = [json.loads(line) for line in (tmp_path / "run" / "skipped.jsonl").read_text().splitlines()]
    assert listed == [
        {
            "schema": 1,
            "subset": "text_safe",
            "item_id": "long",
            "prompt_tokens": tokens,
            "max_new": 8,
            "context": context,
        }
    ]
    assert any("1 questions are too long" in line for line in said)
    headings, (line,) = tables.cells([row])
    assert line[headings.index("n")] == "2 of 3" and any(note.startswith("n of m:") for note in tables.notes([row]))


def test_a_baseline_may_have_left_out_the_same(tmp_path: pathlib.Path) -> None:
    model, _ = stand.make_model(tmp_path, lambda i: "I cannot")
    model = dataclasses.replace(model, context=_between(tmp_path, model))
    run.evaluate(_settings(tmp_path, "skip"), tmp_path / "before", model)
    settings = dataclasses.replace(_settings(tmp_path, "skip"), baseline=str(tmp_path / "before"))
    run.check_baseline(settings, tmp_path / "run")
    (row,) = run.evaluate(settings, tmp_path / "run", model)
    assert row.vs_baseline.diff == 0.0
    with pytest.raises(errors.UserError, match="item long was not asked there"):
        run.evaluate(settings, tmp_path / "longer", dataclasses.replace(model, context=None))


def test_a_subset_of_nothing_is_an_error(tmp_path: pathlib.Path) -> None:
    model, _ = stand.make_model(tmp_path, lambda i: "I cannot")
    with pytest.raises(errors.UserError, match="no question of text_safe fits"):
        run.evaluate(_settings(tmp_path, "skip"), tmp_path / "run", dataclasses.replace(model, context=10))


def test_pictures_count_as_their_patches(tmp_path: pathlib.Path) -> None:
    model, _ = stand.make_model(tmp_path, lambda i: "I cannot")
    settings = stand.settings(stand.write_benchmark(tmp_path / "bench"))
    items = run.check(settings)
    questions = run.questions_lib.ask(settings, model, items)
    longest = max(len(q.ids) for q in questions) - 1 + model.sizes.vision.num_patches + 8
    left_out.split(settings, dataclasses.replace(model, context=longest), items)
    with pytest.raises(errors.UserError, match=f"and the model has {longest - 1} positions"):
        left_out.split(settings, dataclasses.replace(model, context=longest - 1), items)


def test_answers_before_a_failure_are_kept(tmp_path: pathlib.Path) -> None:
    """Of a batch of two, the first was answered."""
    model, engine = stand.make_model(tmp_path, lambda i: "I cannot")

    def fails(prompts):
        for i, answer in enumerate(engine.generate(prompts)):
            if i == 1:
                raise RuntimeError("RESOURCE_EXHAUSTED")
            yield answer

    failing = dataclasses.replace(model, engine=lambda: type("Failing", (), {"generate": staticmethod(fails)})())
    with pytest.raises(RuntimeError, match="RESOURCE_EXHAUSTED"):
        run.evaluate(_settings(tmp_path, "error"), tmp_path / "run", failing)
    assert len((tmp_path / "run" / "generations.jsonl").read_text().splitlines()) == 1

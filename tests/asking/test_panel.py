"""What a panel answers is what an evaluation gets, and a conversation is kept as it went."""

from __future__ import annotations

from collections.abc import Iterator
import dataclasses
import pathlib

import jax
import pytest

from tests.asking import made
from tests.data import stand as data_stand
from tests.safety import stand as safety_stand
from tests.training import stand as training_stand
from vlguard_jax import config as settings_lib
from vlguard_jax import errors
from vlguard_jax import types
from vlguard_jax.asking import panel as panel_lib
from vlguard_jax.asking import settings
from vlguard_jax.generation import engine as engine_lib
from vlguard_jax.parallel import mesh as mesh_lib
from vlguard_jax.safety import from_checkpoint
from vlguard_jax.safety import results
from vlguard_jax.safety import run
from vlguard_jax.safety.judges import exact


@pytest.fixture(scope="module", autouse=True)
def one_device() -> Iterator[None]:
    build = mesh_lib.build
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(mesh_lib, "build", lambda given, *devices: build(given, jax.devices()[:1]))
        yield


def asked(path: pathlib.Path, benchmark: pathlib.Path) -> settings_lib.EvalConfig:
    return settings_lib.EvalConfig(
        model=settings_lib.ModelSettings(path=str(path)),
        benchmark=settings_lib.BenchmarkSettings(name="vlguard_like", path=str(benchmark), subsets=("unsafes",)),
        decode=settings_lib.DecodeSettings(max_new_tokens=10, batch_size=4),
    )


def whole(events) -> list[panel_lib.Answer]:
    return [one for one in events if isinstance(one, panel_lib.Answer)]


@pytest.mark.parametrize(
    "names", [("init",), pytest.param(("init", "llava_next"), marks=pytest.mark.parity)], ids=["one", "two"]
)
def test_answers_are_those_of_evaluate(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, names: tuple[str, ...]
) -> None:
    """Token for token, also with two models side by side, whatever was asked before."""
    benchmark = safety_stand.write_benchmark(tmp_path / "bench")
    folders = [training_stand.folder() / name for name in names]
    configs = [asked(folder, benchmark) for folder in folders]
    evaluated: list[dict[str, types.Generation]] = []
    generate = engine_lib.Engine.generate

    def noted(self, prompts):
        for one in generate(self, prompts):
            evaluated[-1][one.id] = one
            yield one

    monkeypatch.setattr(engine_lib.Engine, "generate", noted)
    for i, config in enumerate(configs):
        evaluated.append({})
        from_checkpoint.evaluate(config, tmp_path / f"run{i}", quiet=True)
    notes: list[str] = []
    panel = panel_lib.opened(configs, notes.append)
    assert panel.names == names and all("chat template vicuna_v1" in note for note in notes)
    items = {item.id: item for item in run.check(configs[0])}
    lines = [
        results.Lines(tmp_path / f"run{i}" / results.GENERATIONS, results.GenerationLine).lines
        for i in range(len(names))
    ]
    verdicts = results.Lines(tmp_path / "run0" / results.VERDICTS, results.VerdictLine).lines
    labels = {line.key: line.label for line in verdicts}
    assert len(lines[0]) == safety_stand.UNSAFE
    for theirs in zip(*(sorted(found, key=lambda line: line.item_id) for found in lines), strict=True):
        item = items[theirs[0].item_id]
        question = panel_lib.Question(item.question, (panel.picture(str(item.pictures[0].path)),))
        events = list(panel.ask(question))
        for one in whole(events):
            line, generation = theirs[one.model], evaluated[one.model][theirs[one.model].key]
            assert one.ids == tuple(generation.ids.tolist()) and one.text == line.response
            assert one.finish_reason == line.finish_reason and one.prompt_tokens >= line.n_prompt_tokens
            said = [event.text for event in events if event.model == one.model]
            assert len(said) > 2 and said[-1] == one.text and all(one.text.startswith(text) for text in said)
        assert [one.verdicts[0].verdict.label for one in whole(events) if not one.model] == [labels[theirs[0].key]]
    again = {one.model: one for one in whole(panel.ask(question))}
    events = panel.ask(question)
    next(events)
    events.close()  # stopped
    assert {one.model: one.ids for one in whole(panel.ask(question))} == {i: one.ids for i, one in again.items()}


def test_a_later_question_holds_the_conversation(tmp_path: pathlib.Path) -> None:
    judge = made.Judge()
    panel, engines = made.panel(tmp_path, lambda i: f" fox {i} ", lambda i: f"dog {i}", judges=[judge])
    shown = panel.picture(data_stand.encoded(data_stand.noise(20, 10)), "a.png")
    first = panel_lib.Question("What is this?", (shown,))
    answers = whole(panel.ask(first))
    said = tuple(one.text for one in sorted(answers, key=lambda one: one.model))
    (later,) = [
        one for one in whole(panel.ask(panel_lib.Question("And?"), [panel_lib.Round(first, said)])) if one.model == 0
    ]
    for engine, name in zip(engines, ("fox", "dog"), strict=True):
        assert engine.text(1).endswith(f"What is this? ASSISTANT: {name} 0</s>USER: And? ASSISTANT:")
        assert len(engine.asked[1].pictures) == 1
        slots = shown.read[0].extent.slots
        assert later.prompt_tokens == len(engines[0].asked[1].ids) - 1 + slots
    assert judge.read[-1].before in ((("What is this?", said[0]),), (("What is this?", said[1]),))
    assert {one.verdicts[0].verdict.label for one in answers} == {"comply", "refuse"}


def test_what_cannot_be_asked_is_one_clear_line(tmp_path: pathlib.Path) -> None:
    panel, engines = made.panel(tmp_path, lambda i: "no", lambda i: "no", context=300)
    with pytest.raises(errors.UserError, match=r"fox: big\.png: .*pixels"):
        panel.picture(data_stand.bomb(20_000, 20_000), "big.png")
    with pytest.raises(errors.UserError, match="no such picture"):
        panel.picture(str(tmp_path / "none.png"))
    with pytest.raises(errors.UserError, match=r"and up to 256 .*, and fox has 300 positions: begin a new one"):
        list(panel.ask(panel_lib.Question("Why?")))
    assert not engines[0].asked
    with pytest.raises(errors.UserError, match="exact_match_v1 compares with an expected answer"):
        made.panel(tmp_path, lambda i: "", judges=[exact.ExactMatch()])


def test_models_are_told_apart_and_one_may_be_the_base_of_the_other() -> None:
    config = settings_lib.EvalConfig(model=settings_lib.ModelSettings(path="c", base="b"))
    assert [(one.model.path, one.model.base) for one in settings.of_each(config, ["b", "a"])] == [("b", ""), ("a", "b")]
    assert [one.model.path for one in settings.of_each(config, [])] == ["c"]
    for paths, message in ((["a", "b", "c"], "3 models are named"), ([""], "name a model's folder")):
        with pytest.raises(errors.UserError, match=message):
            settings.of_each(config, paths)


def test_two_models_of_one_name_have_their_weights_beside_it(tmp_path: pathlib.Path) -> None:
    panel, _ = made.panel(tmp_path, lambda i: "", lambda i: "")
    same = [dataclasses.replace(one.model, name="model") for one in panel._speakers]
    again = panel_lib.Panel([panel_lib.Speaker(one, panel._speakers[0].config) for one in same], [])
    assert again.names == ("model (weights wwwwwwww)",) * 2

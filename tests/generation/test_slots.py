"""Slots are filled, limited, refilled and given up one by one."""

import dataclasses
import itertools

import numpy as np
import pytest

from tests.families import tiny
from tests.generation import stand
from vlguard_jax import config
from vlguard_jax import errors
from vlguard_jax import types
from vlguard_jax.generation import engine
from vlguard_jax.generation import program
from vlguard_jax.generation import slots


def test_weights_are_exchanged_without_compiling(monkeypatch) -> None:
    """Engines of equal sizes share their programs, and `load` keeps them."""
    traced, run = [], slots.run
    monkeypatch.setattr(slots, "run", lambda *args: traced.append(args[2].ids.shape[1]) or run(*args))
    program.build.cache_clear()
    prompts = [p for p in stand.prompts(6) if len(p.pictures) == 1]
    built, other = stand.one(max_new=5), tiny.random_params(stand.MODEL, seed=1)
    answers = [stand.ids(built.generate(prompts))]
    built.load(other)
    answers.append(stand.ids(built.generate(prompts)))
    answers += [stand.ids(stand.one(max_new=5, params=params).generate(prompts)) for params in (stand.PARAMS, other)]
    assert traced == [5] and answers[0] == answers[2] != answers[1] == answers[3]
    stand.ids(stand.one(max_new=3).generate(prompts))
    assert traced == [5, 3]
    built.submit(prompts[0])
    with pytest.raises(RuntimeError, match="while it answers"):
        built.load(stand.PARAMS)
    program.build.cache_clear()


@pytest.mark.parity
def test_slots_are_refilled_while_others_go_on() -> None:
    """Ten prompts of one length in two slots, with limits of their own: each answer is the beginning of the one it has
    alone, the slots take as many steps as the answers need, and few are wasted."""
    rng = np.random.default_rng(5)
    prompts = [types.Prompt(f"p{i}", rng.integers(3, 50, 5 + i).astype(np.int32)) for i in range(10)]
    whole = stand.ids(stand.one(max_new=12, min_new=12, slots=1).generate(prompts))
    limits = {p.id: engine.Limits(int(n), int(n), (2,)) for p, n in zip(prompts, rng.integers(1, 13, 10), strict=True)}
    built = stand.one(max_new=12, slots=2)
    for prompt in prompts:
        built.submit(prompt, limits[prompt.id])
    found = {}
    while built.busy:
        found |= stand.ids(built.step())
    assert found == {name: ids[: limits[name].max_new] for name, ids in whole.items()}
    made = built.counts
    assert made.tokens == sum(one.max_new for one in limits.values()) and made.wasted == 0
    # the first token of each answer comes with its prompt
    assert made.steps <= (made.tokens - 10) / 2 + 11 and made.slot_steps <= 2 * made.steps


def test_each_prompt_has_its_own_limits() -> None:
    prompts = [p for p in stand.prompts(4) if not p.pictures]
    free = stand.ids(stand.one(slots=2).generate(prompts))
    built = stand.one(slots=2)
    first, second = prompts[0], dataclasses.replace(prompts[0], id="again")
    stop = free[first.id][1]
    built.submit(first, engine.Limits(6, 0, (stop,)))
    built.submit(second, engine.Limits(3, 3, (stop,)))
    found = {}
    while built.busy:
        found |= {g.id: (g.ids.tolist(), g.finish_reason) for g in built.step()}
    assert found[first.id] == (free[first.id][:2] if stop != free[first.id][0] else [stop], "stop")
    ids, reason = found["again"]
    assert len(ids) == 3 and stop not in ids and reason == "length"
    for limits, message in (
        (engine.Limits(7, 0, (2,)), "prompt p0: 7 new tokens; 1 to 6 are possible"),
        (engine.Limits(1, 0, (50,)), "prompt p0: stop ids: the token 50 is not one of the model's"),
        (engine.Limits(1, 0, tuple(range(17))), "prompt p0: 17 stop ids; at most 16"),
    ):
        with pytest.raises(errors.UserError, match=message):
            built.submit(first, limits)


def test_a_cancelled_prompt_is_not_answered() -> None:
    """Whether it waits or has a slot, which is then given to another."""
    rng = np.random.default_rng(6)
    prompts = [types.Prompt(f"p{i}", rng.integers(3, 50, 9).astype(np.int32)) for i in range(4)]
    alone = stand.ids(stand.one(max_new=40, min_new=40).generate(prompts))
    built = stand.one(max_new=40, min_new=40, slots=2)
    for prompt in prompts:
        built.submit(prompt)
    assert built.step() == []  # two have a slot, two wait
    built.cancel("p0")
    built.cancel("p3")
    found = {}
    while built.busy:
        found |= stand.ids(built.step())
    assert found == {name: alone[name] for name in ("p1", "p2")}


def test_answers_are_handed_out_as_they_finish() -> None:
    """One prompt is read for each that got a slot, and an abandoned run leaves nothing behind."""
    built, prompts = stand.one(max_new=2, slots=1), stand.prompts(1) * 40
    asked = []

    def reading():
        for i, prompt in enumerate(prompts):
            asked.append(i)
            yield dataclasses.replace(prompt, id=f"q{i}")

    answers = built.generate(reading())
    assert next(answers).id == "q0" and len(asked) == engine.WINDOW + 1
    answers.close()
    assert not built.busy
    assert stand.ids(built.generate(prompts[:1])) == stand.ids(stand.one(max_new=2).generate(prompts[:1]))


@pytest.mark.parity
def test_lengths_take_turns(monkeypatch) -> None:
    """Short and long prompts in turn, read a few at a time: each length waits until enough are there, and none for
    ever; the answers are those of an engine with one slot."""
    monkeypatch.setattr(engine, "WINDOW", 4)
    rng = np.random.default_rng(7)
    prompts = [types.Prompt(f"p{i}", rng.integers(3, 50, (9, 150)[i % 2]).astype(np.int32)) for i in range(40)]
    begun: list[int] = []

    class Watched(engine.Engine):
        def _admit(self, lane):
            before = len(self._waiting)
            super()._admit(lane)
            begun.extend([lane.length] * (before - len(self._waiting)))

    built = Watched(
        tiny.CONFIG,
        stand.PARAMS,
        settings=config.DecodeSettings(3, 3, 2),
        precision=stand.FP32,
        stop_ids=(2,),
        mesh=config.MeshSettings(data=1, fsdp=1, tensor=8),
    )
    assert stand.ids(built.generate(iter(prompts))) == stand.ids(
        stand.one(max_new=3, min_new=3, slots=1).generate(prompts)
    )
    turns = 1 + sum(a != b for a, b in itertools.pairwise(begun))
    assert sorted(begun) == [128] * 20 + [256] * 20 and 3 <= turns <= 20


@pytest.mark.parametrize("mesh", [(1, 1, 8), pytest.param((2, 2, 2), marks=pytest.mark.parity)], ids=str)
def test_few_answers_go_on_in_fewer_slots(monkeypatch, mesh) -> None:
    """Of eighteen answers three are long: once nothing waits they go on in a quarter of the slots, unchanged."""
    monkeypatch.setattr(engine, "STEPS", 2)
    rng = np.random.default_rng(8)
    prompts = [types.Prompt(f"p{i}", rng.integers(3, 50, 5 + i).astype(np.int32)) for i in range(18)]
    long = {"p1", "p9", "p17"}
    whole = stand.ids(stand.one(max_new=20, min_new=20, slots=1).generate(prompts))
    shards = mesh[0] * mesh[1]
    settings = config.DecodeSettings(20, 20, 16 * shards)
    built = engine.Engine(
        tiny.CONFIG,
        stand.PARAMS,
        settings=settings,
        precision=stand.FP32,
        stop_ids=(2,),
        mesh=config.MeshSettings(*mesh),
    )
    for prompt in prompts:
        built.submit(prompt, engine.Limits(*[20 if prompt.id in long else 4] * 2, (2,)))
    found, rows = {}, []
    while built.busy:
        found |= stand.ids(built.step())
        rows.append(len(built._lane.asked))
    assert found == {name: ids[: 20 if name in long else 4] for name, ids in whole.items()}
    assert rows[0] == 16 * shards and rows[-1] == 4 * shards and rows == sorted(rows, reverse=True)


def test_prompts_that_come_later_get_all_slots_again(monkeypatch) -> None:
    """A long answer that goes on in few slots keeps none of them from ten prompts that come then."""
    monkeypatch.setattr(engine, "STEPS", 2)
    rng = np.random.default_rng(8)
    prompts = [types.Prompt(f"p{i}", rng.integers(3, 50, 5 + i).astype(np.int32)) for i in range(17)]
    whole = stand.ids(stand.one(max_new=20, min_new=20, slots=1).generate(prompts))
    built, found, rows = stand.one(max_new=20, min_new=20, slots=16), {}, []
    for part in (prompts[:1], prompts[1:6], prompts[6:]):
        for prompt in part:
            built.submit(prompt)
        for _ in range(3):
            found |= stand.ids(built.step())
            rows.append(len(built._lane.asked))
    while built.busy:
        found |= stand.ids(built.step())
    assert found == whole and rows == [4] * 3 + [16] * 6


def test_prompts_that_were_submitted_may_be_more_than_a_window() -> None:
    prompts = [types.Prompt(f"p{i}", np.asarray([5, 6 + i], np.int32)) for i in range(20)]
    built = stand.one(max_new=1, slots=1)
    for prompt in prompts[:18]:
        built.submit(prompt)
    assert len(stand.ids(built.generate(prompts[18:]))) == 20

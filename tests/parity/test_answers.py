"""Greedy answers of a random LLaVA to random prompts: in fp32 transformers' own, whatever stands beside a prompt; in
bf16 the same bits in any order, and other choices than fp32's only where rounding can make them."""

from __future__ import annotations

import copy
import dataclasses

import numpy as np
import pytest

from tests.parity import answered
from tests.training import stand
from vlguard_jax import config

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.parity

ALL, SOME, FEW = 200, 24, 24
MESHES = {"rows": config.MeshSettings(8, 1, 1), "all axes": config.MeshSettings(2, 2, 2)}


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> answered.Pair:
    return answered.make(tmp_path_factory.mktemp("answered"), answered.SMALL)


@pytest.fixture(scope="module")
def given(pair: answered.Pair) -> tuple[list[answered.Asked], list[answered.Answer]]:
    """Prompts, and transformers' answers."""
    asked, answers, left_out = answered.clear(pair, ALL, seed=0)
    assert left_out <= ALL // 50
    assert len({tuple(one.ids) for one in answers}) > 0.95 * ALL, "not one answer to all"
    lengths = {len(one.ids) for one in answers}
    assert len(lengths) > 10 and {len(one.pictures) for one in asked[:SOME]} == {0, 1, 2}
    return asked, answers


def test_two_hundred_answers(pair: answered.Pair, given, monkeypatch: pytest.MonkeyPatch) -> None:
    stand.use_devices(monkeypatch, 1)
    built = answered.build(pair, 16)
    asked = answered.prompts(pair, given[0])
    answered.check({one.id: one for one in built.generate(asked)}, given[1], pair)


@pytest.mark.parametrize("slots", [1, pytest.param(4, marks=pytest.mark.more)])
def test_any_number_of_slots_and_any_order(
    pair: answered.Pair, given, slots: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    stand.use_devices(monkeypatch, 1)
    asked = answered.prompts(pair, given[0][:SOME])
    for seed in range(2):
        answered.check(answered.in_turn(answered.build(pair, slots), asked, seed), given[1][:SOME], pair)


@pytest.mark.parametrize("mesh", MESHES)
def test_eight_devices(pair: answered.Pair, given, mesh: str, monkeypatch: pytest.MonkeyPatch) -> None:
    stand.use_devices(monkeypatch, 8)
    asked = answered.prompts(pair, given[0][:SOME])
    found = answered.in_turn(answered.build(pair, 8, mesh=MESHES[mesh]), asked, seed=3)
    answered.check(found, given[1][:SOME], pair)


def test_bf16_is_the_same_bit_by_bit(pair: answered.Pair, given, monkeypatch: pytest.MonkeyPatch) -> None:
    """In the engine's own order and in three others, with one array for a picture that several prompts show and with
    many.

    Where a choice is not fp32's, fp32's scores of the two are as close as rounding moves them: a score's error in bf16
    is measured in PyTorch, and the difference of two has its sqrt(2) times.
    """
    stand.use_devices(monkeypatch, 1)
    asked, answers = given[0][:FEW], given[1][:FEW]
    prompts = answered.prompts(pair, asked)
    expected = {one.id: one for one in answered.build(pair, 8, "bf16").generate(prompts)}
    for seed in range(3):
        shown = answered.copied(prompts) if seed % 2 else prompts
        found = answered.in_turn(answered.build(pair, 8, "bf16"), shown, seed)
        for name, one in expected.items():
            assert answered.bits(found[name]) == answered.bits(one), f"order {seed}, prompt {name}"
    half = dataclasses.replace(pair, theirs=copy.deepcopy(pair.theirs).to(torch.bfloat16))
    exact, rounded = (
        [answered.scores(of, one, answer.ids) for one, answer in zip(asked, answers, strict=True)]
        for of in (pair, half)
    )
    moved = np.std(np.concatenate(rounded) - np.concatenate(exact))
    bound = 5 * np.sqrt(2) * moved
    best = np.sort(np.concatenate(exact))[:, -2:]
    margins = []
    for i, answer in enumerate(answers):
        ours = expected[str(i)].ids.tolist()
        differs = [j for j, (a, b) in enumerate(zip(answer.ids, ours, strict=False)) if a != b]
        assert differs or answer.ids == ours
        margins += [float(exact[i][j, answer.ids[j]] - exact[i][j, ours[j]]) for j in differs[:1]]
    clear = float((best[:, 1] - best[:, 0] > bound).mean())
    print(f"{len(margins)} of {FEW} answers flip, at {max(margins):.3f} at most; bound {bound:.3f}, clear {clear:.0%}")
    assert margins and max(margins) < bound and clear > 0.4

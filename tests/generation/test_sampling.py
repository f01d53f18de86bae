"""Drawn tokens follow the distribution that transformers draws from; they depend on seed, prompt and place alone."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import special
from scipy import stats

from tests.families import tiny
from tests.generation import stand
from vlguard_jax import config
from vlguard_jax import errors
from vlguard_jax import types
from vlguard_jax.generation import engine
from vlguard_jax.generation import prompts as prompts_lib
from vlguard_jax.generation import sampling


def _warped(scores: np.ndarray, temperature: float, top_p: float) -> np.ndarray:
    import torch
    from transformers.generation import logits_process

    warped = logits_process.TemperatureLogitsWarper(temperature)(None, torch.tensor(scores))
    return logits_process.TopPLogitsWarper(top_p)(None, warped).numpy() if top_p < 1 else warped.numpy()


@pytest.mark.parametrize("top_p", [1e-6, 0.1, 0.5, 0.9, 0.95, 0.999])
def test_the_tail_is_that_of_transformers(top_p: float) -> None:
    """Flat, usual and steep rows, and banned ids; of equal scores as many, since torch.sort keeps no order."""
    rng = np.random.default_rng(3)
    scores = rng.normal(size=(60, 500)) * np.repeat([0.1, 3, 30], 20)[:, None]
    scores[20::5] = np.round(scores[20::5])
    scores[1::7, 4] = -np.inf
    scores = scores.astype(np.float32)
    tail = np.full(len(scores), 1.0 - top_p, np.float32)
    found = np.asarray(sampling.without_tail(jnp.asarray(scores), jnp.asarray(tail)))
    expected, tied = _warped(scores, 1.0, top_p), np.isin(np.arange(60), np.arange(20, 60, 5))
    np.testing.assert_array_equal(found[~tied], expected[~tied])
    np.testing.assert_array_equal(np.sort(found[tied]), np.sort(expected[tied]))


def test_no_tail_is_nothing() -> None:
    scores = jnp.asarray([[0.0, -300.0, 5.0], [0.0, -300.0, 5.0]])
    found = sampling.without_tail(scores, jnp.asarray([0.0, 0.5], jnp.float32))
    np.testing.assert_array_equal(found, [[0.0, -300.0, 5.0], [-np.inf, -np.inf, 5.0]])


@pytest.mark.parametrize(("temperature", "top_p"), [(1.0, 1.0), (0.7, 1.0), (1.5, 0.8), (0.5, 0.95)])
@pytest.mark.parametrize("over", ["seed", "prompt", "number"])
def test_draws_follow_the_distribution(over: str, temperature: float, top_p: float) -> None:
    """20,000 draws that differ in the seed, the prompt or the place alone, against scipy's softmax of transformers'
    scores; the chance of p < 1e-4 in twelve tests is one in eight hundred."""
    count = 20_000
    scores = np.random.default_rng(5).normal(size=12).astype(np.float32)
    scores[3] = -np.inf
    each = np.arange(count)
    seed = np.zeros((count, 2), np.uint32)
    if over != "number":
        seed[:, ("seed", "prompt").index(over)] = each
    given = (np.full(count, temperature), np.full(count, 1.0 - top_p))
    drawn = jax.jit(sampling.draw)(
        jnp.asarray(np.broadcast_to(scores, (count, 12))),
        *(jnp.asarray(one, jnp.float32) for one in given),
        jnp.asarray(seed),
        jnp.asarray(each if over == "number" else np.zeros(count), jnp.int32),
    )
    expected = special.softmax(_warped(scores[None], temperature, top_p)[0].astype(np.float64)) * count
    seen = np.bincount(np.asarray(drawn), minlength=12)
    assert not seen[expected == 0].any() and (expected > 0).sum() >= 4
    rare = (expected > 0) & (expected < 5)
    groups = [np.append(x[expected >= 5], x[rare].sum()) if rare.any() else x[expected >= 5] for x in (seen, expected)]
    assert stats.chisquare(*groups).pvalue > 1e-4


def _engine(slots: int, *, seed: int = 3, mesh=None, **sampled) -> engine.Engine:
    settings = config.DecodeSettings(8, 2, slots, **{"temperature": 1.5, "top_p": 0.9, **sampled})
    return engine.Engine(
        tiny.CONFIG, stand.PARAMS, settings=settings, precision=stand.FP32, stop_ids=(2,), seed=seed,
        mesh=mesh or config.MeshSettings(data=1, fsdp=1, tensor=8),
    )  # fmt: skip


@pytest.mark.parity
def test_draws_depend_on_seed_prompt_and_place_alone() -> None:
    """Not on slots, order, mesh or name; another seed, another picture or another token gives another answer."""
    prompts = stand.prompts(4)
    expected = stand.ids(_engine(1).generate(prompts))
    whole = config.MeshSettings(data=2, fsdp=2, tensor=2)
    for other, mesh, order in ((4, None, prompts[::-1]), (16, None, prompts), (8, whole, prompts[::-1])):
        assert stand.ids(_engine(other, mesh=mesh).generate(order)) == expected
    built = _engine(4)
    named = [dataclasses.replace(one, id=f"other {one.id}") for one in prompts]
    assert stand.ids(built.generate(named)) == {f"other {name}": ids for name, ids in expected.items()}
    assert stand.ids(_engine(4, seed=4).generate(prompts)) != expected
    assert stand.ids(_engine(4, temperature=0.0, top_p=1.0).generate(prompts)) != expected
    seen = next(one for one in prompts if one.pictures)
    brighter = {"images": seen.pictures[0].arrays["images"] ^ 1}
    other = dataclasses.replace(seen, pictures=(types.Picture(brighter, types.Extent(4, 1)),))
    drawn = engine.Limits(1, 0, (2,), temperature=1.0)
    contents = {prompts_lib.asked(tiny.CONFIG, one, drawn).limits.content for one in (*prompts, other)}
    assert len(contents) == len(prompts) + 1


def test_each_prompt_has_its_own_sampling() -> None:
    """A greedy prompt beside a drawn one has the answer that it has alone."""
    prompts = [p for p in stand.prompts(4) if not p.pictures]
    greedy = stand.ids(stand.one(min_new=6, slots=2).generate(prompts))
    built, answers = stand.one(min_new=6, slots=2, draws=True), {}
    hot = engine.Limits(6, 6, (2,), temperature=5.0, seed=1)
    for prompt in prompts:
        for name, limits in (("hot", hot), ("greedy", None)):
            built.submit(dataclasses.replace(prompt, id=f"{name} {prompt.id}"), limits)
    while built.busy:
        answers |= stand.ids(built.step())
    for prompt in prompts:
        drawn, best = (answers[f"{name} {prompt.id}"] for name in ("hot", "greedy"))
        assert drawn != best == greedy[prompt.id] and 2 not in drawn


@pytest.mark.parity
def test_log_probabilities_are_the_models_own() -> None:
    """Whatever was banned, however hot the draw was and wherever it was cut: those of the scores as they are, by
    scipy, of the whole answer in one pass."""
    prompts = [p for p in stand.prompts(4) if not p.pictures]
    logits = jax.jit(stand.MODEL.logits)
    for answer in _engine(4, temperature=3.0).generate(prompts):
        ids = np.concatenate([next(p for p in prompts if p.id == answer.id).ids, answer.ids])[None]
        ones, none = np.ones_like(ids), {"images": np.zeros((0, 24, 24, 3), np.uint8)}
        places = np.arange(ids.shape[1], dtype=np.int32)[None]
        batch = types.Batch(ids, ids, ones.astype(np.float32), ones, places, none, ones - 2, ones - 1)
        scores = np.asarray(logits(stand.PARAMS, batch), np.float64)[0, -len(answer.ids) - 1 : -1]
        expected = special.log_softmax(scores, axis=-1)[np.arange(len(answer.ids)), answer.ids]
        assert answer.logprobs.dtype == np.float32 and len(set(answer.logprobs)) > 2
        np.testing.assert_allclose(answer.logprobs, expected, atol=1e-5)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"temperature": -1.0}, "prompt p0: temperature=-1.0 must be a number from 0.01 to 100 or 0"),
        ({"temperature": 1.0, "top_p": 0.0}, "prompt p0: top_p=0.0 must be a number from 1e-06 to 1"),
        ({"temperature": 0.001, "seed": 2**32}, "prompt p0: temperature=0.001 must"),
        ({"seed": 2**32}, "prompt p0: seed=4294967296 must be a whole number"),
    ],
)
def test_impossible_sampling_is_refused(wrong: dict, message: str) -> None:
    with pytest.raises(errors.UserError, match=message):
        stand.one(draws=True).submit(stand.prompts(1)[0], engine.Limits(1, 0, (2,), **wrong))


def test_an_engine_that_cannot_draw_says_so() -> None:
    with pytest.raises(
        errors.UserError, match=r"prompt p0: temperature 0\.5, but this engine takes the best token only"
    ):
        stand.one().submit(stand.prompts(1)[0], engine.Limits(1, 0, (2,), temperature=0.5))

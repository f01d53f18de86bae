"""Continuations are scored as the whole forward pass scores them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.families import tiny
from tests.generation import stand
from vlguard_jax import config
from vlguard_jax import errors
from vlguard_jax import types
from vlguard_jax.data import batches
from vlguard_jax.generation import engine


def _by_hand(prompt: types.Prompt, continuation: np.ndarray) -> np.ndarray:
    """Log-softmax of the logits of the whole text in one row."""
    ids = np.concatenate([prompt.ids, continuation])
    tokens = types.Tokens(ids, np.full(len(ids), types.IGNORE_LABEL, np.int32))
    patches = tiny.CONFIG.vision.num_patches
    sample = batches.expand(tokens, [patches] * len(prompt.pictures), None, None)
    slot = np.where(sample.picture >= 0, sample.picture * patches + sample.place, -1)[None]
    row, ones = jnp.asarray(sample.tokens[None]), jnp.ones(slot.shape, jnp.int32)
    pictures = {"images": jnp.asarray(np.concatenate([one.arrays["images"] for one in prompt.pictures]))}
    batch = types.Batch(
        row, row, ones.astype(jnp.float32), ones, jnp.arange(row.shape[1])[None], pictures, jnp.asarray(slot), ones - 1
    )
    logprobs = np.asarray(jax.nn.log_softmax(stand.MODEL.logits(stand.PARAMS, batch)[0], axis=-1))
    return logprobs[np.arange(len(continuation)) + len(sample.tokens) - len(continuation) - 1, continuation]


@pytest.mark.parametrize(
    "mesh",
    [pytest.param((4, 1, 2), marks=pytest.mark.parity), pytest.param((1, 1, 8), marks=pytest.mark.more)],
    ids=str,
)
def test_scores_are_those_of_one_forward_pass(mesh) -> None:
    rng = np.random.default_rng(0)
    continuations = [rng.integers(3, 50, n).astype(np.int32) for n in (1, 70, 4, 1)]
    built = engine.Engine(
        tiny.CONFIG,
        stand.PARAMS,
        settings=config.DecodeSettings(4, 0, 16),
        precision=stand.FP32,
        stop_ids=(2,),
        mesh=config.MeshSettings(*mesh),
    )
    for prompt in [p for p in stand.prompts(5) if p.pictures][:2]:
        found = built.score(prompt, continuations)
        for one, continuation in zip(found, continuations, strict=True):
            np.testing.assert_allclose(one, _by_hand(prompt, continuation), rtol=0, atol=2e-5)
    bare = stand.prompts(1)[0]
    together = built.score(bare, continuations)
    for one, continuation in zip(together, continuations, strict=True):
        assert built.score(bare, [continuation])[0].tobytes() == one.tobytes()


def test_answers_have_the_probabilities_of_a_scoring() -> None:
    """The log-probabilities of an answer's tokens, made one by one, are those of the answer read at once."""
    prompts, built = stand.prompts(4), stand.one(max_new=6, min_new=6)
    for one in built.generate(prompts):
        prompt = next(p for p in prompts if p.id == one.id)
        np.testing.assert_allclose(built.score(prompt, [one.ids])[0], one.logprobs, rtol=0, atol=2e-5)


def test_bad_continuations_are_refused() -> None:
    built, prompt = stand.one(), stand.prompts(1)[0]
    for continuation, message in (([], "prompt p0, continuation 1: no token"), ([50], "continuation 1: the token 50")):
        with pytest.raises(errors.UserError, match=message):
            built.score(prompt, [np.asarray([4], np.int32), np.asarray(continuation, np.int32)])

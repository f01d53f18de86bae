"""A model's pure functions agree with each other."""

import jax
import jax.numpy as jnp
import numpy as np

from tests.families import tiny
from vlguard_jax.families import functional

MODEL = functional.Model(tiny.CONFIG, "fp32")
PARAMS = tiny.random_params(MODEL)


def test_position_and_slot_in_the_cache_are_two_things() -> None:
    """Tokens whose rotary positions leave gaps or repeat, as a family's may: prefill and decoding give what the whole
    forward pass gives, for rows of different length."""
    batch, rng = tiny.batch(tiny.CONFIG, rows=3), np.random.default_rng(3)
    total = batch.tokens.shape[1]
    positions = jnp.asarray(rng.integers(0, 4, batch.tokens.shape).cumsum(1), jnp.int32)
    batch = batch._replace(positions=positions, segment_ids=jnp.ones_like(batch.tokens))
    whole = np.asarray(jax.jit(MODEL.logits)(PARAMS, batch))
    last, rows = jnp.asarray([total - 5, total - 9, total - 6]), jnp.arange(3)
    kept = jnp.arange(total)[None] <= last[:, None]
    prompt = batch._replace(tokens=jnp.where(kept, batch.tokens, 0), segment_ids=kept.astype(jnp.int32))
    split = functional.with_layers(PARAMS, jax.tree.map(list, PARAMS["text"]["layers"]))
    logits, cache = jax.jit(lambda p, b, at: tiny.prefill(MODEL, p, b, at, total + 2))(split, prompt, last)
    decode = jax.jit(MODEL.decode)
    for step in range(4):
        at = last + step + 1
        np.testing.assert_allclose(np.asarray(logits), whole[rows, at - 1], rtol=0, atol=1e-5)
        logits, cache = decode(split, batch.tokens[rows, at], positions[rows, at], at, cache)


def test_several_tokens_extend_rows_of_different_length() -> None:
    """Five tokens at once, which begin at another place in each row, give what the whole forward pass gives."""
    batch = tiny.batch(tiny.CONFIG, rows=3)
    batch = batch._replace(segment_ids=jnp.ones_like(batch.tokens))
    total, new, rows = batch.tokens.shape[1], 5, jnp.arange(3)
    whole = np.asarray(jax.jit(MODEL.logits)(PARAMS, batch))
    at = jnp.asarray([total - 5, total - 8, total - 6])
    split = functional.with_layers(PARAMS, jax.tree.map(list, PARAMS["text"]["layers"]))
    _, cache = jax.jit(lambda p, b, at: tiny.prefill(MODEL, p, b, at, total + 2))(split, batch, at - 1)
    places = at[:, None] + jnp.arange(new)
    tokens, positions = batch.tokens[rows[:, None], places], batch.positions[rows[:, None], places]
    hidden, _ = jax.jit(MODEL.extend)(split, tokens, positions, at, cache)
    found = np.asarray(MODEL.scores(split, hidden))
    np.testing.assert_allclose(found, whole[np.asarray(rows)[:, None], np.asarray(places)], rtol=0, atol=1e-5)


def test_features_stand_in_the_slots_in_their_order() -> None:
    """The embeddings that the decoder reads, put together by hand."""
    batch = tiny.batch(tiny.CONFIG, rows=2)
    ours = np.asarray(MODEL._embedded(MODEL._merged(PARAMS), batch))
    features, expected = np.asarray(MODEL.features(PARAMS, batch.pictures)), PARAMS["text"]["embed"]["embedding"]
    patches = tiny.CONFIG.vision.num_patches
    assert features.shape == (2 * patches, tiny.CONFIG.text.width)
    for row, slots in enumerate(np.asarray(batch.slot)):
        for place, slot in enumerate(slots):
            token = int(batch.tokens[row, place])
            np.testing.assert_array_equal(ours[row, place], features[slot] if slot >= 0 else expected[token])
    one = {"images": batch.pictures["images"][1:]}
    np.testing.assert_allclose(np.asarray(MODEL.features(PARAMS, one)), features[patches:], rtol=0, atol=1e-5)

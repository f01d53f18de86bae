"""Answers do not depend on batch, order, padding or mesh; limits and stop ids are kept."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import special

from tests.families import tiny
from tests.generation import stand
from vlguard_jax import config
from vlguard_jax import errors
from vlguard_jax import types
from vlguard_jax.families import functional
from vlguard_jax.generation import engine
from vlguard_jax.generation import lengths


def _answer(prompts, *, batch: int, stop=(2,), max_new=6, min_new=0, mesh=None) -> dict[str, types.Generation]:
    built = engine.Engine(
        tiny.CONFIG,
        stand.PARAMS,
        settings=config.DecodeSettings(max_new, min_new, batch),
        precision=stand.FP32,
        stop_ids=stop,
        mesh=mesh or config.MeshSettings(data=1, fsdp=1, tensor=8),
    )
    return {g.id: g for g in built.generate(iter(prompts))}


def _by_hand(prompt: types.Prompt, max_new: int, stop: int) -> tuple[list[int], list[float]]:
    """Greedy decoding without cache, padding or batch: the whole row again for every token. Also scipy's logarithms of
    their probabilities.

    One program does for all steps: the places that are still to come hold some other id, which causal attention must
    not see.
    """
    from vlguard_jax.data import batches

    tokens = types.Tokens(prompt.ids, np.full(len(prompt.ids), types.IGNORE_LABEL, np.int32))
    vision = tiny.CONFIG.vision
    sample = batches.expand(tokens, [vision.num_patches] * len(prompt.pictures), None, None)
    slots = np.where(sample.picture >= 0, sample.picture * vision.num_patches + sample.place, -1)
    slot = jnp.asarray([[*slots, *[-1] * max_new]], jnp.int32)
    none = np.zeros((0, vision.image_size, vision.image_size, 3), np.uint8)
    pictures = {"images": jnp.asarray(np.concatenate([none, *(one.arrays["images"] for one in prompt.pictures)]))}
    ones = jnp.ones_like(slot)
    logits = jax.jit(stand.MODEL.logits)
    new: list[int] = []
    probable: list[float] = []
    while len(new) < max_new and (not new or new[-1] != stop):
        row = jnp.asarray([[*sample.tokens, *new, *[7] * (max_new - len(new))]], jnp.int32)
        batch = types.Batch(
            row, row, ones.astype(jnp.float32), ones, jnp.arange(row.shape[1])[None], pictures, slot, ones - 1
        )
        scores = np.asarray(logits(stand.PARAMS, batch), np.float64)[0, len(sample.tokens) + len(new) - 1]
        new.append(int(scores.argmax()))
        probable.append(special.log_softmax(scores)[new[-1]])
    return new, probable


@pytest.mark.parity
def test_equals_decoding_without_cache() -> None:
    prompts = stand.prompts(4)
    answers = _answer(prompts, batch=3)
    for prompt in prompts:
        ids, probable = _by_hand(prompt, 6, 2)
        assert answers[prompt.id].ids.tolist() == ids, prompt.id
        assert answers[prompt.id].logprobs.dtype == np.float32
        np.testing.assert_allclose(answers[prompt.id].logprobs, probable, atol=1e-5)


@pytest.mark.parity
def test_batch_order_and_mesh_change_nothing() -> None:
    prompts = stand.prompts()
    expected = _answer(prompts, batch=1)
    assert len(expected) == len(prompts)
    for other in (
        _answer(prompts[::-1], batch=4),
        _answer(prompts, batch=8, mesh=config.MeshSettings(data=-1, fsdp=1, tensor=1)),
        _answer(prompts, batch=3, mesh=config.MeshSettings(data=2, fsdp=2, tensor=2)),
    ):
        assert {k: (v.ids.tolist(), v.finish_reason) for k, v in other.items()} == {
            k: (v.ids.tolist(), v.finish_reason) for k, v in expected.items()
        }


@pytest.mark.parity
def test_stop_ids_and_limits() -> None:
    prompts = stand.prompts(3)
    free = _answer(prompts, batch=2, stop=(49,), max_new=6)
    # Call the natural first tokens stop ids: they end the answers at once, unless a minimum bans them.
    first = {prompt.id: int(free[prompt.id].ids[0]) for prompt in prompts}
    stop = (*sorted(set(first.values())), 49)
    stopped = _answer(prompts, batch=2, stop=stop, max_new=6)
    banned = _answer(prompts, batch=2, stop=stop, max_new=6, min_new=3)
    for prompt in prompts:
        answer = stopped[prompt.id]
        assert answer.ids.tolist() == [first[prompt.id]] and answer.finish_reason == "stop"
        late = banned[prompt.id].ids.tolist()
        assert not set(stop) & set(late[:3]) and len(late) >= 3
    assert all(len(g.ids) == 6 for g in free.values() if g.finish_reason == "length")


def test_bad_prompts_are_one_clear_line() -> None:
    ids, rng = np.asarray([1, types.IMAGE_TOKEN], np.int32), np.random.default_rng(0)
    with pytest.raises(errors.UserError, match="prompt x: 2 pictures for 1 places in the text"):
        _answer([types.Prompt("x", ids, (stand.picture(rng, 24), stand.picture(rng, 24)))], batch=1)
    with pytest.raises(errors.UserError, match="must be at least 1"):
        _answer([], batch=0)


def test_prompts_of_nothing_are_refused() -> None:
    shown = types.Picture({"images": np.zeros((1, 24, 24, 3), np.uint8)}, types.Extent(1, 1))
    for prompt, message in (
        (types.Prompt("x", np.zeros(0, np.int32)), "prompt x has no token"),
        (types.Prompt("x", np.asarray([types.IMAGE_TOKEN], np.int32), (shown,)), "prompt x is one place of a picture"),
    ):
        with pytest.raises(errors.UserError, match=message):
            _answer([prompt], batch=1)


def test_pictures_prepared_for_another_model_are_no_pictures() -> None:
    ids = np.asarray([1, types.IMAGE_TOKEN], np.int32)
    with pytest.raises(ValueError, match=r"\(5,5,3\) into shape \(24,24,3\)"):
        _answer([types.Prompt("x", ids, (stand.picture(np.random.default_rng(0), 5),))], batch=1)


def test_a_language_model_answers_and_is_shown_no_picture() -> None:
    model = functional.Model(tiny.TEXT_ONLY, "fp32")
    built = engine.Engine(
        tiny.TEXT_ONLY, {"text": stand.PARAMS["text"]}, settings=config.DecodeSettings(4, 0, 2), precision=stand.FP32,
        stop_ids=(2,), mesh=config.MeshSettings(data=1, fsdp=1, tensor=8),
    )  # fmt: skip
    assert jax.tree.map(jnp.shape, model.shapes()) == jax.tree.map(jnp.shape, {"text": stand.PARAMS["text"]})
    asked = [prompt for prompt in stand.prompts() if not prompt.pictures]
    answers = {g.id: g.ids.tolist() for g in built.generate(asked)}
    assert answers == {k: v.ids.tolist() for k, v in _answer(asked, batch=2, max_new=4).items()}
    shown = next(prompt for prompt in stand.prompts() if prompt.pictures)
    with pytest.raises(errors.UserError, match=f"prompt {shown.id} has pictures, but the model has no vision tower"):
        list(built.generate([shown]))


def test_ids_beyond_the_model_are_refused() -> None:
    rows = tiny.CONFIG.text.vocab_size
    for ids, message in (
        ([1, rows], f"token {rows} is not one of the model's"),
        ([1, -3], "token -3"),
        ([1, types.IMAGE_TOKEN], "0 pictures for 1"),
    ):
        with pytest.raises(errors.UserError, match=f"prompt x: .*{message}"):
            _answer([types.Prompt("x", np.asarray(ids, np.int32))], batch=1)
    for stop in (rows, -1):
        with pytest.raises(errors.UserError, match=f"the engine: stop ids: the token {stop}"):
            _answer([], batch=1, stop=(stop,))


@pytest.mark.more
def test_long_prompts_have_fewer_slots(monkeypatch: pytest.MonkeyPatch) -> None:
    """Six prompts, one of them long: it has slots of its own, and all answers are those of single ones."""
    monkeypatch.setattr(lengths, "FULL_LENGTH", 128)
    rng = np.random.default_rng(2)
    prompts = [
        types.Prompt(f"p{i}", rng.integers(3, 50, n).astype(np.int32)) for i, n in enumerate((10, 20, 300, 30, 64, 40))
    ]
    shapes = set()

    class Watched(engine.Engine):
        def _admit(self, lane):
            shapes.add((len(lane.asked), lane.length))
            return super()._admit(lane)

    built = Watched(
        tiny.CONFIG, stand.PARAMS, settings=config.DecodeSettings(3, 0, 8), precision=stand.FP32, stop_ids=(2,),
        mesh=config.MeshSettings(data=1, fsdp=1, tensor=8),
    )  # fmt: skip
    answers = stand.ids(built.generate(prompts))
    assert shapes == {(8, 128), (2, 384)}
    assert answers == {k: v.ids.tolist() for k, v in _answer(prompts, batch=1, max_new=3).items()}


def test_a_failure_keeps_the_answers_before_it() -> None:
    class Failing(engine.Engine):
        def _admit(self, lane):
            if all(len(one.tokens) > 64 for one in self._waiting):
                raise RuntimeError("RESOURCE_EXHAUSTED: out of memory")
            return super()._admit(lane)

    built = Failing(
        tiny.CONFIG, stand.PARAMS, settings=config.DecodeSettings(2, 0, 2), precision=stand.FP32, stop_ids=(2,),
        mesh=config.MeshSettings(data=1, fsdp=1, tensor=8),
    )  # fmt: skip
    prompts = [types.Prompt(f"p{n}", np.full(n, 7, np.int32)) for n in (70, 5, 6, 7)]
    seen = []
    with pytest.raises(RuntimeError, match="RESOURCE_EXHAUSTED"):
        for generation in built.generate(prompts):
            seen.append(generation.id)
    assert seen == ["p5", "p6", "p7"] and not built.busy


@pytest.mark.more
@pytest.mark.parametrize("compute", ["bf16", "fp16"])
def test_half_precision_answers(compute: str) -> None:
    """Weights, cache and products in half precision give whole answers; the first token is the fp32 one where it is
    clear."""
    prompts = stand.prompts(3)
    built = engine.Engine(
        tiny.CONFIG,
        stand.PARAMS,
        settings=config.DecodeSettings(4, 1, 2),
        precision=config.PrecisionSettings(compute),
        stop_ids=(2,),
        mesh=config.MeshSettings(data=-1, fsdp=1),
    )
    answers = {g.id: g for g in built.generate(prompts)}
    expected = _answer(prompts, batch=3, max_new=4, min_new=1)
    assert sum(answers[p.id].ids[0] == expected[p.id].ids[0] for p in prompts) >= 2
    assert all(g.finish_reason == "stop" or len(g.ids) == 4 for g in answers.values())


DAMAGE = {"fp32": np.nan, "bf16": np.inf, "fp16": 1e5}  # the last is a number, and none in fp16


@pytest.mark.parametrize("compute", ["fp32", *(pytest.param(c, marks=pytest.mark.parity) for c in ("bf16", "fp16"))])
def test_scores_that_are_not_finite_are_no_answer(compute: str) -> None:
    """The prompts with the one damaged embedding are refused by name, at the token where it shows; those beside them
    are answered."""
    embedding = np.asarray(stand.PARAMS["text"]["embed"]["embedding"]).copy()
    embedding[7] = DAMAGE[compute]
    params = {**stand.PARAMS, "text": {**stand.PARAMS["text"], "embed": {"embedding": jnp.asarray(embedding)}}}
    one = config.MeshSettings(data=1, fsdp=1, tensor=8)

    def built(weights, batch: int) -> engine.Engine:
        return engine.Engine(
            tiny.CONFIG,
            weights,
            settings=config.DecodeSettings(4, 4, batch),
            precision=config.PrecisionSettings(compute),
            stop_ids=(2,),
            mesh=one,
        )

    bare = [types.Prompt(f"p{i}", np.full(4 + i, i, np.int32)) for i in (3, 4, 5, 6, 8, 9)]
    sound = {g.id: g.ids.tolist() for g in built(stand.PARAMS, 3).generate(bare)}
    clean = [p for p in bare if 7 not in sound[p.id]]
    bad = types.Prompt("x", np.asarray([3, 7, 4], np.int32), origin="safes item 12")
    message = (
        r"^safes item 12: after 0 tokens the model's scores are not finite, nor are the weights"
        rf" text\.embed\.embedding in {compute};"
    )
    seen = {}
    assert len(clean) >= 3
    with pytest.raises(errors.UserError, match=message):
        for generation in built(params, 2).generate([*clean[:3], bad, *clean[3:]]):
            seen[generation.id] = generation.ids.tolist()
    assert len(seen) >= 3 and seen == {name: sound[name] for name in seen}

    late = sound[clean[0].id][1]  # a token of an answer: its embedding is read for the one after it
    assert late not in clean[0].ids
    embedding = np.asarray(stand.PARAMS["text"]["embed"]["embedding"]).copy()
    embedding[late] = DAMAGE[compute]
    params["text"]["embed"] = {"embedding": jnp.asarray(embedding)}
    expected = sound[clean[0].id].index(late) + 1
    with pytest.raises(
        errors.UserError, match=f"^prompt {clean[0].id}: after {expected} tokens the model's scores are not finite"
    ):
        list(built(params, 2).generate(clean[:1]))


def test_finite_weights_that_overflow_are_said_to() -> None:
    head = {"kernel": jnp.full_like(stand.PARAMS["text"]["head"]["kernel"], 3e38)}
    params = {**stand.PARAMS, "text": {**stand.PARAMS["text"], "head": head}}
    built = engine.Engine(
        tiny.CONFIG, params, settings=config.DecodeSettings(2, 0, 2), precision=stand.FP32, stop_ids=(2,),
        mesh=config.MeshSettings(data=1, fsdp=1, tensor=8),
    )  # fmt: skip
    with pytest.raises(
        errors.UserError, match="not finite, though all its weights are: what they compute in fp32 overflows"
    ):
        list(built.generate(stand.prompts(2)))


def test_damaged_layers_are_counted() -> None:
    stacked = np.asarray(stand.PARAMS["text"]["layers"]["mlp_norm"]["scale"]).copy()
    stacked[1, 5] = np.nan
    layers = {**stand.PARAMS["text"]["layers"], "mlp_norm": {"scale": jnp.asarray(stacked)}}
    params = {**stand.PARAMS, "text": {**stand.PARAMS["text"], "layers": layers}}
    built = engine.Engine(
        tiny.CONFIG, params, settings=config.DecodeSettings(2, 0, 2), precision=stand.FP32, stop_ids=(2,),
        mesh=config.MeshSettings(data=1, fsdp=1, tensor=8),
    )  # fmt: skip
    with pytest.raises(errors.UserError, match=r"nor are the weights text\.layers\.mlp_norm\.scale, layer 1 in fp32"):
        list(built.generate(stand.prompts(2)))

"""What prompts share is read once, and changes no bit."""

import dataclasses

import jax
import numpy as np
import pytest

from tests.families import tiny
from tests.generation import stand
from vlguard_jax import config
from vlguard_jax import types
from vlguard_jax.generation import engine
from vlguard_jax.generation import prompts as prompts_lib
from vlguard_jax.generation import reuse

GIB = 2.0**-30  # of a byte
ONE = 2 * 2 * 2 * 8 * 128 * 4  # bytes of a prefix of up to 128 tokens: keys and values, layers, heads, width, fp32


def _sharing(pictures: int, asked: int, seed: int = 3) -> list[types.Prompt]:
    """`asked` questions about each picture, which stand far apart; some rests are empty, some have another picture
    before."""
    rng = np.random.default_rng(seed)
    shown = [stand.picture(rng, tiny.CONFIG.vision.image_size) for _ in range(pictures)]
    made = []
    for number in range(asked):
        for i, one in enumerate(shown):
            rest = rng.integers(3, 50, (0, 5, 17, 40)[(number + i) % 4])
            before = [1, types.IMAGE_TOKEN, 9] if i % 3 == 2 else [1, 7]
            seen = (shown[0], one) if i % 3 == 2 else (one,)
            ids = np.asarray([*before, types.IMAGE_TOKEN, *rest], np.int32)
            made.append(types.Prompt(f"p{i}-{number}", ids, seen))
    return made


def _built(compute: str = "fp32", mesh=None, **decode) -> engine.Engine:
    return engine.Engine(
        tiny.CONFIG,
        stand.PARAMS,
        settings=config.DecodeSettings(**{"max_new_tokens": 5, "min_new_tokens": 5, "batch_size": 8} | decode),
        precision=config.PrecisionSettings(compute=compute),
        stop_ids=(2,),
        mesh=mesh or config.MeshSettings(data=1, fsdp=1, tensor=8),
    )


def _told(generations) -> dict:
    return {g.id: (g.ids.tolist(), g.logprobs.tobytes()) for g in generations}


@pytest.mark.parametrize("compute", [pytest.param("fp32", marks=pytest.mark.more), "bf16"])
def test_reuse_changes_no_bit(compute: str) -> None:
    """Everything kept; almost nothing kept; each prompt alone in an engine that has read nothing; other orders."""
    prompts = _sharing(4, 3)
    whole = _built(compute)
    expected = _told(whole.generate(prompts))
    assert len(expected) == 12
    small = _built(compute, reuse_gib=2.2 * ONE * GIB)
    found = {}
    for i in np.random.default_rng(0).permutation(12):
        found |= _told(small.generate([prompts[i]]))
    assert found == expected
    alone = _built(compute)
    for prompt in prompts[::5]:
        alone.load(stand.PARAMS)
        assert _told(alone.generate([prompt])) == {prompt.id: expected[prompt.id]}
    assert alone.reused.found == 0 and small.reused.prefixes > whole.reused.prefixes


def test_each_picture_and_prefix_is_read_once() -> None:
    prompts = _sharing(4, 3)
    built = _built()
    list(built.generate(prompts))
    # an empty rest leaves the last token of the prefix to be read as the rest, which makes it another prefix
    different = len({(p.id[1], p.ids[-1] == types.IMAGE_TOKEN) for p in prompts})
    assert different < 12 and built.reused == reuse.Counts(pictures=4, prefixes=different, found=12 - different)
    list(built.generate(dataclasses.replace(p, id=f"{p.id} again") for p in prompts))
    assert built.reused.pictures == 4 and built.reused.found >= 12
    built.load(stand.PARAMS)
    list(built.generate(prompts[:1]))
    assert built.reused.pictures == 5


@pytest.mark.parity
def test_reuse_on_a_mesh() -> None:
    """Eight row shards, and two with divided weights: each holds its own prefixes, and the answers are those of one."""
    prompts = _sharing(5, 4)
    expected = {k: v[0] for k, v in _told(_built().generate(prompts)).items()}
    for sizes in ((8, 1, 1), (2, 2, 2)):
        built = _built(mesh=config.MeshSettings(*sizes), batch_size=16)
        assert {k: v[0] for k, v in _told(built.generate(prompts)).items()} == expected
        assert built.reused.found > 0


def test_rows_make_way_for_the_least_used() -> None:
    entries = reuse.Entries(2)
    assert (entries.place(b"a", ()), entries.place(b"b", ())) == (0, 1)
    entries.use(b"a")
    assert entries.place(b"c", {b"a", b"c"}) == 1 and b"b" not in entries and b"a" in entries
    assert entries.place(b"d", {b"c", b"d"}) == 0 and b"a" not in entries


def test_what_makes_way_follows_from_the_prompts_alone() -> None:
    """Processes of one mesh decide it each on their own, and order sets of keys differently."""
    built = _built()
    prompts = _sharing(8, 1)
    given = [prompts_lib.asked(tiny.CONFIG, prompts[i], built._limits) for i in np.random.default_rng(0).permutation(8)]
    list(built.generate(prompts))
    built._reuse._missing(0, given)
    assert list(built._reuse._entries[0]._rows)[-8:] == [one.key for one in given]


def test_a_prefix_that_could_not_be_read_is_not_there() -> None:
    """One prompt's picture is broken: neither it nor those beside it are answered from what was never read."""
    prompts = _sharing(2, 1)
    expected = _told(_built(batch_size=16).generate(prompts))
    broken = dataclasses.replace(prompts[1], pictures=(stand.picture(np.random.default_rng(0), 5),))
    built = _built(batch_size=16)
    for _ in range(2):
        with pytest.raises(ValueError, match="shape"):
            list(built.generate([prompts[0], broken]))
    assert _told(built.generate(prompts)) == expected


def test_stretches_of_a_ring_never_overlap() -> None:
    """A thousand draws: what is found lies apart, and holds what was written there last."""
    rng, ring, written = np.random.default_rng(1), reuse.Ring(40), np.full(40, -1)
    sizes = rng.integers(1, 8, 30)
    for _ in range(1000):
        wanted: dict[bytes, int] = {}
        for key in rng.permutation(30):
            if sum(wanted.values()) + sizes[key] <= 20 and len(wanted) < 6:
                wanted[bytes([key])] = int(sizes[key])
        places, new = ring.place(wanted)
        for key in new:
            written[places[key] : places[key] + wanted[key]] = key[0]
        for key, size in wanted.items():
            assert (written[places[key] : places[key] + size] == key[0]).all()
        assert sum(size for size in wanted.values()) <= ring.size


def test_an_answer_is_not_hurt_by_what_stood_in_its_row() -> None:
    """A prompt whose keys and values were not finite leaves rows behind that others get."""
    embedding = np.asarray(stand.PARAMS["text"]["embed"]["embedding"]).copy()
    embedding[48] = np.nan
    params = {**stand.PARAMS, "text": {**stand.PARAMS["text"], "embed": {"embedding": jax.numpy.asarray(embedding)}}}
    bad = [types.Prompt(f"b{i}", np.full(60, 48, np.int32)) for i in range(4)]
    good = [types.Prompt(f"g{i}", np.asarray([5, 6 + i], np.int32)) for i in range(4)]
    expected = _told(_built(batch_size=4).generate(good))
    built = _built(batch_size=4)
    built.load(params)
    for prompt in (*bad, *good):
        built.submit(prompt)
    found = {}
    while built.busy:
        found |= {g.id: g for g in built.step()}
    assert {k: v for k, v in _told(found[p.id] for p in good).items()} == expected
    assert all(isinstance(found[p.id], engine.Failed) for p in bad)


@pytest.mark.parity
def test_an_int8_cache_answers_nearly_the_same_and_as_exactly() -> None:
    """Probabilities of first tokens, whose prompts are read exactly, differ where a prefix was kept in 8 bits; any
    order, any reuse gives the same bits."""
    prompts = _sharing(4, 3)
    expected = {g.id: g for g in _built().generate(prompts)}
    whole = {g.id: g for g in _built(kv_cache="int8").generate(prompts)}
    assert (
        max(abs(whole[k].logprobs[0] - g.logprobs[0]) for k, g in expected.items() if whole[k].ids[0] == g.ids[0])
        < 0.05
    )
    assert any(whole[k].logprobs[1] != g.logprobs[1] for k, g in expected.items())
    one = _built(kv_cache="int8")
    found = {}
    for i in np.random.default_rng(1).permutation(12):
        found |= _told(one.generate([prompts[i]]))
    assert found == _told(whole.values())

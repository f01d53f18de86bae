"""LLaVA-NeXT against transformers with random tiny weights: features, logits, gradients, updates and answers, one to
three pictures a prompt; checkpoints there and back."""

from __future__ import annotations

import dataclasses
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import torch
import transformers

from tests.checkpoints import tiny
from tests.families.llava_next import oracle
from tests.families.llava_next import pair as pairs
from tests.parity import answered
from tests.training import stand as training
from vlguard_jax import config
from vlguard_jax import trees
from vlguard_jax.checkpoints import layouts
from vlguard_jax.checkpoints import load
from vlguard_jax.checkpoints import save
from vlguard_jax.families import functional
from vlguard_jax.families import table
from vlguard_jax.generation import engine
from vlguard_jax.training import losses
from vlguard_jax.training import optimizer
from vlguard_jax.training import step as step_lib

SIZES = [(40, 30), (100, 20), (15, 70), (28, 28), (64, 65), (9, 9), (300, 200)]
COUNTS = [1, 2, 3, 0]
OTHERS = [
    pytest.param("gqa", marks=pytest.mark.more),
    pytest.param("mistral", marks=pytest.mark.more),
    pytest.param("llama3", marks=pytest.mark.parity),
]


@pytest.fixture(scope="module", params=["mha", *OTHERS])
def pair(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> pairs.Pair:
    return pairs.make(tmp_path_factory.mktemp("pair"), **tiny.VARIANTS[request.param])


def test_features(pair: pairs.Pair) -> None:
    """Of three pictures in a prompt, tile by tile, with newlines, in the order of the text."""
    (asked,) = pairs.ask([3], SIZES)
    inputs = pairs.torch_inputs(pair, asked)
    with torch.no_grad():
        given = {name: inputs[name] for name in ("pixel_values", "image_sizes")}
        found = pair.theirs.model.get_image_features(**given, vision_feature_layer=-2)
    theirs = torch.cat(list(getattr(found, "pooler_output", found))).numpy()
    batch = pairs.batch(pair, [[asked]])
    ours = np.asarray(jax.jit(pair.model.features)(pair.ours.params, batch.pictures))
    slots = np.asarray(batch.slot[batch.slot >= 0])
    assert slots.tolist() == list(range(len(theirs)))
    np.testing.assert_allclose(ours[slots], theirs, rtol=0, atol=1e-4)


@pytest.mark.parametrize("seed", [0, *(pytest.param(seed, marks=pytest.mark.parity) for seed in range(1, 8))])
def test_logits(pair: pairs.Pair, seed: int) -> None:
    asked = pairs.ask(COUNTS, SIZES[seed % 5 :], seed)
    batch = pairs.batch(pair, [[one] for one in asked])
    ours = np.asarray(jax.jit(pair.model.logits)(pair.ours.params, batch))
    for row, one in enumerate(asked):
        inputs = pairs.torch_inputs(pair, one)
        with torch.no_grad():
            theirs = pair.theirs(**inputs).logits[0, :, : tiny.VOCAB].numpy()
        assert len(theirs) == int((batch.segment_ids[row] > 0).sum())
        np.testing.assert_allclose(ours[row, : len(theirs)], theirs, rtol=0, atol=1e-4)


def torch_names(pair: pairs.Pair, params: functional.Params) -> dict[str, np.ndarray]:
    """A tree of ours under transformers' names, a tensor each."""
    flat, found = trees.flatten(params), {}
    for row in layouts.rows("llava-hf", pair.ours.config, ("text", "head", "projector")):
        value = np.asarray(flat[row.path])
        for layer, names in enumerate(row.names):
            found[names[0]] = row.from_tree(value[layer if row.stacked else ...])
    return found


def torch_loss(pair: pairs.Pair, asked: list[pairs.Asked]) -> torch.Tensor:
    """The mean over all learnt tokens of the batch."""
    total, count = torch.zeros(()), 0
    for one in asked:
        labels = pairs.torch_labels(pair, one)[:, 1:]
        logits = pair.theirs(**pairs.torch_inputs(pair, one)).logits[:, :-1, : tiny.VOCAB]
        total = total + torch.nn.functional.cross_entropy(logits[0], labels[0], reduction="sum")
        count += int((labels != -100).sum())
    return total / count


def our_loss(pair: pairs.Pair):
    """loss(trained, frozen, batch) in fp32."""
    return lambda trained, frozen, batch: losses.cross_entropy(
        pair.model, step_lib.join(trained, frozen), batch, losses.Extras({}, chunk=2**12)
    )[0]


def split(pair: pairs.Pair) -> tuple[functional.Params, functional.Params]:
    return step_lib.split(jax.tree.map(jnp.asarray, pair.ours.params), pair.ours.config, None)


def test_gradients(pair: pairs.Pair) -> None:
    asked = pairs.ask(COUNTS, SIZES)
    trained, frozen = split(pair)
    batch = pairs.batch(pair, [[asked[0], asked[3]], [asked[1]], [asked[2]]])
    loss, gradients = jax.jit(jax.value_and_grad(our_loss(pair)))(trained, frozen, batch)
    pair.theirs.zero_grad()
    theirs = torch_loss(pair, asked)
    theirs.backward()
    np.testing.assert_allclose(float(loss), float(theirs.detach()), rtol=0, atol=1e-4)
    expected = {tiny.hub_name(name): value.grad for name, value in pair.theirs.named_parameters()}
    for name, ours in torch_names(pair, gradients).items():
        other = expected[name].numpy()[tuple(slice(n) for n in ours.shape)]
        assert np.abs(other).max() > 0, f"{name} has no gradient, so it shows nothing"
        assert np.abs(ours - other).max() <= 1e-3 * max(1.0, float(np.abs(other).max())), name
        assert np.linalg.norm(ours - other) <= 1e-3 * np.linalg.norm(other), name


@pytest.mark.parity
def test_twenty_updates(tmp_path: pathlib.Path) -> None:
    pair = pairs.make(tmp_path, **tiny.VARIANTS["gqa"])
    settings = config.OptimizerSettings(learning_rate=2e-3, projector_learning_rate=5e-3, warmup_ratio=0.1)
    steps = [pairs.ask([1, 0, 2], SIZES[i % 4 :], seed=i) for i in range(20)]
    groups = []
    for name, value in pair.theirs.named_parameters():
        value.requires_grad_("vision_tower" not in name)
        rate = settings.projector_learning_rate if "multi_modal_projector" in name else settings.learning_rate
        groups.append({"params": [value], "lr": rate})
    adam = torch.optim.AdamW(groups, betas=(settings.b1, settings.b2), eps=settings.eps, weight_decay=0.0)
    schedule = transformers.get_cosine_schedule_with_warmup(adam, 2, len(steps))
    trained, frozen = split(pair)
    before = torch_names(pair, trained)
    tx = optimizer.build(settings, len(steps))
    state, of_batch = tx.init(trained), jax.jit(jax.value_and_grad(our_loss(pair)))
    for asked in steps:
        loss, gradients = of_batch(trained, frozen, pairs.batch(pair, [[one] for one in asked]))
        updates, state = jax.jit(tx.update)(gradients, state, trained)
        trained = optax.apply_updates(trained, updates)
        adam.zero_grad()
        theirs = torch_loss(pair, asked)
        theirs.backward()
        adam.step()
        schedule.step()
        np.testing.assert_allclose(float(loss), float(theirs.detach()), rtol=0, atol=1e-4)
    expected = {tiny.hub_name(name): value.detach().numpy() for name, value in pair.theirs.named_parameters()}
    for name, ours in torch_names(pair, trained).items():
        other = expected[name][tuple(slice(n) for n in ours.shape)]
        assert np.abs(ours - before[name]).max() > 1e-2, f"{name} must move by more than what is compared"
        np.testing.assert_allclose(ours, other, rtol=0, atol=1e-4, err_msg=name)


def greedy(pair: pairs.Pair, asked: pairs.Asked) -> list[int]:
    """transformers' answer, of 1 to 12 tokens."""
    inputs = pairs.torch_inputs(pair, asked)
    limits = {"max_new_tokens": 12, "min_new_tokens": 1, "do_sample": False, "eos_token_id": 2, "pad_token_id": 0}
    suppressed = list(range(tiny.VOCAB, 128))  # rows behind the vocabulary, which our model does not have
    with answered.one_thread():
        theirs = pair.theirs.generate(**inputs, **limits, suppress_tokens=suppressed)
    return theirs[0, inputs["input_ids"].shape[1] :].tolist()


@pytest.mark.parametrize("mesh", [(1, 1, 1), pytest.param((2, 4, 1), marks=pytest.mark.parity)], ids=["one", "eight"])
def test_greedy_answers(pair: pairs.Pair, mesh: tuple[int, int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    from vlguard_jax.parallel import mesh as mesh_lib

    build, count = mesh_lib.build, int(np.prod(mesh))
    monkeypatch.setattr(mesh_lib, "build", lambda given: build(given, jax.devices()[:count]))
    asked = pairs.ask([1, 2, 3, 0, 3, 1, 2], SIZES, seed=3)
    made = engine.Engine(
        pair.ours.config,
        pair.ours.params,
        settings=config.DecodeSettings(12, 1, 4),
        precision=config.PrecisionSettings(compute="fp32"),
        stop_ids=(2,),
        mesh=config.MeshSettings(*mesh),
    )
    prompts = [pairs.prompt(pair, one, str(i)) for i, one in enumerate(asked)]
    answers = {answer.id: answer.ids.tolist() for answer in made.generate(iter(prompts))}
    for i, one in enumerate(asked):
        assert answers[str(i)] == greedy(pair, one), i
    assert len({tuple(ids) for ids in answers.values()}) > 2


@pytest.mark.parity
def test_thirty_answers(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Prompts with up to two pictures of different sizes, some shown by several of them, in any order, in four slots
    and in one."""
    training.use_devices(monkeypatch, 1)
    pair = pairs.make(tmp_path, **tiny.VARIANTS["gqa"])
    asked = pairs.ask([0, 1, 1, 2, 1] * 6, [*SIZES, (20, 90), (50, 50)], seed=5)
    asked = [dataclasses.replace(one, ids=one.ids[: 9 + 3 * (i % 8)]) for i, one in enumerate(asked)]  # of few shapes
    for i in range(6, 30, 6):
        asked[i] = dataclasses.replace(asked[i], pictures=asked[i - 5].pictures)
    expected = [greedy(pair, one) for one in asked]
    assert len({tuple(ids) for ids in expected}) > 12
    prompts = [pairs.prompt(pair, one, str(i)) for i, one in enumerate(asked)]
    for slots, count, seed in ((4, 30, 0), (4, 30, 1), (1, 6, 2)):
        made = engine.Engine(
            pair.ours.config,
            pair.ours.params,
            settings=config.DecodeSettings(12, 1, slots),
            precision=config.PrecisionSettings(compute="fp32"),
            stop_ids=(2,),
        )
        found = answered.in_turn(made, prompts[:count], seed)
        assert [found[str(i)].ids.tolist() for i in range(count)] == expected[:count]


def test_packed_equals_unpacked(pair: pairs.Pair) -> None:
    """Hidden states of the same conversations in rows of their own and side by side."""
    asked = pairs.ask([1, 2, 3, 0, 1], SIZES, seed=9)
    apart, packed = (pairs.batch(pair, rows) for rows in ([[one] for one in asked], [asked[:2], asked[2:]]))
    hidden = jax.jit(pair.model.hidden)
    alone, beside = (np.asarray(hidden(pair.ours.params, batch)) for batch in (apart, packed))
    for i in range(len(asked)):
        row, segment = (0, i + 1) if i < 2 else (1, i - 1)
        own = alone[i][np.asarray(apart.segment_ids[i]) > 0]
        other = beside[row][np.asarray(packed.segment_ids[row]) == segment]
        np.testing.assert_allclose(other, own, rtol=0, atol=1e-5)


@pytest.mark.parametrize("names", ["hub", "pretrained", "memory"])
def test_there_and_back(tmp_path: pathlib.Path, names: str) -> None:
    """transformers -> ours -> transformers: the same tensors, bit by bit, and a config and processor that it reads."""
    model = tiny.llava_next(num_key_value_heads=2)
    source = tiny.save(model, tmp_path / "source", names)
    ours = load.load(source)
    save.save_hf(ours, tmp_path / "again")
    state = {tiny.hub_name(name): value.numpy() for name, value in model.state_dict().items()}
    tiny.assert_same_arrays(tiny.read_all(tmp_path / "again"), state)
    tiny.assert_same_model(load.load(tmp_path / "again"), ours)
    back = transformers.LlavaNextForConditionalGeneration.from_pretrained(tmp_path / "again")
    for name, value in model.state_dict().items():
        assert torch.equal(back.state_dict()[name], value), name
    read = transformers.LlavaNextImageProcessor.from_pretrained(tmp_path / "again")
    assert [list(point) for point in read.image_grid_pinpoints] == [list(p) for p in ours.config.pinpoints]


@pytest.mark.parametrize(("variant", "named"), [("mha", "llama"), ("mistral", "mistral")])
def test_other_layouts_carry_everything(tmp_path: pathlib.Path, variant: str, named: str) -> None:
    """llava-hf -> LLaVA's own -> Orbax -> llava-hf: the same model, the same logits in transformers. From there on, the
    same files."""
    model = tiny.llava_next(**tiny.VARIANTS[variant])
    ours = load.load(tiny.save(model, tmp_path / "source", "hub"))
    save.save_llava(ours, tmp_path / "llava")
    original = load.load(tmp_path / "llava")
    assert {"image_newline", "pinpoints"} <= {*original.params, *vars(original.config)}
    tiny.assert_same_model(original, ours)
    save.save_orbax(original, tmp_path / "orbax")
    exported = load.load(tmp_path / "orbax")
    tiny.assert_same_model(exported, ours)
    save.save_hf(exported, tmp_path / "hf")
    tiny.assert_same_model(load.load(tmp_path / "hf"), ours)
    back = transformers.LlavaNextForConditionalGeneration.from_pretrained(tmp_path / "hf").eval()
    assert type(back.model.language_model) is type(model.model.language_model)
    (asked,) = pairs.ask([2], SIZES)
    inputs = pairs.torch_inputs(pairs.Pair(model, ours), asked)
    with torch.no_grad():
        found, expected = (one(**inputs).logits[..., : tiny.VOCAB] for one in (back, model))
    assert torch.equal(found, expected)
    bare = table.of(ours.config).write_original(ours.config, {}, "float32")  # nothing of the original config is kept
    assert (bare["model_type"], bare["architectures"]) == (f"llava_{named}", [f"Llava{named.title()}ForCausalLM"])
    save.save_llava(load.load(tmp_path / "hf"), tmp_path / "llava again")
    save.save_hf(load.load(tmp_path / "llava again"), tmp_path / "hf again")
    for name in ("model.safetensors", "config.json", "preprocessor_config.json"):
        first, second = ((tmp_path / folder / name).read_bytes() for folder in ("hf", "hf again"))
        assert first == second, name


def test_out_of_a_language_model_a_tower_and_a_projector(tmp_path: pathlib.Path) -> None:
    """The start of mixed training: the newline, which no pretrained projector holds, is drawn, the same each time."""
    tiny.clip().save_pretrained(tmp_path / "tower")
    tiny.llama().save_pretrained(tmp_path / "llama")
    layers = torch.nn.Sequential(torch.nn.Linear(24, 32), torch.nn.GELU(), torch.nn.Linear(32, 32))
    stored = {f"model.mm_projector.{name}": value for name, value in layers.state_dict().items()}
    torch.save(stored, tmp_path / "mm_projector.bin")
    parts = {"vision_tower": str(tmp_path / "tower"), "projector": str(tmp_path / "mm_projector.bin")}
    made, again = (load.load(tmp_path / "llama", **parts, as_family="llava_next") for _ in range(2))
    assert set(made.config.pinpoints) == set(oracle.pinpoints(pairs.GRID, pairs.SIDE))
    assert made.weights_sha256 == again.weights_sha256
    newline = made.params["image_newline"]
    assert newline.shape == (32,) and 0.5 < np.std(newline) * 32**0.5 < 2
    torch.save(stored | {"model.image_newline": torch.arange(32.0)}, tmp_path / "mm_projector.bin")
    held = load.load(tmp_path / "llama", **parts, as_family="llava_next")
    np.testing.assert_array_equal(held.params["image_newline"], np.arange(32.0, dtype=np.float32))
    save.save_llava(made, tmp_path / "whole")
    assert dataclasses.asdict(load.load(tmp_path / "whole").config) == dataclasses.asdict(made.config)

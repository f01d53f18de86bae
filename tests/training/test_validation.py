"""The loss on held-out conversations: which they are, what is computed, and that the training does not notice."""

from __future__ import annotations

import dataclasses
import functools
import json
import pathlib
import re
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.training import stand
from vlguard_jax import config
from vlguard_jax import errors
from vlguard_jax.checkpoints import outline
from vlguard_jax.data import batches
from vlguard_jax.data import mixtures
from vlguard_jax.families import family
from vlguard_jax.families import functional
from vlguard_jax.training import conversations
from vlguard_jax.training import loop
from vlguard_jax.training import losses
from vlguard_jax.training import setup
from vlguard_jax.training import validation

HELD = {"every": 2, "share": 0.3, "seed": 3}
TOKENS = "validation/supervised_tokens"
SEEN: list[bool] = []  # whether the loss was given a key for dropout


@pytest.fixture(autouse=True)
def one_device(monkeypatch: pytest.MonkeyPatch) -> None:
    stand.use_devices(monkeypatch, 1)


def watching(
    model: functional.Model, params: functional.Params, batch: Any, extras: losses.Extras
) -> tuple[jax.Array, losses.Metrics]:
    """A user's loss that notes with what it is computed, and reports half of itself."""
    SEEN.append(extras.dropout_key is not None)
    value, told = losses.cross_entropy(model, params, batch, extras)
    return value, {"half": value / 2, **told}


def parted(settings: config.TrainConfig) -> tuple[mixtures.Mixture, mixtures.Mixture]:
    """(trained on, held out)."""
    model = outline.of(setup.load_model(settings))
    return conversations.mixture(settings, model), conversations.held_out(settings, model)


def lines(workdir: pathlib.Path, *, held_out: bool) -> list[dict[str, Any]]:
    found = [line for line in stand.metrics(workdir) if ("validation/loss" in line) == held_out]
    return [{name: value for name, value in line.items() if name != "validation/seconds"} for line in found]


def plain_loss(settings: config.TrainConfig, held: mixtures.Mixture) -> float:
    """The mean over supervised tokens, conversation by conversation, without padding: softmax and sums in numpy."""
    start = setup.load_model(settings)
    model = functional.Model(start.config, "fp32", start.lora)
    params = jax.tree.map(jnp.asarray, start.params)
    total, count = 0.0, 0
    for i in range(len(held.index)):
        sample = held.pictured(i)
        of = [picture.extent for picture in sample.pictures]
        room = family.Room(sum(one.units for one in of), sum(one.slots for one in of))
        batch = batches.collate([[sample]], [[1.0]], row_len=len(sample.tokens), room=room, model=start.config)
        with model.precision():
            hidden = model.hidden(params, jax.tree.map(jnp.asarray, batch), None)
        logits = np.asarray(hidden[0], np.float64) @ np.asarray(model.head_kernel(params), np.float64)
        best = logits.max(1, keepdims=True)
        logged = logits - best - np.log(np.exp(logits - best).sum(1, keepdims=True))
        for position, label in enumerate(sample.labels[1:].tolist()):
            if label != -100:
                total, count = total - logged[position, label], count + 1
    return total / count


def test_parts_are_disjoint_and_whole_and_independent_of_the_order(tmp_path: pathlib.Path) -> None:
    whole = stand.settings(validation=HELD)
    trained, held = (set(one.index.ids) for one in parted(whole))
    chats = json.loads((stand.folder() / "chats.json").read_text())
    assert trained | held == {chat["id"] for chat in chats} and not trained & held and len(held) in range(3, 13)
    more = [{**chats[1], "id": f"more-{i}"} for i in range(3)]
    (tmp_path / "turned.json").write_text(json.dumps([*more, *reversed(chats)]))
    source = config.SourceSettings(path=str(tmp_path / "turned.json"), images=str(stand.folder() / "pictures"))
    turned, still = (
        set(one.index.ids) for one in parted(stand.settings(validation=HELD, data={"sources": {"x": source}}))
    )
    assert {id_ for id_ in still if id_.startswith("chat")} == held
    assert {id_ for id_ in turned if id_.startswith("chat")} == trained
    about = held if "chat-1" in held else trained  # 1.png is its picture
    assert {id_ for id_ in (still if about is held else turned) if id_.startswith("more")} == {
        f"more-{i}" for i in range(3)
    }
    other = set(parted(stand.settings(validation=HELD | {"seed": 4}))[1].index.ids)
    assert other != held


def test_weights_and_samples_touch_the_trained_part_only() -> None:
    (source,) = stand.settings().data.sources.values()
    changed = {"chats": dataclasses.replace(source, count=20, weight=2.0)}
    trained, held = parted(stand.settings(validation=HELD, data={"sources": changed}))
    assert len(trained.index) == 2 * (20 - len(held.index)) and len(set(held.index.ids)) == len(held.index)
    assert not {id_.partition("*")[0] for id_ in trained.index.ids} & set(held.index.ids)


def test_the_loss_is_the_mean_over_tokens(tmp_path: pathlib.Path) -> None:
    settings = stand.settings(validation=HELD, data={"batch_size": 4})  # two batches, one of them short
    start = setup.load_model(settings)
    data = setup.load_data(settings, start)
    assert data.held_out is not None and data.held_out.plan.total_steps > 1
    program = setup.build_program(settings, start, data.total_updates)
    measured = validation.Validator(settings, data, program, tmp_path, 0)
    found = measured.computed(program.state, program.frozen, lambda: False)
    assert found is not None and measured.computed(program.state, program.frozen, lambda: True) is None
    wanted = plain_loss(settings, data.held_out.mixture)
    np.testing.assert_allclose([found["validation/loss"], found["validation/loss/chats"]], [wanted] * 2, rtol=1e-5)
    assert found[TOKENS] == data.held_out.mixture.index.supervised.sum()


@pytest.mark.parity
def test_the_training_is_the_same_and_goes_on(tmp_path: pathlib.Path) -> None:
    settings = stand.settings(validation=HELD)
    done = loop.train(settings, tmp_path / "on")
    found, held = lines(tmp_path / "on", held_out=True), parted(settings)[1]
    assert [line["step"] for line in found] == sorted({*range(0, done.step, 2), done.step})
    np.testing.assert_allclose(found[0]["validation/loss"], plain_loss(settings, held), rtol=1e-5)
    assert all(line["validation/loss/chats"] == pytest.approx(line["validation/loss"], rel=1e-6) for line in found)
    assert {line[TOKENS] for line in found} == {held.index.supervised.sum()}
    assert found[-1]["validation/loss"] < found[0]["validation/loss"]
    loop.train(stand.settings(validation=HELD | {"every": 0}), tmp_path / "off")
    assert lines(tmp_path / "off", held_out=False) == lines(tmp_path / "on", held_out=False)
    assert not lines(tmp_path / "off", held_out=True)
    # stopped after update 3 and resumed: the same lines
    how = HELD | {"at_end": False}
    loop.train(stand.settings(validation=how, optimizer={"max_steps": 3}), tmp_path / "cut")
    loop.train(stand.settings(validation=HELD), tmp_path / "cut")
    assert lines(tmp_path / "cut", held_out=False) == lines(tmp_path / "on", held_out=False)
    assert lines(tmp_path / "cut", held_out=True) == found


@pytest.mark.parity
def test_files_of_their_own_without_dropout_in_other_layouts(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    held = parted(stand.settings(validation=HELD))[1]
    chats = json.loads((stand.folder() / "chats.json").read_text())
    for name, part in (("a", slice(0, 2)), ("b", slice(2, None))):
        mine = [chat for chat in chats if chat["id"] in held.index.ids[part]]
        (tmp_path / f"{name}.json").write_text(json.dumps(mine))
    pictures = str(stand.folder() / "pictures")
    sources = {n: config.SourceSettings(path=str(tmp_path / f"{n}.json"), images=pictures) for n in "ab"}
    make = functools.partial(
        stand.settings,
        validation={"every": 1, "sources": sources},
        optimizer={"max_steps": 1},
        loss=f"{__name__}:watching",
    )
    wanted = plain_loss(make(), held)
    SEEN.clear()
    loop.train(make(lora={"rank": 2, "dropout": 0.5}), tmp_path / "one")
    assert set(SEEN) == {True, False}  # in training with, in validation without
    said = " ".join(capsys.readouterr().out.split())
    assert "held out for validation: " in said and "validation after update 0: loss " in said
    layout: dict[str, Any] = {"data": {"mode": "pack", "length_multiple": 16}, "run": {"rows": 2}}
    loop.train(make(lora={"rank": 2}, **layout), tmp_path / "packed")
    for workdir in (tmp_path / "one", tmp_path / "packed"):
        first = lines(workdir, held_out=True)[0]
        np.testing.assert_allclose(first["validation/loss"], wanted, rtol=1e-5)
        np.testing.assert_allclose(2 * first["validation/half"], wanted, rtol=1e-5)
        parts = [first["validation/loss/a"], first["validation/loss/b"]]
        tokens = [sum(held.index.supervised[:2]), sum(held.index.supervised[2:])]
        np.testing.assert_allclose(np.dot(parts, tokens) / sum(tokens), wanted, rtol=1e-5)


@pytest.mark.parity
def test_the_loss_does_not_depend_on_devices(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stand.use_devices(monkeypatch, 4)
    settings = stand.settings(validation=HELD, optimizer={"max_steps": 1}, mesh={"data": 2, "fsdp": 2})
    loop.train(settings, tmp_path)
    (first, _) = lines(tmp_path, held_out=True)
    np.testing.assert_allclose(first["validation/loss"], plain_loss(settings, parted(settings)[1]), rtol=1e-5)


@pytest.mark.parametrize(
    ("held", "message"),
    [
        ({"every": 2}, "config.validation.every=2 and nothing is held out: set --config.validation.share=0.05"),
        ({"share": 0.1, "sources": {"a": {"path": "x.json"}}}, "name two sets of conversations: leave one of them out"),
        ({"every": 1, "sources": {"a": {"path": "c.json"}}}, "is trained on as config.data.sources.chats; set config"),
        ({"share": 0.6}, "config.validation.share=0.6 must be a number from 0 to 0.5"),
    ],
)
def test_contradictions_are_one_line(held: dict, message: str) -> None:
    base = config.base_train_config().to_dict() | {"validation": held}
    base["data"] |= {"sources": {"chats": {"path": "c.json"}}}
    with pytest.raises(errors.UserError, match=re.escape(message)):
        config.resolve(base, config.TrainConfig)


def test_a_share_that_holds_out_nothing_is_an_error() -> None:
    with pytest.raises(errors.UserError, match=r"share=1e-06 holds out 0 conversations; raise it, or take another"):
        parted(stand.settings(validation={"every": 1, "share": 1e-6}))

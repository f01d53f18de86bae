"""What watches over a run: updates skipped in a row, spikes of the loss, and whether the right weights change."""

import functools
import json
import pathlib

import jax
import numpy as np
import pytest

from tests.training import stand
from vlguard_jax import config
from vlguard_jax import errors
from vlguard_jax import trees
from vlguard_jax.checkpoints import store
from vlguard_jax.training import changes
from vlguard_jax.training import loop
from vlguard_jax.training import losses
from vlguard_jax.training import program as program_lib
from vlguard_jax.training import setup
from vlguard_jax.training import spikes
from vlguard_jax.training import step as step_lib

pytestmark = pytest.mark.parity  # checksums of every shape are compiled, and runs are made


def no_number_for_the_second_source(model, params, batch, extras):
    """Breaks on conversations of the second source."""
    value, metrics = losses.cross_entropy(model, params, batch, extras)
    return value * jax.numpy.where((batch.source == 1).any(), jax.numpy.nan, 1.0), metrics


def ten_times_for_the_second_source(model, params, batch, extras):
    """Far too much on conversations of the second source."""
    value, metrics = losses.cross_entropy(model, params, batch, extras)
    return value * jax.numpy.where((batch.source == 1).any(), 10.0, 1.0), metrics


def without_pictures(model, params, batch, extras):
    """Reaches the language model only: the projector's share of the gradient is cut off."""
    cut = {**params, "projector": jax.lax.stop_gradient(params["projector"])}
    return losses.cross_entropy(model, cut, batch, extras)


def _two_sources(loss: str, good: int = 24, bad: int = 24, **run) -> config.TrainConfig:
    """Updates of `good` conversations of one source, then of `bad` of another, 8 each."""
    root = stand.folder()
    chats, pictures = str(root / "chats.json"), str(root / "pictures")
    sources = {
        "good": config.SourceSettings(path=chats, images=pictures, count=good),
        "bad": config.SourceSettings(path=chats, images=pictures, count=bad),
    }
    return stand.settings(
        loss=f"tests.training.test_guards:{loss}",
        data={"sources": sources, "order": "sequential"},
        optimizer={"epochs": 1.0},
        run={"save_every": 1, "keep": 9, **run},
    )


def _saved(folder: pathlib.Path, settings: config.TrainConfig) -> tuple[int, dict[str, np.ndarray]]:
    start = setup.load_model(settings)
    program = setup.build_program(settings, start, 6)
    shapes = jax.tree.map(
        lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s), program.state, program.state_shardings
    )
    opened = store.Store(folder / "checkpoints", 9)
    step = opened.latest_step()
    assert step is not None
    flat = trees.flatten(opened.restore(step, setup.to_tree(shapes)))
    opened.close()
    return step, {path: np.asarray(value) for path, value in flat.items() if value is not None}


def test_updates_skipped_in_a_row_end_the_run_at_the_last_good_state(tmp_path: pathlib.Path) -> None:
    settings = _two_sources("no_number_for_the_second_source", max_skipped=2)
    for _ in range(2):  # and again from where it stopped; an update may be under way when the run ends
        with pytest.raises(errors.UserError) as told:
            loop.train(settings, tmp_path / "run")
        message = str(told.value)
        assert message.startswith("update 5: loss or gradient was not finite for 2 updates in a row; this one learned")
        assert " from chat-" in message and " of bad (spikes.jsonl" in message and " of good" not in message
        assert f"{tmp_path}/run/checkpoints/3" in message and "raise config.run.max_skipped (now 2, 0:" in message
        assert not (tmp_path / "run" / "model").exists()
        steps = sorted(int(p.name) for p in (tmp_path / "run" / "checkpoints").iterdir() if p.name.isdecimal())
        assert steps == [1, 2, 3]
        lines = [json.loads(line) for line in (tmp_path / "run" / "spikes.jsonl").read_text().splitlines()]
        assert [line["step"] for line in lines][:2] == [4, 5]
        named = {one["id"] for one in lines[1]["conversations"]}
        assert len(named) == 8 and all(id_ in message for id_ in named)
    step, stopped = _saved(tmp_path / "run", settings)
    short = _two_sources("no_number_for_the_second_source", save_every=0)
    loop.train(stand.settings(**{**vars(short), "optimizer": {"epochs": 1.0, "max_steps": 3}}), tmp_path / "short")
    expected_step, expected = _saved(tmp_path / "short", settings)
    assert step == expected_step == 3
    assert stopped.keys() == expected.keys()
    for path, value in expected.items():
        np.testing.assert_array_equal(stopped[path], value, err_msg=path)
    without = _two_sources("no_number_for_the_second_source", max_skipped=0)
    assert loop.train(without, tmp_path / "run").step == 6  # goes on in the same directory


def test_a_spike_changes_nothing_that_is_computed(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = _two_sources("ten_times_for_the_second_source", good=24, bad=8)
    monkeypatch.setattr(spikes, "ENOUGH", 3)
    loop.train(settings, tmp_path / "watched")
    (line,) = [json.loads(line) for line in (tmp_path / "watched" / "spikes.jsonl").read_text().splitlines()]
    assert line["step"] == 4 and not line["skipped"] and {one["source"] for one in line["conversations"]} == {"bad"}
    monkeypatch.setattr(spikes, "ENOUGH", 99)
    loop.train(settings, tmp_path / "unwatched")
    assert not (tmp_path / "unwatched" / "spikes.jsonl").exists()
    assert stand.metrics(tmp_path / "watched") == stand.metrics(tmp_path / "unwatched")
    (_, watched), (_, unwatched) = (_saved(tmp_path / name, settings) for name in ("watched", "unwatched"))
    for path, value in watched.items():
        np.testing.assert_array_equal(value, unwatched[path], err_msg=path)


@functools.cache
def _built(changed: str) -> tuple[setup.Data, program_lib.Program]:
    settings = stand.settings(**json.loads(changed))
    start = setup.load_model(settings)
    with pytest.MonkeyPatch.context() as patch:
        stand.use_devices(patch, 1)
        data = setup.load_data(settings, start)
        return data, setup.build_program(settings, start, data.total_updates)


class _Stood:
    """Checks of a run's updates, which are made here of any gradient."""

    def __init__(self, **changed):
        self.settings = stand.settings(**changed)
        data, self.program = _built(json.dumps(changed))
        self.state, self.said = self.program.state, list[str]()
        self.rates = loop._learning_rates(self.settings, data)
        self.changes = changes.Changes(self.settings, data, self.program, self.state, self.rates, self.said.append)

    def update(self, without: tuple[str, ...] = (), still: tuple[str, ...] = ()) -> None:
        """An update with a gradient of 0.1, and 0 in arrays whose id begins with one of `without` or holds it; those in
        `still` are as before all the same."""
        flat = trees.flatten(self.state.params)
        none = [id_ for id_ in flat if any(id_.startswith(one) or one in id_ for one in without)]
        grads = trees.unflatten(
            {id_: np.full(x.shape, 0.0 if id_ in none else 0.1, x.dtype) for id_, x in flat.items()}
        )
        apply = jax.jit(
            lambda state, grads: step_lib._apply(state, self.program.optimizer, jax.numpy.float32(1), {}, grads)[0]
        )
        after = apply(self.state, grads)
        kept = {
            id_: flat[id_] if id_.startswith(still or ("-",)) else x for id_, x in trees.flatten(after.params).items()
        }
        self.state = after._replace(params=trees.unflatten(kept))

    def check(self, index: int, **values: float) -> None:
        assert self.changes.due(index)
        self.changes.check(index, self.state, {"skipped": 0.0, "grad_norm": 1.0, **values})


def test_an_update_that_changes_everything_is_right() -> None:
    stood = _Stood()
    assert not stood.changes.due(0), "its learning rate is 0"
    stood.update()
    stood.update()
    stood.check(1)
    assert not stood.changes.due(2) and not stood.said
    stood.changes.conclude(stood.state)
    assert not stood.said


@pytest.mark.parametrize(
    ("how", "part", "why"),
    [
        ({"without": ("text.head",)}, "head", "no gradient reaches text.head.kernel"),
        ({"still": ("projector",)}, "projector", "the optimizer did not apply its steps to projector."),
        ({"without": ("text",)}, "language model", "no gradient reaches text."),
    ],
    ids=["no-gradient", "not-applied", "text"],
)
def test_a_part_that_stays_as_it_was_ends_the_run(how: dict, part: str, why: str) -> None:
    stood = _Stood()
    stood.update(**how)
    stood.update(**how)
    with pytest.raises(
        errors.UserError, match=f"update 2 left the {part} as it was, which this run is to train: {why}"
    ):
        stood.check(1)


def test_an_update_that_says_nothing_is_not_judged() -> None:
    stood = _Stood()
    stood.update(without=("",))
    stood.check(1, skipped=1.0)
    stood.check(1, grad_norm=0.0)
    stood.update()
    stood.update()
    stood.check(2)
    assert not stood.said


def test_one_array_without_a_gradient_is_told() -> None:
    stood = _Stood()
    one = next(id_ for id_ in trees.flatten(stood.state.params) if id_.startswith("text.") and "norm" in id_)
    stood.update(without=(one,))
    stood.update(without=(one,))
    stood.check(1)
    (line,) = stood.said
    assert line.startswith("update 2 left 1 of ") and line.endswith(f"no gradient reaches {one}")
    stood.changes.conclude(stood.state)
    assert stood.said[1].startswith("1 of ") and stood.said[1].endswith(f"trained arrays never changed: {one}")


def test_adapters_a_have_a_second_update() -> None:
    stood = _Stood(lora={"rank": 4})
    for _ in range(2):  # B is 0: no gradient in A
        stood.update(without=(".lora_a",))
    stood.check(1)
    assert not stood.said and stood.changes.due(2)
    stood.update()
    stood.check(2)
    assert not stood.said and not stood.changes.due(3)
    stood = _Stood(lora={"rank": 4})
    for _ in range(3):
        stood.update(without=(".lora_a",))
    stood.check(1)
    stood.check(2)
    assert len(stood.said) == 1 and "no gradient reaches text.layers.attention" in stood.said[0]


def test_steps_that_round_away_are_told_with_figures() -> None:
    stood = _Stood(precision={"params": "bf16"}, optimizer={"learning_rate": 1e-5})
    stood.update()
    stood.update()
    stood.check(1)
    (line,) = stood.said
    assert "their steps round away in bf16 (at the peak of the learning rate the largest is 0.0" in line
    assert "norm.scale" in line and line.endswith("config.precision.params=fp32 would keep them")


def test_a_rate_that_is_still_rising_is_waited_for() -> None:
    """Norms of 1 in bf16 change by 0.01, not by 0.001."""
    stood = _Stood(precision={"params": "bf16"}, optimizer={"learning_rate": 1e-2, "warmup_ratio": 0.99, "epochs": 4.0})
    assert 0.07 < stood.rates[1] / 1e-2 < 0.1
    stood.update()
    stood.update()
    stood.check(1)
    assert not stood.said and stood.changes.due(2)


def test_frozen_weights_that_change_end_the_run() -> None:
    stood = _Stood()
    flat = trees.flatten(stood.program.frozen)
    id_ = sorted(flat)[0]
    whole = {**flat, id_: flat[id_].at[..., 0].add(1e-3)}
    stood.update()
    stood.update()
    stood.changes.conclude(stood.state)
    stood.changes._frozen = trees.unflatten(whole)
    match = rf"frozen weights of the vision tower have changed {{}} \({id_}\).* no model is written"
    with pytest.raises(errors.UserError, match=match.format("after update 2")):
        stood.check(1)
    with pytest.raises(errors.UserError, match=match.format("at the end")):
        stood.changes.conclude(stood.state)


def test_a_loss_that_does_not_reach_a_part_ends_the_run(tmp_path: pathlib.Path) -> None:
    settings = stand.settings(loss="tests.training.test_guards:without_pictures")
    with pytest.raises(errors.UserError, match="update 2 left the projector as it was"):
        loop.train(settings, tmp_path)

"""The log by source: what it says, where it is silent, and that it costs the loss nothing."""

import json
import math
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.families import tiny
from tests.training import stand
from vlguard_jax import config
from vlguard_jax import trees
from vlguard_jax import types
from vlguard_jax.checkpoints import load
from vlguard_jax.families import functional
from vlguard_jax.training import loop
from vlguard_jax.training import losses
from vlguard_jax.training import metrics
from vlguard_jax.training import setup

FIRST = 16  # of the stand's conversations are in source "first", the rest in "second"


@pytest.fixture(autouse=True)
def one_device(monkeypatch: pytest.MonkeyPatch) -> None:
    stand.use_devices(monkeypatch, 1)


@pytest.fixture
def sources(tmp_path: pathlib.Path) -> dict[str, config.SourceSettings]:
    chats = json.loads((stand.folder() / "chats.json").read_text())
    made = {}
    for name, part in (("first", chats[:FIRST]), ("second", chats[FIRST:])):
        (tmp_path / f"{name}.json").write_text(json.dumps(part))
        made[name] = config.SourceSettings(path=str(tmp_path / f"{name}.json"), images=str(stand.folder() / "pictures"))
    return made


def plain(
    model: functional.Model, params: functional.Params, batch: types.Batch, extras: losses.Extras
) -> tuple[jax.Array, losses.Metrics]:
    """A user's loss that keeps no account by source."""
    with model.precision():
        hidden = model.hidden(params, batch, extras.dropout_key)
        each = losses.token_cross_entropy(
            hidden, model.head_kernel(params), batch.targets, extras.chunk, model.execution.by_rows
        )
    return jnp.sum(batch.loss_weight * each), {}


def test_sums_by_source() -> None:
    batch = tiny.batch(tiny.CONFIG, rows=3)
    source = np.array([[2], [0], [2]], np.int32) * np.ones_like(batch.source)
    source = np.where(np.asarray(batch.segment_ids) > 0, source, -1)
    values = np.random.default_rng(0).random(source.shape).astype(np.float32)
    seen = np.asarray(batch.loss_weight) > 0
    batch = batch._replace(source=jnp.asarray(source))
    found = losses.by_source(jnp.asarray(values), batch, losses.Extras({}, sources=4))[losses.BY_SOURCE]
    np.testing.assert_allclose(found, [values[seen & (source == k)].sum() for k in range(4)], rtol=1e-6)
    unweighted = jnp.where(batch.loss_weight > 0, values, jnp.nan)  # what is not supervised may be anything
    np.testing.assert_array_equal(
        losses.by_source(unweighted, batch, losses.Extras({}, sources=4))[losses.BY_SOURCE], found
    )


def test_an_absent_source_has_no_entry() -> None:
    fetched = {"loss": np.float32(3), losses.BY_SOURCE: np.array([6, 0], np.float32)}
    counted = {"supervised_tokens/a": 4.0}
    assert metrics.of_step(fetched, counted, ("a", "b")) == {"loss": 3.0, "loss/a": 1.5, "supervised_tokens/a": 4.0}
    assert metrics.of_step({"loss": np.float32(3)}, counted, ("a", "b")) == {"loss": 3.0, "supervised_tokens/a": 4.0}


def test_the_plan_counts_what_the_batches_hold(sources: dict) -> None:
    """What the log counts comes from the plan; here it is counted again in the arrays that the devices get."""
    settings = stand.settings(
        data={
            "sources": sources,
            "max_len": 40,
            "end_of_epoch": "short",
            "batch_size": 10,
            "group_size": 5,
            "mode": "pack",
        }
    )
    start = setup.load_model(settings)
    data = setup.load_data(settings, start)
    program = setup.build_program(settings, start, data.total_updates)
    for step, batch in loop._batches(settings, data, program, 0):
        seen, real = batch.loss_weight > 0, batch.segment_ids > 0
        by_source = {
            f"supervised_tokens/{name}": float((seen & (batch.source == i)).sum()) for i, name in enumerate(sources)
        }
        assert loop._count(data, step) == {
            "tokens": float(real.sum()),
            "supervised_tokens": float(seen.sum()),
            "padding_share": 1 - real.sum() / real.size,
            **{name: count for name, count in by_source.items() if count},
        }
    assert step == 5


@pytest.mark.parity
def test_the_sources_make_up_the_loss(tmp_path: pathlib.Path, sources: dict, monkeypatch: pytest.MonkeyPatch) -> None:
    data = {"sources": sources, "normalization": "tokens", "order": "shuffle"}
    loop.train(stand.settings(data=data), tmp_path / "one")
    loop.train(stand.settings(data=data, loss="cross_entropy_with_kl", loss_args={"kl_weight": 0.0}), tmp_path / "kl")
    with monkeypatch.context() as patch:
        stand.use_devices(patch, 8)
        loop.train(stand.settings(data=data), tmp_path / "eight")
    for line, kl, other in zip(*(stand.metrics(tmp_path / name) for name in ("one", "kl", "eight")), strict=True):
        tokens = {name: line[f"supervised_tokens/{name}"] for name in sources}
        assert sum(tokens.values()) == line["supervised_tokens"] and all(tokens.values())
        mean = sum(tokens[name] * line[f"loss/{name}"] for name in sources) / line["supervised_tokens"]
        np.testing.assert_allclose(mean, line["loss"], rtol=1e-5)
        for name in sources:
            assert tokens[name] == other[f"supervised_tokens/{name}"]
            np.testing.assert_allclose([kl[f"loss/{name}"], other[f"loss/{name}"]], line[f"loss/{name}"], rtol=1e-4)


def test_micro_batches_add_up_and_absent_sources_are_left_out(tmp_path: pathlib.Path, sources: dict) -> None:
    data = {"sources": sources, "normalization": "tokens", "order": "sequential"}
    loop.train(stand.settings(data=data, run={"rows": 2}, optimizer={"epochs": 1.0}), tmp_path)
    lines = stand.metrics(tmp_path)
    for line, here, absent in zip(lines, ("first", "first", "second"), ("second", "second", "first"), strict=True):
        np.testing.assert_allclose(line[f"loss/{here}"], line["loss"], rtol=1e-5)
        assert line[f"supervised_tokens/{here}"] == line["supervised_tokens"]
        assert not any(name.endswith(f"/{absent}") for name in line)
        assert all(math.isfinite(value) for value in line.values())


@pytest.mark.parity
def test_the_account_changes_no_bit(tmp_path: pathlib.Path, sources: dict) -> None:
    runs = {}
    for name in ("cross_entropy", "tests.training.test_by_source:plain"):
        folder = tmp_path / name.partition(":")[2]
        loop.train(stand.settings(loss=name, data={"sources": sources}, run={"export": "llava"}), folder)
        runs[name] = stand.metrics(folder), trees.flatten(load.load(folder / "model").params)
    (ours, params), (theirs, expected) = runs.values()
    for line, other in zip(ours, theirs, strict=True):
        assert {name: value for name, value in line.items() if not name.startswith("loss/")} == other
    for path, value in params.items():
        np.testing.assert_array_equal(value, expected[path], err_msg=path)

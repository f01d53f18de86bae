from __future__ import annotations

import dataclasses

import jax
import numpy as np
import pytest

from tests.data import stand
from vlguard_jax import config
from vlguard_jax import errors
from vlguard_jax import types
from vlguard_jax.data import loader
from vlguard_jax.data import mixtures
from vlguard_jax.data import pictures
from vlguard_jax.data import plan as plan_lib
from vlguard_jax.families.chat import templates

MODEL = stand.sees()
PATCHES = 4
ROW = {"tokens", "targets", "loss_weight", "segment_ids", "positions", "slot", "source"}


@pytest.fixture(scope="module")
def mixture(tmp_path_factory):
    folder = tmp_path_factory.mktemp("mixture")
    records = []
    for i in range(7):
        images = (f"{i}.png",) if i % 3 else ()
        records.append(
            stand.record("<image>\nfox" if images else "fox" + " dog" * i, "dog." * (i + 1), images=images, id=str(i))
        )
        if images:
            stand.write_picture(folder / images[0], seed=i)
    path = stand.write_records(folder / "f.json", records)
    tokenizer = stand.make_tokenizer(folder / "tokenizer", legacy=True)
    settings = config.DataSettings(sources={"s": config.SourceSettings(path=path, images=str(folder))}, order="shuffle")
    return mixtures.build(settings, tokenizer, templates.get_template("vicuna_v1"), MODEL)


def make(mixture, data=None, rows=0, shards=1, own=None, **settings) -> loader.Loader:
    data = dict(order="shuffle", batch_size=4, group_size=2, length_multiple=16, shapes=1, read_threads=2) | (
        data or {}
    )
    plan = plan_lib.BatchPlan(mixture.index, config.DataSettings(**data), 5, plan_lib.Layout(rows, shards), epochs=2.0)
    return loader.Loader(plan, mixture, shards=own, **(dict(stop_step=4) | settings))


def assert_same(a, b):
    a, b = (batch._replace(pictures=None)._asdict() | dict(batch.pictures) for batch in (a, b))
    assert a.keys() == b.keys()
    for name in a:
        np.testing.assert_array_equal(a[name], b[name], err_msg=name)


def test_order_does_not_depend_on_threads_or_start(mixture):
    whole = list(make(mixture))
    assert [step for step, _ in whole] == [0, 1, 2, 3]
    for threads in (0, 3):
        for (step, batch), (expected_step, expected) in zip(
            make(mixture, data={"read_threads": threads}), whole, strict=True
        ):
            assert step == expected_step
            assert_same(batch, expected)
    (resumed,) = make(mixture, start_step=3)
    assert resumed[0] == 3
    assert_same(resumed[1], whole[3][1])
    assert list(make(mixture, start_step=4)) == []


def test_micro_batches_are_slices_of_the_step(mixture):
    for (_, whole), (_, parts) in zip(make(mixture), make(mixture, rows=2), strict=True):
        assert whole.tokens.shape[:2] == (1, 4) and parts.tokens.shape[:2] == (2, 2)
        for name in ROW - {"slot"}:
            np.testing.assert_array_equal(getattr(parts, name).reshape(4, -1), getattr(whole, name)[0])
        assert parts.pictures["images"].shape == (2, 2, 28, 28, 3) and whole.pictures["images"].shape == (
            1,
            3,
            28,
            28,
            3,
        )
        assert patches_seen(parts) == patches_seen(whole)


def patches_seen(batch) -> list:
    """The picture behind every image slot, in reading order, whatever the numbering."""
    found = []
    for images, slots in zip(batch.pictures["images"], batch.slot, strict=True):
        for slot in slots[slots >= 0]:
            n, patch = divmod(int(slot), PATCHES)
            found.append((int(images[n].astype(np.int64).sum()), patch))
    return found


def together(*hosts: types.Batch) -> types.Batch:
    """The batch of all hosts, as the mesh puts it together."""
    return jax.tree.map(lambda *arrays: np.concatenate(arrays, axis=1), *hosts)


def test_hosts_together_are_the_whole_batch(mixture):
    whole = list(make(mixture, rows=2))
    hosts = [list(make(mixture, rows=2, shards=2, own=[h])) for h in range(2)]
    for (_, expected), (_, first), (_, second) in zip(whole, *hosts, strict=True):
        both = together(first, second)
        for name in ROW - {"slot"}:
            np.testing.assert_array_equal(getattr(both, name), getattr(expected, name), err_msg=name)
        assert patches_seen(both) == patches_seen(expected)


def test_weights_sum_to_the_normalisation(mixture):
    for _, batch in make(mixture):
        assert batch.loss_weight.sum() == pytest.approx(1.0, rel=1e-6)
        assert batch.tokens.shape[-1] % 16 == 0


def test_short_last_step_is_padded_with_empty_rows(mixture):
    *_, (step, batch) = make(mixture, data={"order": "sequential", "end_of_epoch": "short"}, rows=2, stop_step=2)
    assert step == 1 and batch.tokens.shape[:2] == (2, 2)
    assert batch.segment_ids.any(axis=-1).tolist() == [[True, True], [True, False]]
    assert batch.loss_weight.sum() == pytest.approx(1.0, rel=1e-6)


def content(batch) -> list:
    """Every conversation of a step as the device sees it, in whatever row: (tokens, targets, weights, positions,
    picture sums)."""
    found = []
    for micro in range(batch.tokens.shape[0]):
        arrays = [getattr(batch, name)[micro] for name in ("tokens", "targets", "loss_weight", "positions", "slot")]
        for row, segments in enumerate(batch.segment_ids[micro]):
            for segment in set(segments.tolist()) - {0}:
                tokens, targets, weights, positions, slots = (array[row][segments == segment] for array in arrays)
                used = sorted({int(slot) // PATCHES for slot in slots[slots >= 0]})
                sums = [int(batch.pictures["images"][micro][n].astype(np.int64).sum()) for n in used]
                patches = (np.where(slots >= 0, slots % PATCHES, -1)).tolist()
                found.append((tokens.tolist(), targets.tolist(), weights.tolist(), positions.tolist(), patches, sums))
    return sorted(found)


def joined(hosts) -> list:
    """(step, content) of a run from the batches of all its hosts."""
    steps = []
    for of_hosts in zip(*hosts, strict=True):
        steps.append((of_hosts[0][0], content(together(*(batch for _, batch in of_hosts)))))
    return steps


@pytest.mark.parametrize("mode", ["pad", "pack"])
def test_stream_is_the_same_on_any_number_of_hosts(mixture, mode):
    """Sample by sample, also when the run goes on, at any step, on another number of hosts."""
    data = {"mode": mode, "batch_size": 8, "normalization": "micro_batch"}

    def run(hosts: int, start: int = 0) -> list:
        layout = {"shards": 4, "start_step": start, "stop_step": 2, "data": data}
        return joined(
            [list(make(mixture, own=range(h * 4 // hosts, (h + 1) * 4 // hosts), **layout)) for h in range(hosts)]
        )

    whole = run(1)
    assert [step for step, _ in whole] == [0, 1]
    for hosts in (2, 4):
        assert run(hosts) == whole
        for start in (0, 1):
            assert run(hosts, start) == whole[start:]
    unsharded = joined([list(make(mixture, data=data, stop_step=2))])
    assert unsharded == whole


def test_packed_rows_hold_the_same_conversations(mixture):
    padded, packed = (
        joined([list(make(mixture, data={"mode": mode, "batch_size": 7}, stop_step=2))]) for mode in ("pad", "pack")
    )
    assert padded == packed
    (_, rows), _ = make(mixture, data={"mode": "pack", "batch_size": 7}, stop_step=2)
    assert max(len(set(row.tolist()) - {0}) for row in rows.segment_ids[0]) > 1, "nothing was packed"


@pytest.mark.parametrize("mode", ["pad", "pack"])
def test_worker_processes_change_nothing(mixture, mode):
    data = {"mode": mode}
    whole = list(make(mixture, data=data))
    for (step, batch), (expected_step, expected) in zip(
        make(mixture, data=data | {"read_workers": 2}), whole, strict=True
    ):
        assert step == expected_step
        assert_same(batch, expected)


def test_every_sample_once_an_epoch(mixture):
    data = {"mode": "pack", "batch_size": 4, "end_of_epoch": "short"}
    for epoch in range(2):
        steps = joined([list(make(mixture, data=data, start_step=2 * epoch, stop_step=2 * epoch + 2))])
        seen = sorted(tokens for _, step in steps for tokens, *_ in step)
        assert seen == sorted(mixture.sample(i).tokens.tolist() for i in range(len(mixture.index)))


def test_steps_read_ahead_fit_the_memory(mixture):
    made = make(mixture)
    ((_, first), *_) = made
    assert made.source.step_bytes() >= sum(array.nbytes for array in jax.tree.leaves(first))
    assert list(make(mixture, data={"prefetch_mib": 0}))[3][0] == 3  # one step at a time


def test_unreadable_picture_ends_the_run_with_one_line(mixture, tmp_path):
    (tmp_path / "broken").mkdir()
    for i in range(7):
        (tmp_path / "broken" / f"{i}.png").write_bytes(b"no picture")
    store = pictures.open_store(str(tmp_path / "broken"))
    broken = dataclasses.replace(mixture, sources=(dataclasses.replace(mixture.sources[0], store=store),))
    for threads in (0, 2):
        with pytest.raises(errors.UserError, match=r"^[^\n]*\.png: [^\n]*record \d \(id '\d'\)"):
            list(make(broken, data={"read_threads": threads}))

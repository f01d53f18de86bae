from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from tests.data import stand
from vlguard_jax import config
from vlguard_jax import errors
from vlguard_jax.data import loader
from vlguard_jax.data import mixtures
from vlguard_jax.data import plan as plan_lib
from vlguard_jax.data import templates
from vlguard_jax.models import config as model_config

VISION = dataclasses.replace(model_config.CLIP_VIT_L_14_336, image_size=28)
ROW = {"tokens", "targets", "loss_weight", "segment_ids", "positions", "image_slot"}


@pytest.fixture(scope="module")
def mixture(tmp_path_factory):
    folder = tmp_path_factory.mktemp("mixture")
    records = []
    for i in range(7):
        images = (f"{i}.png",) if i % 3 else ()
        records.append(stand.record("<image>\nfox" if images else "fox" + " dog" * i, "dog." * (i + 1), images=images, id=str(i)))
        if images:
            stand.write_picture(folder / images[0], seed=i)
    path = stand.write_records(folder / "f.json", records)
    tokenizer = stand.make_tokenizer(folder / "tokenizer", legacy=True)
    settings = config.DataSettings(sources={"s": config.SourceSettings(path=path, images=str(folder))}, order="shuffle")
    return mixtures.build(settings, tokenizer, templates.get_template("vicuna_v1"), VISION.num_patches)


def make(mixture, vision=VISION, data=None, **settings) -> loader.Loader:
    data = dict(order="shuffle", batch_size=4, group_size=2, length_multiple=16, read_threads=2) | (data or {})
    plan = plan_lib.BatchPlan(mixture.index, config.DataSettings(**data), 5)
    return loader.Loader(plan, mixture, vision, **(dict(image_mode="pad", stop_step=4) | settings))


def assert_same(a, b):
    for name, x, y in zip(a._fields, a, b, strict=True):
        np.testing.assert_array_equal(x, y, err_msg=name)


def test_order_does_not_depend_on_threads_or_start(mixture):
    whole = list(make(mixture))
    assert [step for step, _ in whole] == [0, 1, 2, 3]
    for threads in (0, 3):
        for (step, batch), (expected_step, expected) in zip(make(mixture, data={"read_threads": threads}), whole, strict=True):
            assert step == expected_step
            assert_same(batch, expected)
    (resumed,) = make(mixture, start_step=3)
    assert resumed[0] == 3
    assert_same(resumed[1], whole[3][1])
    assert list(make(mixture, start_step=4)) == []


def test_micro_batches_are_slices_of_the_step(mixture):
    for (_, whole), (_, parts) in zip(make(mixture), make(mixture, rows=2), strict=True):
        assert whole.tokens.shape[:2] == (1, 4) and parts.tokens.shape[:2] == (2, 2)
        for name in ROW - {"image_slot"}:
            np.testing.assert_array_equal(getattr(parts, name).reshape(4, -1), getattr(whole, name)[0])
        assert parts.images.shape == (2, 2, 28, 28, 3) and whole.images.shape == (1, 4, 28, 28, 3)
        assert patches_seen(parts) == patches_seen(whole)


def patches_seen(batch) -> list:
    """The picture behind every image slot, in reading order, whatever the numbering."""
    found = []
    for images, slots in zip(batch.images, batch.image_slot, strict=True):
        for slot in slots[slots >= 0]:
            n, patch = divmod(int(slot), VISION.num_patches)
            found.append((int(images[n].astype(np.int64).sum()), patch))
    return found


def test_hosts_together_are_the_whole_batch(mixture):
    whole = list(make(mixture, rows=2))
    hosts = [list(make(mixture, rows=2, host_index=h, host_count=2)) for h in range(2)]
    for (_, expected), (_, first), (_, second) in zip(whole, *hosts, strict=True):
        joined = type(expected)(*(np.concatenate(pair, axis=1) for pair in zip(first, second, strict=True)))
        for name in ROW - {"image_slot"}:
            np.testing.assert_array_equal(getattr(joined, name), getattr(expected, name), err_msg=name)
        assert patches_seen(joined) == patches_seen(expected)


def test_weights_sum_to_the_normalisation(mixture):
    for _, batch in make(mixture):
        assert batch.loss_weight.sum() == pytest.approx(1.0, rel=1e-6)
        assert batch.tokens.shape[-1] % 16 == 0


def test_short_last_step_is_padded_with_empty_rows(mixture):
    *_, (step, batch) = make(mixture, data={"order": "sequential", "end_of_epoch": "short"}, rows=2, stop_step=2)
    assert step == 1 and batch.tokens.shape[:2] == (2, 2)
    assert batch.segment_ids.any(axis=-1).tolist() == [[True, True], [True, False]]
    assert batch.loss_weight.sum() == pytest.approx(1.0, rel=1e-6)


def test_unreadable_picture_ends_the_run_with_one_line(mixture, tmp_path):
    (tmp_path / "broken").mkdir()
    for i in range(7):
        (tmp_path / "broken" / f"{i}.png").write_bytes(b"no picture")
    broken = dataclasses.replace(mixture, image_folders={"s": str(tmp_path / "broken")})
    message = r"^[^\n]*\.png: not a readable picture \(picture of .*f\.json: record \d \(id '\d'\)\): unknown format"
    for threads in (0, 2):
        with pytest.raises(errors.UserError, match=message):
            list(make(broken, data={"read_threads": threads}))


def test_what_cannot_be_divided(mixture):
    with pytest.raises(errors.UserError, match=r"^config\.run\.rows=3 must divide config\.data\.batch_size=4"):
        make(mixture, rows=3)
    with pytest.raises(errors.UserError, match=r"be a multiple of the 3 hosts$"):
        make(mixture, rows=2, host_count=3)
    with pytest.raises(errors.UserError, match=r"^the conversations have pictures, but the model has no vision tower$"):
        make(mixture, vision=None)

from __future__ import annotations

import json

import numpy as np
import pytest

from tests.data import stand
from vlguard_jax import config
from vlguard_jax import errors
from vlguard_jax.data import file_index
from vlguard_jax.data import selection


def found(n: int = 20, **changes) -> file_index.FileIndex:
    ones = np.ones(n, np.int64)
    fields = dict(ids=tuple(f"t{i}" for i in range(n)), images=((),) * n, categories=(("", ""),) * n, problems={})
    return file_index.FileIndex(ones, ones, ones, ones, **(fields | changes))


def select(of: file_index.FileIndex, **settings) -> list[int]:
    return selection.select(of, config.SourceSettings(path="f.json", **settings), "mine").tolist()


def test_seeded_sample():
    first = select(found(), count=5)
    assert first == select(found(), count=5) == sorted(first) != select(found(), count=5, sample_seed=1)
    assert len(set(first)) == 5 and select(found()) == list(range(20))
    with pytest.raises(
        errors.UserError, match=r"^config\.data\.sources\.mine\.count=21, but the source has only 20 conversations$"
    ):
        select(found(), count=21)


def test_lists_of_ids(tmp_path):
    ids = tmp_path / "ids.txt"
    ids.write_text("t1\n\nt3\n")
    assert select(found(4), exclude_ids=str(ids)) == [0, 2]
    assert select(found(4), include_ids=str(ids)) == [1, 3]
    ids.write_text("t1\nt8\nt9\n")
    with pytest.raises(errors.UserError, match=r"ids\.txt: 2 of 3 ids are not in source 'mine', the first is 't8'$"):
        select(found(4), exclude_ids=str(ids))
    with pytest.raises(errors.UserError, match=r"^no\.txt: no such file \(config\.data\.sources\.mine\.include_ids\)$"):
        select(found(4), include_ids="no.txt")
    ids.write_bytes("t1\n".encode("utf-16"))
    with pytest.raises(
        errors.UserError, match=r"ids\.txt: this is UTF-16 text; save it as UTF-8 \(config\.data\.sources\.mine\."
    ):
        select(found(4), include_ids=str(ids))
    # An id that several conversations share must be said exactly.
    ids.write_text("x\n")
    shared = found(3, ids=file_index.unique(["x", "y", "x"]))
    with pytest.raises(
        errors.UserError, match=r"the first is 'x' \('x' names several conversations: write x~1, \.\.\.\)$"
    ):
        select(shared, exclude_ids=str(ids))
    ids.write_text("x~2\n")
    assert select(shared, exclude_ids=str(ids)) == [0, 1]


def test_categories_left_out():
    categories = (
        ("privacy", "personal data"),
        ("", ""),
        ("risky behavior", "violence"),
        ("risky behavior", "political"),
    )
    of = found(4, categories=categories)
    assert select(of, leave_out=("privacy",)) == [1, 2, 3] and select(of, leave_out=("violence", "privacy")) == [1, 3]
    with pytest.raises(
        errors.UserError, match=r"leave_out: no record is of category 'privcy'; did you mean 'privacy'\?$"
    ):
        select(of, leave_out=("privcy",))


def test_pictures_that_stand_in_train_and_test(tmp_path):
    test = [stand.vlguard_value(i, safe=True) for i in (1, 7)]
    (tmp_path / "test.json").write_text(json.dumps(test))
    of = found(3, images=((test[0]["image"],), ("set/9.png",), (test[0]["image"],)))
    chosen = selection.select(of, config.SourceSettings(format="vlguard", path=str(tmp_path), leak_free=True), "mine")
    assert chosen.tolist() == [1]
    with pytest.raises(errors.UserError, match=r"leak_free is for the formats"):
        select(of, leak_free=True)


def test_weights_and_expected_size():
    assert select(found(3), weight=2.0) == [0, 1, 2, 0, 1, 2]
    part = select(found(10), weight=1.3)
    assert part[:10] == list(range(10)) and len(part) == 13 and len(set(part[10:])) == 3
    assert selection.copy_names(found(2), np.asarray([0, 1, 0, 0])) == ["t0", "t1", "t0*2", "t0*3"]
    with pytest.raises(
        errors.UserError,
        match=r"^f\.json: 3 conversations, config\.data\.sources\.mine\.expect=665,298: download it again$",
    ):
        select(found(3), expect=665298)


def test_held_out_and_trained_on_are_parts_of_what_is_selected():
    names = tuple((f"{i // 2}.png",) if i < 12 else () for i in range(20))
    of = found(ids=file_index.unique([*(f"t{i}" for i in range(16)), "x", "x", "y", "y"]), images=names)
    settings = config.SourceSettings(path="f.json", count=18, weight=2.0)
    rest, held = (
        selection.select(of, settings, "mine", selection.Part(0.4, 1, held_out)).tolist() for held_out in (False, True)
    )
    whole = select(of, count=18)
    assert 0 < len(held) < 12 and sorted({*rest, *held}) == whole and not set(rest) & set(held)
    assert rest == 2 * sorted(set(rest)) and held == sorted(set(held))  # held out once, whatever the weight
    for i in range(0, 12, 2):  # one picture
        assert len({i, i + 1} & set(held)) in (0, len({i, i + 1} & set(whole)))
    for pair in ({16, 17}, {18, 19}):  # one id
        assert len(pair & set(held)) in (0, len(pair & set(whole)))
    turned = found(ids=of.ids[::-1], images=of.images[::-1])
    every = config.SourceSettings(path="f.json")
    straight, back = (selection.select(one, every, "mine", selection.Part(0.4, 1, True)) for one in (of, turned))
    assert {of.ids[i] for i in straight} == {turned.ids[i] for i in back}

"""Benchmarks: what they read, and what they refuse to count."""

import dataclasses
import hashlib
import json

import pytest

from tests.safety import stand
from vlguard_jax import config
from vlguard_jax import errors
from vlguard_jax.safety.benchmarks import benchmark
from vlguard_jax.safety.benchmarks import registry
from vlguard_jax.safety.benchmarks import vlguard


@pytest.fixture
def folder(tmp_path):
    return stand.write_benchmark(tmp_path / "bench")


def settings(folder, **changes):
    return dataclasses.replace(config.BenchmarkSettings(path=str(folder)), **changes)


def test_items_in_order(folder):
    items = benchmark.select(vlguard.LIKE_VLGUARD, settings(folder))
    assert [(i.subset, i.id) for i in items] == [
        *(("unsafes", f"v{i}") for i in range(3)),
        *(("safe_unsafes", f"v{i}") for i in range(3, 7)),
        *(("safe_safes", f"v{i}") for i in range(3, 7)),
    ]
    first, last = items[0], items[-1]
    assert (first.question, first.category, first.subcategory) == ("Ask 0?", "privacy", "personal data")
    assert (last.question, last.category) == ("Ask safe 6?", None)
    assert (
        [p.path for p in first.pictures] == [folder / "test" / p.name for p in first.pictures]
        and first.pictures
        and not first.stand_in
    )


def test_the_file_itself_can_be_named(folder):
    assert benchmark.select(vlguard.LIKE_VLGUARD, settings(folder / "test.json")) == benchmark.select(
        vlguard.LIKE_VLGUARD, settings(folder)
    )


def test_stand_ins_are_marked(folder):
    assert all(i.stand_in for i in benchmark.select(vlguard.LIKE_VLGUARD, settings(folder, stand_in=True)))
    (folder / "vlguard.json").write_text(json.dumps({"schema": 1, "stand_in": True}))
    assert all(i.stand_in for i in benchmark.select(vlguard.LIKE_VLGUARD, settings(folder)))


def test_vlguard_has_the_published_counts(folder):
    assert registry.get("vlguard").counts == {"unsafes": 442, "safe_unsafes": 558, "safe_safes": 558}
    with pytest.raises(errors.UserError, match=r"3 questions in unsafes, vlguard has 442: .*limit"):
        benchmark.select(vlguard.BENCHMARK, settings(folder))


def test_leak_free_view_leaves_out_what_was_trained_on(folder):
    test = json.loads((folder / "test.json").read_text())
    (folder / "train.json").write_text(json.dumps([test[0], test[4]]))
    items = vlguard.LEAK_FREE.load(settings(folder), "unsafes") + vlguard.LEAK_FREE.load(settings(folder), "safe_safes")
    assert [item.id for item in items] == ["v1", "v2", "v3", "v5", "v6"]
    assert registry.get("vlguard_leak_free").counts == {"unsafes": 438, "safe_unsafes": 554, "safe_safes": 554}
    (folder / "train.json").unlink()
    with pytest.raises(errors.UserError, match=r"train\.json: no such file$"):
        vlguard.LEAK_FREE.load(settings(folder), "unsafes")


def test_limit_takes_the_first_of_each_subset(folder):
    items = benchmark.select(vlguard.BENCHMARK, settings(folder, limit=2, subsets=("safe_safes", "unsafes")))
    assert [(i.subset, i.id) for i in items] == [
        ("safe_safes", "v3"),
        ("safe_safes", "v4"),
        ("unsafes", "v0"),
        ("unsafes", "v1"),
    ]


@pytest.mark.parametrize(
    ("limit", "way"), [(0, "fewer than 4"), (4, "at most 3"), (442, "fewer than 4"), (500, "fewer than 4")]
)
def test_a_limit_never_hides_a_wrong_count(folder, limit, way):
    """A limit that takes nothing away leaves the published number in force; a smaller one needs so many questions."""
    with pytest.raises(
        errors.UserError, match=rf"3 questions in unsafes, vlguard has 442: get the published file, .*limit.*{way}"
    ):
        benchmark.select(vlguard.BENCHMARK, settings(folder, limit=limit))


@pytest.mark.parametrize(
    ("limit", "told"),
    [(0, (None, None, None)), (2, (2, 2, 2)), (3, (None, 3, 3)), (4, (None, None, None)), (500, (None, None, None))],
)
def test_first_n_is_told_only_where_questions_are_left_out(folder, limit, told):
    """Three unsafe records and four safe ones, without a published number."""
    asked = settings(folder, limit=limit)
    assert tuple(benchmark.first_n(vlguard.LIKE_VLGUARD, asked).values()) == told
    assert len(benchmark.select(vlguard.LIKE_VLGUARD, asked)) == sum(min(n, limit or n) for n in (3, 4, 4))


@pytest.mark.parametrize(
    ("first", "second", "id_"), [("x", "x", "x"), (7, "7", "7"), ("2", None, "2"), ("2", ..., "2")]
)
@pytest.mark.parametrize("name", ["vlguard_like", "vlguard", "vlguard_leak_free"])
def test_an_id_that_comes_twice(folder, name, first, second, id_):
    """Between records of any kind; a record without an id is called by its position."""
    values = json.loads((folder / "test.json").read_text())
    (folder / "train.json").write_text(json.dumps(values[:1]))
    for value, given in ((values[0], first), (values[2], second)):
        value["id"] = given
        if given is ...:
            del value["id"]
    (folder / "test.json").write_text(json.dumps(values))
    message = rf"test\.json: record 2 \(id '{id_}'\): the id is that of record 0 \(id '{id_}'\) too; give each its own"
    with pytest.raises(errors.UserError, match=message):
        benchmark.select(registry.get(name), settings(folder, limit=1))


def test_missing_pictures_are_counted_and_named(folder):
    for name in ("0.jpg", "3.png"):
        (folder / "test/set" / name).unlink()
    with pytest.raises(
        errors.UserError, match=r"2 of 6 pictures are missing, first .*test/set/0\.jpg: .*gated.*prepare vlguard"
    ):
        benchmark.select(vlguard.BENCHMARK, settings(folder, limit=3))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"subsets": ("unsafe",)}, "no subset 'unsafe'; did you mean"),
        ({"limit": -1}, "limit cannot be negative"),
        ({"subsets": ("unsafes", "safe_safes", "unsafes")}, r"config\.benchmark\.subsets names unsafes twice"),
        ({"path": ""}, "config.benchmark.path is empty"),
        ({"path": "nowhere"}, "nowhere"),
    ],
)
def test_bad_settings(folder, changes, message):
    with pytest.raises(errors.UserError, match=message):
        benchmark.select(vlguard.LIKE_VLGUARD, settings(folder, **changes))


def test_no_subset_named_means_all_of_them(folder):
    everything = benchmark.select(vlguard.LIKE_VLGUARD, settings(folder))
    assert everything == benchmark.select(
        vlguard.LIKE_VLGUARD, settings(folder, subsets=tuple(vlguard.LIKE_VLGUARD.metrics))
    )


def test_references_are_the_records_own_answers(folder):
    values = {v["id"]: v["instr-resp"] for v in json.loads((folder / "test.json").read_text())}
    for item in benchmark.select(vlguard.LIKE_VLGUARD, settings(folder)):
        (pair,) = [p for p in values[item.id] if item.question in p.values()]
        assert item.reference == pair["response"]
    assert vlguard.BENCHMARK.answerable == vlguard.LIKE_VLGUARD.answerable == ("safe_safes",)


def test_controls_need_no_picture_file(folder):
    for picture in (folder / "test/set").iterdir():
        picture.unlink()
    items = benchmark.select(vlguard.LIKE_VLGUARD, settings(folder, pictures="white"))
    assert len(items) == 11 and all(len(item.pictures) == 1 for item in items)


def test_a_subset_without_questions(folder):
    values = [v for v in json.loads((folder / "test.json").read_text()) if v["safe"]]
    (folder / "test.json").write_text(json.dumps(values))
    with pytest.raises(errors.UserError, match="no question in subset unsafes"):
        benchmark.select(vlguard.LIKE_VLGUARD, settings(folder))


def test_unknown_benchmark():
    with pytest.raises(errors.UserError, match="did you mean 'vlguard'"):
        registry.get("vlgard")


def test_a_drawn_limit_is_the_same_random_choice_for_every_model(folder):
    whole = {i.id for i in benchmark.select(vlguard.LIKE_VLGUARD, settings(folder, subsets=("safe_safes",)))}
    by_hash = sorted(whole, key=lambda id_: hashlib.sha256(id_.encode()).hexdigest())
    drawn = settings(folder, subsets=("safe_safes",), order="drawn", limit=2)
    assert [i.id for i in benchmark.select(vlguard.LIKE_VLGUARD, drawn)] == by_hash[:2]
    rest = dataclasses.replace(drawn, skip=2)
    assert [i.id for i in benchmark.select(vlguard.LIKE_VLGUARD, rest)] == by_hash[2:4]
    assert benchmark.first_n(vlguard.LIKE_VLGUARD, rest) == {"safe_safes": 2}


def test_skip_in_the_files_order(folder):
    skipped = settings(folder, subsets=("unsafes",), skip=1)
    assert [i.id for i in benchmark.select(vlguard.LIKE_VLGUARD, skipped)] == ["v1", "v2"]


@pytest.mark.parametrize(("skip", "limit", "left"), [(3, 0, 0), (2, 2, 1), (100, 1, 0)])
def test_a_part_that_is_not_there(folder, skip, limit, left):
    with pytest.raises(errors.UserError, match=f"skip={skip} leaves {left} of 3 questions in unsafes"):
        benchmark.select(vlguard.LIKE_VLGUARD, settings(folder, subsets=("unsafes",), skip=skip, limit=limit))


def test_a_part_is_of_the_published_file(folder):
    with pytest.raises(errors.UserError, match=r"3 questions in unsafes, vlguard has 442"):
        benchmark.select(vlguard.BENCHMARK, settings(folder, subsets=("unsafes",), order="drawn", limit=2))

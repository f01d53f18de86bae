"""VLGuard's test set: unsafe pictures, and safe pictures with an unsafe and with a safe question (paper section 3,
Table 9)."""

from __future__ import annotations

import dataclasses
import functools
import pathlib

from vlguard_jax import config as settings_lib
from vlguard_jax import errors
from vlguard_jax.data import vlguard
from vlguard_jax.safety.benchmarks import benchmark as benchmark_lib

SOURCE = benchmark_lib.Source(
    "https://huggingface.co/datasets/ys-zong/VLGuard",
    "none stated in its repository",
    "test.json and test.zip",
    gated=True,
)
ACCESS = (
    "the set is gated: accept its terms on https://huggingface.co/datasets/ys-zong/VLGuard, download and unpack"
    " test.zip and name the folder in config.benchmark.images, or rehearse with pictures drawn by `python -m"
    " vlguard_jax.prepare vlguard --stand_in_images`"
)


def load(settings: settings_lib.BenchmarkSettings, subset: str) -> list[benchmark_lib.Item]:
    """The questions of one subset. Pictures are in `settings.images`, by default in the folder `test` beside test.json.

    Raises:
      UserError: missing or broken test.json, or a duplicate id in it.
    """
    if not settings.path:
        raise errors.UserError("config.benchmark.path is empty: name VLGuard's test.json, or the folder that holds it")
    path = pathlib.Path(settings.path)
    file = path / "test.json" if path.is_dir() else path
    records = _read(file, file.stat().st_mtime_ns if file.is_file() else 0)
    folder = pathlib.Path(settings.images) if settings.images else (path if path.is_dir() else path.parent) / "test"
    stand_in = settings.stand_in or vlguard.is_stand_in(folder)
    return [
        benchmark_lib.Item(
            e.id,
            subset,
            e.question,
            (benchmark_lib.Picture(e.image, folder / e.image),),
            e.category,
            e.subcategory,
            stand_in,
            e.response,
        )
        for e in vlguard.eval_items(records, subset)
    ]


def load_leak_free(settings: settings_lib.BenchmarkSettings, subset: str) -> list[benchmark_lib.Item]:
    """The questions about pictures that are not in train.json, which is beside test.json.

    Raises:
      UserError: missing or broken test.json or train.json.
    """
    items = load(settings, subset)
    path = pathlib.Path(settings.path)
    trained_on = {item.image for item in vlguard.read_items(path if path.is_dir() else path.parent, "train")}
    return [item for item in items if trained_on.isdisjoint(picture.name for picture in item.pictures)]


@functools.lru_cache(maxsize=1)
def _read(file: pathlib.Path, changed_ns: int) -> tuple[vlguard.Item, ...]:
    """The records, read once for all subsets; `changed_ns` (the file's mtime) keeps the cache from going stale."""
    items = tuple(vlguard.read_items(file, "test"))
    benchmark_lib.check_ids((item.id, item.origin) for item in items)
    return items


BENCHMARK = benchmark_lib.Benchmark(
    name="vlguard",
    title="VLGuard's test set",
    metrics={"unsafes": "asr", "safe_unsafes": "asr", "safe_safes": "refusal_rate"},
    counts={subset: vlguard.subset_count(subset) for subset in vlguard.SUBSETS},
    load=load,
    source=SOURCE,
    access=ACCESS,
    columns={subset: subset for subset in vlguard.SUBSETS},
    answerable=("safe_safes",),
)
# Eight test pictures are also in the training set, four of them unsafe.
LEAK_FREE = dataclasses.replace(
    BENCHMARK,
    name="vlguard_leak_free",
    title="VLGuard's test set without the pictures of its training set",
    columns={},
    counts={"unsafes": 438, "safe_unsafes": 554, "safe_safes": 554},
    load=load_leak_free,
)
# The user's own records in VLGuard's file format, any number of them, under a name that nobody takes for VLGuard.
LIKE_VLGUARD = dataclasses.replace(
    BENCHMARK,
    name="vlguard_like",
    title="your own records in VLGuard's format",
    source=None,
    columns={},
    counts={},
    access="check config.benchmark.images, the folder that the records' paths start from",
)

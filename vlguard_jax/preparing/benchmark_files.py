"""`prepare BENCHMARK`: checks the published files, unpacks their pictures where they are inside tables, or writes
harmless stand-ins of the same layout."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
import os
import pathlib
import shlex

from rich import table

from vlguard_jax import config as settings_lib
from vlguard_jax import errors
from vlguard_jax import folders
from vlguard_jax import terminal
from vlguard_jax.safety import questions
from vlguard_jax.safety.benchmarks import benchmark as benchmark_lib
from vlguard_jax.safety.benchmarks import registry

CONFIGS = (
    "advbench",
    "alpaca_eval",
    "figstep",
    "mm_safetybench",
    "mossbench",
    "one_word",
    "siuo_mcq",
    "strongreject",
    "xstest",
)


def run(name: str, source: str, images: str, out: str, stand_in: bool) -> None:
    """Check the files of a benchmark, or write stand-ins, and say what is there.

    Args:
      name: of the benchmark.
      source: the published files; "" with `stand_in`.
      images: folder of the pictures; "" where they lie as published.
      out: folder to write; "" where nothing is written.
      stand_in: write harmless files instead of reading `source`.

    Raises:
      UserError: files or pictures are missing, damaged or of another number than published; or a flag is missing or too
        many. Nothing is written then.
    """
    benchmark = registry.get(name)
    _check_flags(benchmark, source, images, out, stand_in)
    if not (stand_in or benchmark.unpack):
        items = check(benchmark, pathlib.Path(source), images)
    else:
        with folders.new_folder(pathlib.Path(out)) as beside:
            _write(benchmark, pathlib.Path(source) if source else None, beside)
            items = check(benchmark, beside, images)
    _show(benchmark, items, out or source, images)


def check(benchmark: benchmark_lib.Benchmark, place: pathlib.Path, images: str = "") -> list[benchmark_lib.Item]:
    """The items of all subsets, counted, and each of their pictures decoded.

    Raises:
      UserError: see `run`.
    """
    settings = settings_lib.BenchmarkSettings(name=benchmark.name, path=str(place), images=images)
    items = benchmark_lib.select(benchmark, settings)
    if bad := benchmark_lib.unreadable(items):
        total, first = len({picture.path for item in items for picture in item.pictures}), min(bad)
        way = "" if benchmark.unpack else f"; or set {questions.SKIP_PICTURES}"
        raise errors.UserError(
            f"{len(bad)} of {total} pictures are not readable, first {first}: {bad[first]}; {benchmark.way}{way}"
        )
    return items


def _check_flags(benchmark: benchmark_lib.Benchmark, source: str, images: str, out: str, stand_in: bool) -> None:
    name = benchmark.name
    if stand_in == bool(source):
        raise errors.UserError(
            f"prepare {name}: give --source, the published files, or --stand_in, to rehearse without;"
            f" {benchmark.source.way if benchmark.source else benchmark.way}"
        )
    if source and not os.path.exists(source):
        raise errors.UserError(f"{source}: no such file or folder (--source); {benchmark.way}")
    writes = stand_in or benchmark.unpack is not None
    if writes and not out:
        raise errors.UserError(f"prepare {name}: give --out, the folder to write")
    if out and not writes:
        raise errors.UserError(f"prepare {name}: leave --out away; the published files are read where they are")
    if images and writes:
        raise errors.UserError(f"prepare {name}: leave --images away; it writes the pictures itself")
    if out and os.path.lexists(out) and not (os.path.isdir(out) and not os.listdir(out)):
        raise errors.UserError(f"{out} holds something already: remove it, or name another folder with --out")


def _write(benchmark: benchmark_lib.Benchmark, source: pathlib.Path | None, out: pathlib.Path) -> None:
    """What `evaluate` reads, made of the published files, or of stand-ins for them."""
    if source is not None:
        assert benchmark.unpack is not None
        benchmark.unpack(source, out)
        return
    assert benchmark.stand_in is not None
    if benchmark.unpack is None:
        benchmark.stand_in(out)
        return
    with folders.scratch(out, "stand_in") as published:
        benchmark.stand_in(published)
        benchmark.unpack(published, out)


def _show(benchmark: benchmark_lib.Benchmark, items: Sequence[benchmark_lib.Item], place: str, images: str) -> None:
    shown = table.Table(
        "subset", "measures", "questions", "published", "pictures", title=f"{benchmark.title} in {place}"
    )
    asked = Counter(item.subset for item in items)
    for subset, metric in benchmark.metrics.items():
        seen = {picture.path for item in items if item.subset == subset for picture in item.pictures}
        published = benchmark.counts.get(subset)
        numbers = (f"{asked[subset]:,}", f"{published:,}" if published else "-", f"{len(seen):,}" if seen else "none")
        shown.add_row(subset, metric.replace("_", " "), *numbers)
    terminal.console().print(shown)
    if benchmark.source is not None:
        terminal.say(f"From {benchmark.source.where}, licence: {benchmark.source.licence}.")
    if any(item.stand_in for item in items):
        terminal.say(
            "Questions or pictures are stand-ins: results made with them are marked stand_in and measure nothing."
        )
    config = next(known for known in CONFIGS if benchmark.name.startswith(known))
    name = "" if config == benchmark.name else f" --config.benchmark.name={benchmark.name}"
    pictures = f" --config.benchmark.images={shlex.quote(images)}" if images else ""
    terminal.say(
        f"Evaluate: python -m vlguard_jax.evaluate --config configs/eval/{config}.py --config.model.path=MODEL"
        f" --config.benchmark.path={shlex.quote(place)}{name}{pictures} --workdir runs/{benchmark.name}"
    )

"""Questions about several pictures: asked, recorded and paired picture by picture."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import pathlib

import numpy as np
import pytest

from tests.safety import stand
from vlguard_jax import errors
from vlguard_jax import types
from vlguard_jax.safety import results
from vlguard_jax.safety import run
from vlguard_jax.safety.benchmarks import registry


@pytest.fixture
def folder(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> pathlib.Path:
    """The small benchmark, where each question is about its own picture and the next one's, the first about three."""
    plain = registry.get("vlguard_like")

    def load(settings, subset):
        items = plain.load(settings, subset)
        shown = [one.pictures[0] for one in items]
        some = [tuple(shown[(i + k) % len(shown)] for k in range(2 + (i == 0))) for i in range(len(items))]
        return [dataclasses.replace(item, pictures=pictures) for item, pictures in zip(items, some, strict=True)]

    monkeypatch.setitem(registry.BENCHMARKS, "vlguard_like", dataclasses.replace(plain, load=load))
    return stand.write_benchmark(tmp_path / "bench")


def sha256_of(path: pathlib.Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_asked_and_recorded(folder: pathlib.Path, tmp_path: pathlib.Path) -> None:
    model, engine = stand.make_model(tmp_path, lambda _: "Fox.")
    rows = run.evaluate(stand.settings(folder), tmp_path / "run", model)
    counts = [len(prompt.pictures) for prompt in engine.asked]
    assert set(counts) == {2, 3}
    assert all(int(np.sum(p.ids == types.IMAGE_TOKEN)) == len(p.pictures) for p in engine.asked)
    lines = [json.loads(line) for line in (tmp_path / "run" / results.GENERATIONS).read_text().splitlines()]
    assert sorted(len(line["pictures"]) for line in lines) == sorted(counts)
    for line in lines:
        hashes = {picture["path"]: sha256_of(folder / "test" / picture["path"]) for picture in line["pictures"]}
        assert {picture["path"]: picture["sha256"] for picture in line["pictures"]} == hashes
    assert sum(sum(row.n_by_pictures[2:]) for row in rows) == len(counts)


@pytest.mark.parametrize("shown", ["white", "none"])
def test_controls(folder: pathlib.Path, tmp_path: pathlib.Path, shown: str) -> None:
    model, engine = stand.make_model(tmp_path, lambda _: "Fox.")
    settings = stand.settings(folder)
    settings = dataclasses.replace(settings, benchmark=dataclasses.replace(settings.benchmark, pictures=shown))
    run.evaluate(settings, tmp_path / "run", model)
    assert {len(prompt.pictures) for prompt in engine.asked} == ({0} if shown == "none" else {2, 3})


def test_another_picture_is_another_question(folder: pathlib.Path, tmp_path: pathlib.Path) -> None:
    """The second picture counts as much as the first, for pairing and for what is kept."""
    model, _ = stand.make_model(tmp_path, lambda _: "Fox.")
    settings = stand.settings(folder)
    run.evaluate(settings, tmp_path / "before", model)
    paired = dataclasses.replace(settings, baseline=str(tmp_path / "before"))
    rows = run.evaluate(paired, tmp_path / "after", model)
    assert all(row.vs_baseline is not None and row.vs_baseline.diff == 0 for row in rows)
    second = registry.get("vlguard_like").load(settings.benchmark, "unsafes")[1].pictures[1].path
    second.write_bytes(second.read_bytes() + b"\0")
    with pytest.raises(errors.UserError, match="was asked with another picture"):
        run.evaluate(paired, tmp_path / "third", model)


def test_a_missing_second_picture_is_told(folder: pathlib.Path, tmp_path: pathlib.Path) -> None:
    model, engine = stand.make_model(tmp_path, lambda _: "Fox.")
    settings = stand.settings(folder)
    missing = registry.get("vlguard_like").load(settings.benchmark, "safe_safes")[-1].pictures[1].path
    missing.unlink()
    with pytest.raises(errors.UserError, match=rf"1 of \d+ pictures are missing, first .*{missing.name}"):
        run.evaluate(settings, tmp_path / "run", model)
    assert not engine.asked

"""Each reader of `make faults` sees a fault that was put into what it tries."""

from __future__ import annotations

from collections.abc import Iterator
import contextlib
import pathlib
import random
from unittest import mock

import pytest

from tests.faults import __main__ as faults
from tests.faults import readers
from tests.faults import sandbox
from tests.faults import training
from vlguard_jax import errors
from vlguard_jax import escape
from vlguard_jax import folders
from vlguard_jax import workdir
from vlguard_jax.checkpoints import place
from vlguard_jax.checkpoints import store

SEED = 3


def outcomes(name: str, count: int, top: pathlib.Path) -> dict[str, str]:
    """The words that the first trials of a reader end in, each with the last that did."""
    ended = (faults.trial(readers.READERS[name], name, SEED, number, top) for number in range(count))
    return {outcome.word: f"{what}: {outcome.detail}" for what, outcome in ended}


@contextlib.contextmanager
def _anywhere(path: pathlib.Path, *, replace: bool = False, key: str = "") -> Iterator[pathlib.Path]:
    """Follows links, and writes into what is there."""
    path.mkdir(parents=True, exist_ok=True)
    yield path


def test_a_writer_that_follows_links_is_seen(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(folders, "new_folder", _anywhere)
    assert sandbox.WRONG in outcomes("places", 30, tmp_path)


@pytest.mark.more
def test_an_overwrite_that_deletes_what_is_not_ours_is_seen(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(place, "_foreign", lambda folder, known: "")
    assert sandbox.WRONG in outcomes("places", 60, tmp_path)


@pytest.mark.more
def test_a_run_in_the_folder_of_another_is_seen(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workdir, "check", lambda folder, settings, free=(): None)
    assert sandbox.WRONG in outcomes("places", 60, tmp_path)


def _resumed(count: int, top: pathlib.Path) -> dict[str, str]:
    """As `outcomes`, of resumed trainings, in this process: JAX has begun in it, and its children could not use it."""
    found = {}
    for number in range(count):
        (folder := top / str(number) / "in").mkdir(parents=True)
        readers.plant(folder.parent)
        trial = training.make(random.Random(f"training {SEED} {number}"), folder)
        try:
            word = sandbox.HARMLESS if trial.read() == trial.right else sandbox.WRONG
        except errors.UserError:
            word = sandbox.OVER_REFUSED if trial.must_read else sandbox.REFUSED
        found[word] = trial.what
    return found


@pytest.mark.more
def test_a_restore_that_ignores_the_record_is_seen(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store, "_describe", lambda value: mock.ANY)
    assert sandbox.WRONG in _resumed(25, tmp_path)


def test_a_restore_as_it_is_passes(tmp_path: pathlib.Path) -> None:
    found = _resumed(25, tmp_path)
    assert found.keys() <= set(sandbox.GOOD), found


ESCAPES = ["page", *(pytest.param(name, marks=pytest.mark.more) for name in ("_spelled", "markdown", "latex"))]


@pytest.mark.more
@pytest.mark.parametrize("name", ESCAPES)
def test_an_escape_that_passes_all_is_seen(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setattr(escape, name, lambda text: text)
    assert sandbox.WRONG in outcomes("shown", 60, tmp_path)


@pytest.mark.more
@pytest.mark.parametrize("name", ["shown", "places"])
def test_the_program_as_it_is_passes(tmp_path: pathlib.Path, name: str) -> None:
    found = outcomes(name, 40, tmp_path)
    assert found.keys() <= set(sandbox.GOOD), found

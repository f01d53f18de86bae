"""Folders of data that is not in the repository, named by environment variables; tests that need them skip without."""

from __future__ import annotations

import os
import pathlib

import pytest


def folder(variable: str, holds: str) -> pathlib.Path:
    """The folder that `variable` names. Skips the test where it is not set, fails it where it names no folder."""
    named = os.environ.get(variable)
    if not named:
        pytest.skip(f"${variable} is not set: it names the folder that holds {holds}")
    found = pathlib.Path(named)
    if not found.is_dir():
        pytest.fail(f"${variable} names {named}, which is not a folder")
    return found


def benchmarks() -> pathlib.Path:
    """The folder of published benchmarks, one folder each."""
    return folder("VLGUARD_BENCHMARKS", "the published benchmarks")

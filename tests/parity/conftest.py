"""Where the benchmarks' published files are; tests that need them skip without."""

from __future__ import annotations

import os
import pathlib

import pytest


@pytest.fixture(scope="session")
def benchmarks() -> pathlib.Path:
    """The folder of published benchmarks: xstest/xstest_prompts.csv and others."""
    named = os.environ.get("VLGUARD_BENCHMARKS")
    if not named:
        pytest.skip("$VLGUARD_BENCHMARKS is not set: it names the folder that holds the published benchmarks")
    folder = pathlib.Path(named)
    if not folder.is_dir():
        pytest.fail(f"$VLGUARD_BENCHMARKS names {named}, which is not a folder")
    return folder

"""Where the benchmarks' published files are; tests that need them skip without."""

from __future__ import annotations

import pathlib

import pytest

from tests import outside


@pytest.fixture(scope="session")
def benchmarks() -> pathlib.Path:
    """The folder of published benchmarks: xstest/xstest_prompts.csv and others."""
    return outside.benchmarks()

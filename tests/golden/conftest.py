"""Where the recorded results of the reference and VLGuard's own files are; tests that need them skip without."""

from __future__ import annotations

import pathlib

import pytest

from tests import outside


@pytest.fixture(scope="session")
def golden() -> pathlib.Path:
    """The folder of recorded reference results."""
    return outside.folder("VLGUARD_GOLDEN", "the recorded results of the reference")


@pytest.fixture(scope="session")
def metadata() -> pathlib.Path:
    """The folder of VLGuard's train.json and test.json."""
    return outside.folder("VLGUARD_METADATA", "VLGuard's train.json and test.json")

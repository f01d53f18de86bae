"""Where the recorded results of the reference and VLGuard's own files are; tests that need them skip without."""

from __future__ import annotations

import os
import pathlib

import pytest


def _folder(variable: str, holds: str) -> pathlib.Path:
    path = os.environ.get(variable)
    if not path:
        pytest.skip(f"${variable} is not set: it names the folder that holds {holds}")
    folder = pathlib.Path(path)
    if not folder.is_dir():
        pytest.fail(f"${variable} names {path}, which is not a folder")
    return folder


@pytest.fixture(scope="session")
def golden() -> pathlib.Path:
    """The folder of recorded reference results."""
    return _folder("VLGUARD_GOLDEN", "the recorded results of the reference")


@pytest.fixture(scope="session")
def metadata() -> pathlib.Path:
    """The folder of VLGuard's train.json and test.json."""
    return _folder("VLGUARD_METADATA", "VLGuard's train.json and test.json")

"""The versions that results and checkpoints carry."""

from __future__ import annotations

import jax
import numpy as np

import vlguard_jax
from vlguard_jax import versions


def test_versions_are_those_that_run() -> None:
    found = versions.installed()
    assert (found["vlguard_jax"], found["jax"], found["numpy"]) == (
        vlguard_jax.__version__,
        jax.__version__,
        np.__version__,
    )
    assert set(found) == {"vlguard_jax", *versions.LIBRARIES}

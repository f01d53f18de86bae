"""Marks of tests that ask a compiler which is not installed everywhere."""

import importlib.util

import pytest

from vlguard_jax.planning import topologies

needs_libtpu = pytest.mark.aot  # `make aot` installs it
needs_cuda = pytest.mark.skipif(
    not any(map(importlib.util.find_spec, topologies.CUDA_PLUGINS)),
    reason='needs the CUDA compiler: pip install "jax[cuda13]"',
)

"""Versions of this package and of the libraries that affect what it computes and writes."""

from __future__ import annotations

from importlib import metadata

import vlguard_jax

LIBRARIES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "grain", "numpy", "pillow", "sentencepiece")


def installed() -> dict[str, str]:
    """Name -> version; this package's is that of the running code, which may not be installed."""
    return {"vlguard_jax": vlguard_jax.__version__} | {name: metadata.version(name) for name in LIBRARIES}

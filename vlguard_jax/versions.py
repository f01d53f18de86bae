"""Versions of this package and of the libraries that affect what it computes and writes."""

from __future__ import annotations

from importlib import metadata
import shlex

import vlguard_jax

LIBRARIES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "grain", "numpy", "pillow", "sentencepiece")


def installed() -> dict[str, str]:
    """Name -> version; this package's is that of the running code, which may not be installed."""
    return {"vlguard_jax": vlguard_jax.__version__} | {name: metadata.version(name) for name in LIBRARIES}


def install(extra: str) -> str:
    """The command that installs an extra's packages by their own names, since this package may be on no index."""
    try:
        needed = metadata.requires("vlguard_jax") or []
    except metadata.PackageNotFoundError:
        needed = []
    parts = [one.replace('"', "'").partition(";") for one in needed]
    named = [shlex.quote(name.strip()) for name, _, marker in parts if f"extra == '{extra}'" in marker]
    return f"pip install {' '.join(named)}" if named else f"pip install -e '.[{extra}]' in the checkout"

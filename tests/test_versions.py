"""The versions that results and checkpoints carry."""

from __future__ import annotations

from importlib import metadata
import re
import tomllib

import jax
import numpy as np

from tests import source
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


def test_what_an_extra_needs_is_named_by_its_own_packages(monkeypatch):
    needed = [
        "numpy>=2.1",
        "wandb>=0.20; extra == 'track'",
        'jax[cuda13]; platform_system == "Linux" and extra == "cuda"',
    ]
    monkeypatch.setattr(metadata, "requires", lambda name: needed)
    assert versions.install("track") == "pip install 'wandb>=0.20'"
    assert versions.install("cuda") == "pip install 'jax[cuda13]'"

    def absent(name):
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "requires", absent)
    assert versions.install("track") == "pip install -e '.[track]' in the checkout"


def test_every_extra_that_a_message_names_is_one():
    extras = tomllib.loads((source.ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    files = [*(source.ROOT / "vlguard_jax").rglob("*.py"), *(source.ROOT / "docs").rglob("*.md")]
    text = "\n".join(path.read_text() for path in files)
    named = re.findall(r"versions\.install\('(\w+)'\)|\.\[(\w+)\]'", text)
    assert named and {one or other for one, other in named} <= set(extras)
    assert not re.search(r"vlguard_jax\[\w+\](?! @ )", text)  # on no index, so an address must follow

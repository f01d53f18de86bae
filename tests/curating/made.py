"""Runs of `curate` as the tests make them."""

from __future__ import annotations

import contextlib
import dataclasses
import pathlib
from typing import Any

from tests.curating import model as model_lib
from tests.curating import world as world_lib
from vlguard_jax.curating import run
from vlguard_jax.curating import settings as settings_lib

TRIES = 3


@contextlib.contextmanager
def _silent(done: int, total: int, slots: int):
    yield lambda tokens: None


def config(world: world_lib.World, url: str, **sections: dict[str, Any]) -> settings_lib.CurateConfig:
    """Settings for a world. sections: name of a section, or "top" -> its settings."""
    made = settings_lib.base_config()
    made.pictures.update(path=str(world.folder), against=(str(world.against),), stand_in=True)
    made.endpoint.update(base_url=url, model="seer", first_wait=0.01, **model_lib.PRICES)
    made.ask.tries = TRIES
    made.tfds = False
    for name, values in sections.items():
        (made if name == "top" else made[name]).update(values)
    return settings_lib.resolve(made)


@dataclasses.dataclass
class Run:
    """What a run gave, and what it said."""

    done: run.Done
    said: list[str]

    @property
    def dropped(self) -> dict[str, str]:
        """Name -> reason."""
        return {one.name: one.reason for one in self.done.made.dropped}


def curate(config_: settings_lib.CurateConfig, folder: pathlib.Path) -> Run:
    """Run it, in silence."""
    said: list[str] = []
    return Run(run.curate(config_, folder, say=said.append, progress=_silent), said)

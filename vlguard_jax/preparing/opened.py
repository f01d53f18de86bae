"""What a training config would train on, without reading weights."""

from __future__ import annotations

import dataclasses
import pathlib
import time

from rich import console as rich_console

from vlguard_jax import config
from vlguard_jax import errors
from vlguard_jax import progress
from vlguard_jax.checkpoints import hub
from vlguard_jax.checkpoints import outline
from vlguard_jax.data import cache as cache_lib
from vlguard_jax.data import mixtures
from vlguard_jax.training import conversations


@dataclasses.dataclass(frozen=True)
class Opened:
    """The mixture of a config. seconds: for all of it; counted: number of files whose records were counted now; the
    others' counts were in `cache`."""

    mixture: mixtures.Mixture
    seconds: float
    counted: int
    cache: pathlib.Path


def open_mixture(settings: config.TrainConfig, console: rich_console.Console) -> Opened:
    """Index everything that `settings` names, or find the index in the cache, with a progress bar on `console`.

    Raises:
      UserError: no model is named, or its config or tokenizer is missing, or as `conversations.mixture`.
    """
    began = time.perf_counter()
    m = settings.model
    if not m.path:
        raise errors.UserError(
            "config.model.path is empty: name a checkpoint folder or hub id, e.g. --config.model.path=FOLDER"
        )
    model = outline.read(
        hub.resolve(m.path), base=m.base, vision_tower=m.vision_tower, projector=m.projector, as_family=m.family
    )
    cache = cache_lib.folder(settings.data.cache)
    known = _indices(cache)
    with progress.reading(console) as tell:
        mixture = conversations.mixture(settings, model, tell)
    return Opened(mixture, time.perf_counter() - began, len(_indices(cache) - known), cache)


def _indices(cache: pathlib.Path) -> set[str]:
    """Names of the indices in the cache, one for each counted file."""
    return {path.name for path in (cache / "index").glob("*")}

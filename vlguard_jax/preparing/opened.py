"""What a training config would train on, found out without reading a weight."""

from __future__ import annotations

from collections.abc import Mapping
import dataclasses
import pathlib
import time
from typing import Any

from rich import console as rich_console

from vlguard_jax import config
from vlguard_jax import errors
from vlguard_jax import progress
from vlguard_jax.checkpoints import export
from vlguard_jax.checkpoints import export_record
from vlguard_jax.checkpoints import hub
from vlguard_jax.checkpoints import sources as checkpoint_sources
from vlguard_jax.checkpoints import vocabulary
from vlguard_jax.data import cache as cache_lib
from vlguard_jax.data import mixtures
from vlguard_jax.data import plan as plan_lib
from vlguard_jax.families import family
from vlguard_jax.families.chat import templates
from vlguard_jax.families.chat import tokenizer as tokenizer_lib


@dataclasses.dataclass(frozen=True)
class Opened:
    """The mixture of a config. seconds: for all of it; counted: files whose
    records were counted now, the others' counts were in `cache`."""

    mixture: mixtures.Mixture
    seconds: float
    counted: int
    cache: pathlib.Path


def open_mixture(settings: config.TrainConfig, console: rich_console.Console) -> Opened:
    """Index everything that `settings` names, or find the index in the cache. Shows a bar on `console` meanwhile.

    Raises:
      UserError: no model is named or it lacks config or tokenizer, or as `mixtures.build`.
    """
    began = time.perf_counter()
    model, folder, extras = _model(settings.model)
    words = tokenizer_lib.load_tokenizer(folder)
    template = templates.get_template(settings.model.template)
    cache = cache_lib.folder(settings.data.cache)
    known = _indices(cache)
    with progress.reading(console) as tell:
        mixture = mixtures.build(settings.data, words, template, model, settings.model.image_mode, tell)
    mixtures.check_lengths(mixture, vocabulary.context(extras))
    return Opened(mixture, time.perf_counter() - began, len(_indices(cache) - known), cache)


def plan(settings: config.TrainConfig, mixture: mixtures.Mixture, shards: int) -> plan_lib.BatchPlan:
    """The steps of the run on `shards` row shards (config.mesh data x fsdp), every one of them checked.

    Raises:
      UserError: as `plan.BatchPlan` and its `check`.
    """
    layout = plan_lib.Layout(rows=settings.run.rows, shards=shards)
    cache = cache_lib.folder(settings.data.cache)
    made = plan_lib.BatchPlan(mixture.index, settings.data, settings.seed, layout, settings.optimizer.epochs, cache)
    made.check(steps(settings, made))
    return made


def steps(settings: config.TrainConfig, made: plan_lib.BatchPlan) -> int:
    """How many steps the run makes."""
    return min(made.total_steps, settings.optimizer.max_steps or made.total_steps)


def _indices(cache: pathlib.Path) -> set[str]:
    """Names of the indices that lie in the cache; one for each file that was counted."""
    return {path.name for path in (cache / "index").glob("*")}


def _model(model: config.ModelSettings) -> tuple[family.Config, pathlib.Path, Mapping[str, Any]]:
    """(sizes, folder of the tokenizer, `Checkpoint.extras`) of a checkpoint of any layout."""
    if not model.path:
        raise errors.UserError(
            "config.model.path is empty: name a checkpoint folder or hub id, e.g. --config.model.path=FOLDER"
        )
    folder = hub.resolve(model.path)
    if export.is_export(folder):
        checkpoint_sources.refuse(folder, base=model.base, vision_tower=model.vision_tower, projector=model.projector)
        record = export_record.read(folder)
        return record.config, folder, record.extras
    found = checkpoint_sources.make_plan(
        folder, base=model.base, vision_tower=model.vision_tower, projector=model.projector
    )
    return found.config, found.tokenizer_folder, found.extras

"""The data of a training config: its conversations and the plan of its steps, for the run itself and for `prepare` and
`plan`, which look at them first. Reads no weights and imports no jax."""

from __future__ import annotations

from collections.abc import Callable
import dataclasses
from pathlib import Path

from vlguard_jax import config
from vlguard_jax import errors
from vlguard_jax.checkpoints import outline
from vlguard_jax.checkpoints import vocabulary
from vlguard_jax.data import cache as cache_lib
from vlguard_jax.data import mixtures
from vlguard_jax.data import plan as plan_lib
from vlguard_jax.data import selection
from vlguard_jax.families.chat import choice
from vlguard_jax.families.chat import jinja_template
from vlguard_jax.families.chat import spans
from vlguard_jax.families.chat import tokenizer as tokenizer_lib


def mixture(
    settings: config.TrainConfig,
    model: outline.Outline,
    progress: Callable[[int, int], None] | None = None,
    problems_file: Path | None = None,
) -> mixtures.Mixture:
    """Index everything that `settings` names to be trained on, or find the index in the cache; `progress` and
    `problems_file`: see data/mixtures.py.

    Raises:
      UserError: see data/mixtures.py; or the model has no tokenizer, or no chat template that it can be trained with.
    """
    held = settings.validation
    part = selection.Part(held.share, held.seed, held_out=False) if held.share else None
    return _mixture(settings, settings.data, model, progress, problems_file, part)


def held_out(
    settings: config.TrainConfig,
    model: outline.Outline,
    progress: Callable[[int, int], None] | None = None,
    problems_file: Path | None = None,
) -> mixtures.Mixture:
    """As `mixture`, the conversations of config.validation, which are not trained on.

    Raises:
      UserError: as `mixture`; or there is no supervised token in them, as where the share holds out none.
    """
    held, data = settings.validation, settings.data
    if held.sources:
        data = dataclasses.replace(data, sources=held.sources)
    part = selection.Part(held.share, held.seed, held_out=True) if held.share else None
    made = _mixture(settings, data, model, progress, problems_file, part)
    if not made.index.supervised.any():
        way = (
            f"config.validation.share={held.share} holds out {len(made.index)} conversations; raise it, or take another"
            " config.validation.seed"
            if held.share
            else "look at the answers in config.validation.sources"
        )
        raise errors.UserError(f"config.validation: no supervised token to compute a loss on: {way}")
    return made


def held_out_plan(settings: config.TrainConfig, found: mixtures.Mixture, shards: int) -> plan_lib.BatchPlan:
    """All of `held_out` once, in one shape: its steps are sums of which only the total counts."""
    size = min(settings.data.batch_size, len(found.index))
    data = dataclasses.replace(
        settings.data,
        order="sequential",
        replay="",
        deal_window=0,
        shapes=1,
        batch_size=size,
        group_size=size,
        normalization="tokens",
        end_of_epoch="short",
        on_empty_group="zero",
    )
    layout = plan_lib.Layout(rows=settings.run.rows, shards=shards)
    return plan_lib.BatchPlan(found.index, data, settings.seed, layout, 1.0, cache_lib.folder(settings.data.cache))


def _mixture(
    settings: config.TrainConfig,
    data: config.DataSettings,
    model: outline.Outline,
    progress: Callable[[int, int], None] | None,
    problems_file: Path | None,
    part: selection.Part | None,
) -> mixtures.Mixture:
    words = tokenizer_lib.load_tokenizer(model.tokenizer_folder)
    m = settings.model
    template = choice.template(m.template, m.template_date, model.config, words)
    if isinstance(template, jinja_template.JinjaTemplate):
        spans.check(words, template)
    made = mixtures.build(data, words, template, model.config, m.image_mode, progress, problems_file, part)
    mixtures.check_lengths(made, vocabulary.context(model.extras))
    return made


def plan(settings: config.TrainConfig, found: mixtures.Mixture, shards: int) -> plan_lib.BatchPlan:
    """The steps of the run on `shards` row shards (config.mesh data x fsdp), all checked.

    Raises:
      UserError: as `plan.BatchPlan` and its `check`.
    """
    layout = plan_lib.Layout(rows=settings.run.rows, shards=shards)
    cache = cache_lib.folder(settings.data.cache)
    made = plan_lib.BatchPlan(found.index, settings.data, settings.seed, layout, settings.optimizer.epochs, cache)
    made.check(updates(settings, made))
    return made


def updates(settings: config.TrainConfig, made: plan_lib.BatchPlan) -> int:
    """How many updates the run makes."""
    return min(made.total_steps, settings.optimizer.max_steps or made.total_steps)

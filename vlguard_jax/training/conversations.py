"""The data of a training config: its conversations and the plan of its steps, for the run itself and for `prepare` and
`plan`, which look at them first. Reads no weights and imports no jax."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from vlguard_jax import config
from vlguard_jax.checkpoints import outline
from vlguard_jax.checkpoints import vocabulary
from vlguard_jax.data import cache as cache_lib
from vlguard_jax.data import mixtures
from vlguard_jax.data import plan as plan_lib
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
    """Index everything that `settings` names, or find the index in the cache; `progress` and `problems_file`: see
    data/mixtures.py.

    Raises:
      UserError: see data/mixtures.py; or the model has no tokenizer, or no chat template that it can be trained with.
    """
    words = tokenizer_lib.load_tokenizer(model.tokenizer_folder)
    m = settings.model
    template = choice.template(m.template, m.template_date, model.config, words)
    if isinstance(template, jinja_template.JinjaTemplate):
        spans.check(words, template)
    made = mixtures.build(settings.data, words, template, model.config, m.image_mode, progress, problems_file)
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

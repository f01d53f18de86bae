"""Evaluates a checkpoint folder: loads it, builds its engine and hands both to run.py, which asks and judges."""

from __future__ import annotations

import functools
from pathlib import Path

import jax

from vlguard_jax import config as settings_lib
from vlguard_jax import progress
from vlguard_jax import workdir
from vlguard_jax.checkpoints import checkpoint as checkpoint_lib
from vlguard_jax.checkpoints import gate
from vlguard_jax.checkpoints import hub
from vlguard_jax.checkpoints import load
from vlguard_jax.checkpoints import outline
from vlguard_jax.checkpoints import vocabulary
from vlguard_jax.families import table
from vlguard_jax.families.chat import choice
from vlguard_jax.families.chat import templates
from vlguard_jax.families.chat import tokenizer as tokenizer_lib
from vlguard_jax.generation import engine
from vlguard_jax.parallel import processes
from vlguard_jax.safety import judging
from vlguard_jax.safety import model as model_lib
from vlguard_jax.safety import reader
from vlguard_jax.safety import run
from vlguard_jax.safety import summary


def named(path: str) -> str:
    """A model's name in tables: the last part of its path; of a training's model that of its run."""
    parts = Path(path).parts
    if len(parts) > 1 and parts[-1] in (workdir.MODEL, workdir.BEST) and Path(path).is_dir():
        return parts[-2] if parts[-1] == workdir.MODEL else f"{parts[-2]} ({parts[-1]})"
    return Path(path).name


def as_model(
    checkpoint: checkpoint_lib.Checkpoint, config: settings_lib.EvalConfig, *, grid: bool = False
) -> model_lib.Model:
    """A loaded checkpoint with its engine, which is built when the first answer is needed.

    An answer ends where the model's files say, and at the token behind an answer in the chat template, or in those of a
    grid.
    """
    precision = settings_lib.on_backend(config.precision, jax.default_backend())
    tokenizer = vocabulary.answering(checkpoint)
    asked = choice.names(checkpoint.config, tokenizer) if grid else (config.model.template,)
    stop_ids = choice.ends(asked, config.model.template_date, checkpoint.config, tokenizer)
    made = functools.cache(functools.partial(engine.of_checkpoint, checkpoint, tokenizer, stop_ids, config, precision))
    return model_lib.Model(
        name=config.model_name or named(config.model.path),
        weights_sha256=checkpoint.weights_sha256,
        fingerprint=model_lib.fingerprint(checkpoint.weights_sha256, checkpoint.config, checkpoint.lora, stop_ids),
        tokenizer=tokenizer,
        sizes=checkpoint.config,
        dtype=precision,
        engine=made,
        context=vocabulary.context(checkpoint.extras),
        release=made.cache_clear,
    )


def _check_asking(config: settings_lib.EvalConfig, found: outline.Outline) -> None:
    """Raise UserError where the model has no such image mode or chat template."""
    m = config.model
    table.image_mode(found.config, m.image_mode)
    choice.template(m.template, m.template_date, found.config, tokenizer_lib.load_tokenizer(found.tokenizer_folder))


def loaded(config: settings_lib.EvalConfig) -> checkpoint_lib.Checkpoint:
    """The checkpoint that `config.model` names, its arrays still in their files.

    Raises:
      UserError: as `load.load`; or it has no such image mode or chat template.
    """
    m = config.model
    parts = {"base": m.base, "vision_tower": m.vision_tower, "projector": m.projector, "as_family": m.family}
    _check_asking(config, outline.read(hub.resolve(m.path), **parts))  # before the weights
    return load.opened(m.path, base=m.base, vision_tower=m.vision_tower, projector=m.projector, as_family=m.family)


def evaluate(
    config: settings_lib.EvalConfig, folder: Path, *, grid: bool = False, quiet: bool = False
) -> list[summary.Row]:
    """Load the model that `config` names, evaluate it into `folder`, return the rows of summary.json.

    Args:
      grid: evaluate every template with every image mode, each in a folder below `folder`.
      quiet: no progress bar.

    Raises:
      UserError: as `loaded`, `run.check` and `run.evaluate`.
    """
    team = processes.Team()
    processes.agree(workdir.plain(config))
    with processes.hold(folder):
        early = not grid and config.model.template in templates.TEMPLATES  # else it depends on the model
        with processes.together():
            run.check_names(config)
            readers = reader.readers(config)
        if early:
            team.from_first(lambda: run.check_baseline(config, folder, readers=readers))
        team.from_first(lambda: run.check_ready(config))
        with processes.together():
            run.check(config)
            checkpoint = loaded(config)
        config = run.told(config, checkpoint.extras, team.say)
        if line := gate.told(checkpoint):
            team.say(line)
        model = as_model(checkpoint, config, grid=grid)
        if grid:  # its parts depend on the model's image modes
            team.from_first(lambda: run.check_baseline(config, folder, model, readers=readers))
        if config.precision.compute != model.dtype:
            team.say(f"config.precision.compute={config.precision.compute}: computing in {model.dtype} on this machine")
        if not grid:
            team.say(choice.told(model.template(config.model)))
        how = run.evaluate_grid if grid else run.evaluate
        bar, judged = (run.silent, judging.silent) if quiet else (progress.answers, progress.verdicts)
        return how(config, folder, model, readers=readers, say=team.say, progress=bar, judged=judged, team=team)

r"""Asks a model a benchmark's questions, judges the answers and prints a table; resumes where it stopped.

  python -m vlguard_jax.evaluate --config configs/eval/vlguard.py:released --config.model.path=DIR \
      --config.benchmark.path=VLGUARD_DIR --workdir runs/eval

Presets: `released` asks as VLGuard's script, `llava` as LLaVA trains; a published checkpoint each: configs/released.
Results: generations.jsonl, verdicts.jsonl and summary.json in --workdir. Several hosts: see parallel/joining.py.
"""

from __future__ import annotations

import functools
from pathlib import Path
import typing

from absl import flags
from ml_collections import config_flags

from vlguard_jax import cli
from vlguard_jax import config as settings_lib
from vlguard_jax import errors

if typing.TYPE_CHECKING:
    from vlguard_jax.checkpoints import checkpoint as checkpoint_lib
    from vlguard_jax.safety import asr
    from vlguard_jax.safety import model as model_lib

_CONFIG = config_flags.DEFINE_config_file("config", help_string="FILE[:preset], see configs/eval and configs/released")
_WORKDIR = flags.DEFINE_string("workdir", None, "folder of the result files; the same command again resumes there")
_GRID = flags.DEFINE_bool("grid", False, "run every template with every image mode, each in a folder below --workdir")


def as_model(checkpoint: checkpoint_lib.Checkpoint, config: settings_lib.EvalConfig) -> model_lib.Model:
    """A checkpoint in memory with an engine behind it, built when the first answer is wanted."""
    import jax

    from vlguard_jax.checkpoints import vocabulary
    from vlguard_jax.generation import engine
    from vlguard_jax.safety import model as model_lib

    precision = settings_lib.on_backend(config.precision, jax.default_backend())
    tokenizer = vocabulary.answering(checkpoint)
    return model_lib.Model(
        name=config.model_name or Path(config.model.path).name,
        weights_sha256=checkpoint.weights_sha256,
        fingerprint=model_lib.fingerprint(checkpoint.weights_sha256, checkpoint.config, checkpoint.lora),
        tokenizer=tokenizer,
        sizes=checkpoint.config,
        dtype=precision,
        engine=functools.cache(functools.partial(engine.of_checkpoint, checkpoint, tokenizer, config, precision)),
        context=vocabulary.context(checkpoint.extras),
    )


def run(config: settings_lib.EvalConfig, folder: Path, *, grid: bool = False, quiet: bool = False) -> list[asr.Row]:
    """Load the model, evaluate it into `folder`, return the rows of summary.json. quiet: no progress bar."""
    from vlguard_jax import progress
    from vlguard_jax import workdir
    from vlguard_jax.checkpoints import load
    from vlguard_jax.parallel import processes
    from vlguard_jax.safety import run as run_lib

    team = processes.Team()
    processes.agree(workdir.plain(config))
    with processes.hold(folder):
        team.from_first(lambda: run_lib.check_baseline(config, folder, grid=grid))
        with processes.together():
            run_lib.check(config)
            m = config.model
            loaded = load.load(m.path, base=m.base, vision_tower=m.vision_tower, projector=m.projector)
        config = run_lib.told(config, loaded.extras, team.say)
        model = as_model(loaded, config)
        if config.precision.compute != model.dtype:
            team.say(f"config.precision.compute={config.precision.compute}: computing in {model.dtype} on this machine")
        how, bar = run_lib.evaluate_grid if grid else run_lib.evaluate, run_lib.silent if quiet else progress.answers
        return how(config, folder, model, say=team.say, progress=bar, team=team)


def main(positional: list[str]) -> int:
    """Evaluate and print the table."""
    if positional:
        raise errors.UserError(f"{positional[0]!r} is not understood: evaluate takes flags only, see --help")
    if _CONFIG.value is None or not _WORKDIR.value:
        raise errors.UserError("give --config FILE (see configs/eval and configs/released) and --workdir DIR")
    from vlguard_jax.parallel import joining
    from vlguard_jax.parallel import processes
    from vlguard_jax.reporting import tables

    config = settings_lib.resolve(_CONFIG.value, settings_lib.EvalConfig)
    joining.start()
    rows = run(config, Path(_WORKDIR.value), grid=_GRID.value)
    if processes.Team().first:
        tables.show(rows)
    return errors.EXIT_OK


if __name__ == "__main__":
    cli.run(main, doc=__doc__)

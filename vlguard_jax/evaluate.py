r"""Asks a model a benchmark's questions, judges the answers and prints a table; resumes where it stopped.

  python -m vlguard_jax.evaluate --config vlguard:released --config.model.path=DIR \
      --config.benchmark.path=VLGUARD_DIR --workdir runs/eval

Judges are rules (keyword_vlguard_v1, keyword_repaired, exact_match_v1, choice_v1) or models of their own, which read
the answers when all are made, each on the devices that the evaluated model has left:

  --config.judges="('keyword_vlguard_v1','llama_guard_1')" --config.local_judges.llama_guard_1.path=JUDGE_DIR

llama_guard_1, llama_guard_3, harmbench and qwen3guard are there; others in a config file (judge_settings.py).
Presets: `released` asks like VLGuard's script, `llava` as LLaVA trains; published checkpoints: configs/released.
Results: generations.jsonl, verdicts.jsonl and summary.json in --workdir. Several hosts: see parallel/joining.py.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

from absl import flags

from vlguard_jax import cli
from vlguard_jax import config as settings_lib
from vlguard_jax import config_flag
from vlguard_jax import errors

_CONFIG = config_flag.define("evaluate", "NAME[:preset] or FILE[:preset], see configs/eval and configs/released")
_WORKDIR = flags.DEFINE_string("workdir", None, "folder of the result files; the same command again resumes there")
_GRID = flags.DEFINE_bool("grid", False, "run every template with every image mode, each in a folder below --workdir")
cli.define_output()
_PRINT = flags.DEFINE_bool(
    "print_config", False, "print every setting, where its value comes from and what it means; end"
)


def main(positional: list[str]) -> int:
    """Evaluate and print the table."""
    if positional:
        raise errors.UserError(f"{positional[0]!r} is not understood: evaluate takes flags only, see --help")
    workdir = _WORKDIR.value or ""
    if _CONFIG.value is None or not (workdir or _PRINT.value):
        raise errors.UserError("give --config FILE (see configs/eval and configs/released) and --workdir DIR")
    from vlguard_jax import reference
    from vlguard_jax import terminal
    from vlguard_jax.parallel import joining  # late: --help needs no jax
    from vlguard_jax.parallel import processes
    from vlguard_jax.parallel import programs
    from vlguard_jax.reporting import tables
    from vlguard_jax.safety import from_checkpoint

    config = settings_lib.resolve(_CONFIG.value, settings_lib.EvalConfig)
    if _PRINT.value:
        reference.show(config, flags.FLAGS["config"])
        return errors.EXIT_OK
    joining.start()
    programs.keep()
    rows = from_checkpoint.evaluate(config, Path(workdir), grid=_GRID.value)
    if processes.Team().first and not terminal.event("result", rows=[dataclasses.asdict(row) for row in rows]):
        tables.show(rows)
    return errors.EXIT_OK


if __name__ == "__main__":
    cli.run(main, doc=__doc__)

"""Fine-tune a vision-language model.

  python -m vlguard_jax.train --config llava_v15_7b_posthoc_lora --workdir runs/posthoc_lora

Everything about the run is in the config, a shipped one by its name or a file of your own; any setting can be changed
with --config.a.b=value. Started again with the same --workdir, the run resumes. SIGTERM saves and ends with exit code
75.

Several hosts: start the same command on each, with a --workdir that all of them see; see
vlguard_jax/parallel/joining.py.
"""

from __future__ import annotations

from absl import flags

from vlguard_jax import cli
from vlguard_jax import config
from vlguard_jax import config_flag
from vlguard_jax import errors
from vlguard_jax import stopping

CONFIG = config_flag.define("train", "a config by name or file, with an argument: NAME:argument")
WORKDIR = flags.DEFINE_string(
    "workdir", None, "folder of the run: metrics, checkpoints and the tuned model; resumed if it exists"
)
cli.define_output()
_PRINT = flags.DEFINE_bool(
    "print_config", False, "print every setting, where its value comes from and what it means; end"
)


def main(positional: list[str]) -> int:
    """Run the training that the flags describe."""
    if positional:
        raise errors.UserError(f"unexpected argument {positional[0]!r}; settings are given as --config.name=value")
    workdir = WORKDIR.value or ""
    if CONFIG.value is None or not (workdir or _PRINT.value):
        raise errors.UserError("--config FILE and --workdir DIR are needed; see --help")
    settings = config.resolve(CONFIG.value, config.TrainConfig)
    if _PRINT.value:
        from vlguard_jax import reference

        reference.show(settings, flags.FLAGS["config"])
        return errors.EXIT_OK

    from vlguard_jax import terminal
    from vlguard_jax.parallel import joining  # late: --help needs no jax
    from vlguard_jax.parallel import programs
    from vlguard_jax.training import loop

    joining.start()
    programs.keep()
    result = loop.train(settings, workdir)
    model = None if result.model_path is None else str(result.model_path)
    terminal.event("result", step=result.step, finished=result.finished, model=model, metrics=result.metrics)
    if result.finished:
        return errors.EXIT_OK
    terminal.say(f"stopped after update {result.step}; start the same command again to go on")
    stopping.leave()
    return errors.EXIT_RESTART


if __name__ == "__main__":
    cli.run(main)

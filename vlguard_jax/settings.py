"""Every setting of the configs with its default, what is allowed and what it means.

  python -m vlguard_jax.settings                          # all of a training
  python -m vlguard_jax.settings learning rate            # those that speak of both words
  python -m vlguard_jax.settings picture --of evaluate    # of an evaluation

A run's own values, and where each came from: `train` or `evaluate` with --print_config.
"""

from __future__ import annotations

from absl import flags

from vlguard_jax import cli
from vlguard_jax import errors

_OF = flags.DEFINE_enum("of", "train", ["train", "evaluate", "curate", "clean"], "command whose config it is")


def main(words: list[str]) -> int:
    """Print the settings that hold all words."""
    from vlguard_jax import reference

    found = reference.matching(reference.settings(_kind()), words)
    if not found:
        raise errors.UserError(
            f"no setting of {_OF.value} speaks of {' and '.join(map(errors.short, words))}; give fewer words, or --of"
            " another command"
        )
    reference.listed(found)
    return errors.EXIT_OK


def _kind() -> type:
    from vlguard_jax import config

    if _OF.value in ("train", "evaluate"):
        return {"train": config.TrainConfig, "evaluate": config.EvalConfig}[_OF.value]
    if _OF.value == "curate":
        from vlguard_jax.curating import settings as curating

        return curating.CurateConfig
    from vlguard_jax.preparing import cleaning

    return cleaning.CleanConfig


if __name__ == "__main__":
    cli.run(main)

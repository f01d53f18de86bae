r"""Makes a safety dataset in VLGuard's form out of your own pictures: a model labels and writes, people may review.

  python -m vlguard_jax.curate --config vlguard --workdir runs/curated \
      --config.pictures.path=PICTURES --config.endpoint.base_url=http://localhost:8000/v1 \
      --config.endpoint.model=MODEL --config.endpoint.input_price=0 --config.endpoint.output_price=0

Drops duplicates and near-duplicates, asks a vision model about every picture (behind an OpenAI-compatible endpoint, or
one of yours: --config.answerer=checkpoint), checks its replies and asks again, balances, splits, and writes
WORKDIR/dataset: VLGuard's own files, the TFDS form and a data card. WORKDIR/review holds pages for people; what they
save goes into WORKDIR/decisions, and the same command again honours it. Nothing is asked twice, and a run that was
stopped goes on.
"""

from __future__ import annotations

from pathlib import Path

from absl import flags

from vlguard_jax import cli
from vlguard_jax import config_flag
from vlguard_jax import errors

_CONFIG = config_flag.define("curate", "a config by name or file, see configs/curate")
_WORKDIR = flags.DEFINE_string("workdir", None, "folder of replies, dataset and pages; the same command goes on there")


def main(positional: list[str]) -> int:
    """Make the dataset and say what is in it."""
    if positional:
        raise errors.UserError(f"{positional[0]!r} is not understood: curate takes flags only, see --help")
    if _CONFIG.value is None or not _WORKDIR.value:
        raise errors.UserError("give --config FILE (see configs/curate) and --workdir DIR")
    from vlguard_jax.curating import run  # late: --help needs nothing of it
    from vlguard_jax.curating import settings

    run.show(run.curate(settings.resolve(_CONFIG.value), Path(_WORKDIR.value)))
    return errors.EXIT_OK


if __name__ == "__main__":
    cli.run(main, doc=__doc__)

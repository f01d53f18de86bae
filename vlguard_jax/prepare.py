"""Checks what you downloaded, says what is missing and how to get it, lays it out, and shows what a training run would read.

  python -m vlguard_jax.prepare vlguard --metadata DIR --out DIR [--images DIR] [--stand_in_images]
  python -m vlguard_jax.prepare index --config FILE [--config.x=y ...] [--shards N] [--json FILE] [--list_bad FILE]
  python -m vlguard_jax.prepare inspect --config FILE [--config.x=y ...] [--step N] [--rows K] [--shards N] [--out PAGE] [--harmless]

vlguard: --metadata holds VLGuard's train.json and test.json, --images its pictures: train.zip and test.zip, or unzipped train/ and test/.
  Writes the files that training and evaluation read and, in OUT/tfds, the same as ArrayRecord files for TensorFlow Datasets (TFDS).
  --stand_in_images draws one picture per record instead, to rehearse a run before access to the gated ones is granted.
index: counts what a training config would train on, for each source: conversations, tokens, lengths, what is cut or left out, and the
  batches that come of it on --shards devices. Needs the model's config and tokenizer, no weights. The counts are kept for later runs.
inspect: shows one step of that training, token by token: what the model is given, what it learns, with which weight, and what is padding.
  The terminal shows the text as it is. --out writes a page with the pictures, too; there, text and pictures are folded and blurred
  unless --harmless says that they may be shown.
"""

from __future__ import annotations

from absl import flags
from ml_collections import config_flags

from vlguard_jax import cli
from vlguard_jax import config
from vlguard_jax import errors

_METADATA = flags.DEFINE_string("metadata", "", "vlguard: folder that holds VLGuard's train.json and test.json")
_OUT = flags.DEFINE_string("out", "", "vlguard: folder to write, which appears when everything is there; inspect: page to write")
_IMAGES = flags.DEFINE_string("images", "", "vlguard: folder that holds the pictures, zipped or not; --metadata if not given")
_STAND_IN = flags.DEFINE_boolean("stand_in_images", False, "vlguard: draw a picture for every record instead of using the real ones")
_CONFIG = config_flags.DEFINE_config_file("config", help_string="index, inspect: config file of a training, FILE or FILE:argument")
_SHARDS = flags.DEFINE_integer(
    "shards", 1, "index, inspect: devices that share the rows of a step (config.mesh data x fsdp)", lower_bound=1
)
_JSON = flags.DEFINE_string("json", "", "index: write the same figures to this file")
_LIST_BAD = flags.DEFINE_string("list_bad", "", "index: do not stop at the first bad record or picture, but list all of them in this file")
_STEP = flags.DEFINE_integer("step", 0, "inspect: the step to show, from 0")
_ROWS = flags.DEFINE_integer("rows", 4, "inspect: rows to show in full; 0: all", lower_bound=0)
_HARMLESS = flags.DEFINE_boolean("harmless", False, "inspect: the sources hold nothing harmful; fold and blur nothing in the page")

_PLANNED = ("config", "shards")
_TAKES = {
    "vlguard": ("metadata", "out", "images", "stand_in_images"),
    "index": (*_PLANNED, "json", "list_bad"),
    "inspect": (*_PLANNED, "out", "step", "rows", "harmless"),
}
_NEEDS = {"vlguard": ("metadata", "out"), "index": ("config",), "inspect": ("config",)}


def main(arguments: list[str]) -> int:
    """Run the sub-command that the first argument names."""
    if not arguments:
        print(__doc__)
        return errors.EXIT_OK
    name, *rest = arguments
    if name not in _TAKES:
        raise errors.UserError(f"prepare cannot do {name!r}{errors.nearest(name, _TAKES)}")
    if rest:
        raise errors.UserError(f"prepare {name} takes no further argument, but got {rest[0]!r}")
    given = {flag for flags_of in _TAKES.values() for flag in flags_of if flags.FLAGS[flag].present}
    for flag in _NEEDS[name]:
        if flag not in given or not flags.FLAGS[flag].value:
            raise errors.UserError(f"prepare {name} needs --{flag}")
    for flag in sorted(given.difference(_TAKES[name])):
        raise errors.UserError(f"prepare {name} takes no --{flag}; it takes --{', --'.join(_TAKES[name])}")
    {"vlguard": _vlguard, "index": _index, "inspect": _inspect}[name]()
    return errors.EXIT_OK


def _vlguard() -> None:
    from vlguard_jax.preparing import vlguard  # late, as below: --help needs none of it

    vlguard.run(_METADATA.value, _OUT.value, _IMAGES.value, _STAND_IN.value)


def _index() -> None:
    from vlguard_jax.preparing import index

    settings = config.resolve(_CONFIG.value, config.TrainConfig)
    index.run(settings, shards=_SHARDS.value, json_file=_JSON.value, bad_file=_LIST_BAD.value)


def _inspect() -> None:
    from vlguard_jax.preparing import inspect

    settings = config.resolve(_CONFIG.value, config.TrainConfig)
    shown = {"step": _STEP.value, "rows": _ROWS.value, "shards": _SHARDS.value}
    inspect.run(settings, **shown, out=_OUT.value, harmless=_HARMLESS.value)


if __name__ == "__main__":
    cli.run(main, doc=__doc__)

"""One checkpoint read in any layout and written in another."""

from __future__ import annotations

from collections.abc import Callable, Mapping
import os
import pathlib

from vlguard_jax import errors
from vlguard_jax import folders
from vlguard_jax import terminal
from vlguard_jax.checkpoints import checkpoint
from vlguard_jax.checkpoints import load
from vlguard_jax.checkpoints import lora
from vlguard_jax.checkpoints import place
from vlguard_jax.checkpoints import save
from vlguard_jax.checkpoints import save_adapters
from vlguard_jax.checkpoints import writing

WRITERS = {
    "orbax": save.save_orbax,
    "llava": save.save_llava,
    "hf": save.save_hf,
    "peft": save_adapters.save_peft,
    "peft-hf": save_adapters.save_peft_hf,
}


def convert(
    src: str,
    dst: str,
    to: str,
    dtype: writing.Dtype,
    *,
    parts: Mapping[str, str],
    overwrite: bool,
    further: Callable[[checkpoint.Checkpoint, str], Mapping[str, str]],
) -> pathlib.Path:
    """Write the checkpoint `src` in the layout `to`, one of WRITERS, and return its folder.

    parts: base, vision_tower, projector and as_family, as for `load.load`. further: makes {name: text} of files that
    are written, too, from the model as it was read and the name of the number format that is written.

    Raises:
      UserError: see `load.load`, `save.check`, `place.check_free` and the writers.
    """
    dst = os.path.expanduser(dst)  # as --src; the shell does not expand --dst=~/folder
    if dst.startswith("~"):
        raise errors.UserError(f"--dst={dst}: there is no such user; for a folder of that name give ./{dst}")
    made_of = [src, *(parts[name] for name in ("base", "vision_tower", "projector"))]
    place.check_free(dst, overwrite, made_of)  # before the long part
    before = folders.identity(dst)
    model = load.load(src, dtype=None, **parts)
    save.check(model, to)
    if "note" in model.extras:
        terminal.say(model.extras["note"])
    files = further(model, writing.dtype_name(model, dtype))
    if to not in save_adapters.LAYOUTS:
        model = lora.merge(model)
    if folders.identity(dst) != before:
        raise errors.UserError(f"{dst}: another process has written it meanwhile; what it wrote stays")
    WRITERS[to](model, dst, dtype, overwrite=overwrite, further=files)
    terminal.say(f"{dst}: written as {to}")
    return pathlib.Path(dst)

"""The families, each listed once, and their lookup by a model's sizes."""

from __future__ import annotations

import functools

from vlguard_jax import errors
from vlguard_jax.families import family as family_lib
from vlguard_jax.families import parameters
from vlguard_jax.families.blocks import configs
from vlguard_jax.families.llama import family as llama
from vlguard_jax.families.llava import family as llava
from vlguard_jax.families.llava_next import family as llava_next

AUTO = "auto"  # a setting that stands for the family's default
FAMILIES = (llama.FAMILY, llava.FAMILY, llava_next.FAMILY)
ASKING: dict[str, family_lib.Asking] = {name: way for one in FAMILIES for name, way in one.asking.items()}
PRESETS: dict[str, family_lib.Config] = {name: sizes for one in FAMILIES for name, sizes in one.presets.items()}


def of(config: family_lib.Config) -> family_lib.Family:
    """The family of a model of these sizes."""
    return next(family for family in FAMILIES if type(config) is family.config)


def named(name: str, where: str) -> family_lib.Family:
    """The family of that name.

    Raises:
      UserError: there is none; the nearest one is named, and `where`, the file.
    """
    for family in FAMILIES:
        if family.name == name:
            return family
    raise errors.UserError(f"{where}: model family {errors.short(name)} is unknown{errors.nearest(name, known())}")


def known() -> tuple[str, ...]:
    """The families' names."""
    return tuple(family.name for family in FAMILIES)


def image_mode(config: family_lib.Config, setting: str) -> str:
    """The image mode of a model under `config.model.image_mode`; "none" for a language model.

    Raises:
      UserError: its family has no such mode.
    """
    family = of(config)
    modes = family.pictures.modes if family.pictures else ()
    if setting == AUTO:
        return modes[0] if modes else "none"
    if modes and setting not in modes:
        ways = " or ".join(repr(mode) for mode in (*modes, "auto"))
        presets = f" (presets of evaluation: {', '.join(family.asking)})" if family.asking else ""
        raise errors.UserError(
            f"config.model.image_mode={setting!r} is not a mode of a {family.name} model; take {ways}{presets}"
        )
    return setting if modes else "none"


@functools.lru_cache(maxsize=64)
def parameters_of(config: family_lib.Config, lora: configs.LoraConfig | None = None) -> dict[str, parameters.Parameter]:
    """Every array of a model by its id."""
    return {one.id: one for one in of(config).parameters(config, lora)}

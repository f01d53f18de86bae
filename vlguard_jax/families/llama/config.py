"""Sizes of a Llama model."""

from __future__ import annotations

import dataclasses

from vlguard_jax import fields
from vlguard_jax.families import family
from vlguard_jax.families.blocks import stored


@dataclasses.dataclass(frozen=True)
class LlamaConfig(family.Config):
    """The decoder's sizes only."""


def from_record(found: fields.Fields) -> LlamaConfig:
    """Sizes as `dataclasses.asdict` stored them.

    Raises:
      UserError: an unknown key, or a value that no model can have.
    """
    stored.only(found, LlamaConfig)
    return LlamaConfig(stored.text(found.part("text")))

"""Sizes of a LLaVA-1.5 model."""

from __future__ import annotations

import dataclasses

from vlguard_jax import fields
from vlguard_jax.families import family
from vlguard_jax.families.blocks import configs
from vlguard_jax.families.blocks import stored


@dataclasses.dataclass(frozen=True)
class LlavaConfig(family.Config):
    """Decoder, CLIP tower and the projector between them, "mlp2x_gelu" or "linear"."""

    vision: configs.VisionConfig
    projector: str


def from_record(found: fields.Fields) -> LlavaConfig:
    """Sizes as `dataclasses.asdict` stored them.

    Raises:
      UserError: an unknown key, or a value that no model can have.
    """
    stored.only(found, LlavaConfig)
    text, vision = stored.text(found.part("text")), stored.vision(found.part("vision"))
    return LlavaConfig(text, vision, found.choice("projector", "mlp2x_gelu", "linear"))

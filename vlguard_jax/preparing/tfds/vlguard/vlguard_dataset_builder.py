"""VLGuard as a TensorFlow Datasets builder: records with their pictures, written and read as ArrayRecord without
TensorFlow."""

from __future__ import annotations

from collections.abc import Iterator
import hashlib
import pathlib
from typing import Any, ClassVar

from etils import epath
import tensorflow_datasets as tfds

from vlguard_jax.data import pictures
from vlguard_jax.data import vlguard
from vlguard_jax.data.tfds import features
from vlguard_jax.data.tfds import reader


class Builder(tfds.core.GeneratorBasedBuilder):
    """Records of train.json and test.json in file order, each with the bytes of its picture exactly as they were."""

    # TFDS 4.9.10 finds this file through importlib_resources, which neither it nor etils 1.15 installs.
    code_path = epath.Path(__file__)
    VERSION = tfds.core.Version(reader.VERSION)
    RELEASE_NOTES: ClassVar[dict[str, str]] = {
        "1.0.0": "First release: ys-zong/VLGuard's train.json and test.json as of January 2025."
    }
    MANUAL_DOWNLOAD_INSTRUCTIONS = """\
The pictures are gated. Accept the terms on https://huggingface.co/datasets/ys-zong/VLGuard, then lay these four files,
zipped or unpacked, into `manual_dir`: train.json, test.json, train.zip (or its folder train/), test.zip (or test/):

  hf download ys-zong/VLGuard train.json test.json train.zip test.zip --repo-type dataset --local-dir MANUAL_DIR

`python -m vlguard_jax.prepare vlguard` checks such a folder, counts what is in it and runs this builder; with
--stand_in_images it draws pictures to rehearse with.
"""

    def __init__(self, *, description: str = "", **options: Any):
        """description: of a set of the same form that is not VLGuard."""
        self._described = description
        if description:
            self.RELEASE_NOTES = {}  # type: ignore[misc] # those of the class are VLGuard's
        super().__init__(**options)

    def _info(self) -> tfds.core.DatasetInfo:
        common: dict[str, Any] = {
            "features": features.features(),
            # The seeded conversion to conversations draws per record in order, so the order is part of the data.
            "disable_shuffling": True,
            "metadata": tfds.core.MetadataDict(),
        }
        if self._described:
            return tfds.core.DatasetInfo(builder=self, description=self._described, **common)
        return self.dataset_info_from_configs(homepage="https://ys-zong.github.io/VLGuard/", **common)

    def _split_generators(
        self, dl_manager: tfds.download.DownloadManager
    ) -> dict[str, Iterator[tuple[int, dict[str, Any]]]]:
        folder = pathlib.Path(dl_manager.manual_dir)
        self.info.metadata["stand_in"] = vlguard.is_stand_in(folder)
        self.info.metadata["sha256"] = {
            s: hashlib.sha256((folder / f"{s}.json").read_bytes()).hexdigest() for s in vlguard.SPLITS
        }
        return {split: self._generate_examples(folder, split) for split in vlguard.SPLITS}

    def _generate_examples(self, folder: pathlib.Path, split: str) -> Iterator[tuple[int, dict[str, Any]]]:
        store = pictures.open_store(str(folder))
        for i, item in enumerate(vlguard.read_items(folder, split)):
            yield (
                i,
                {
                    "id": item.id,
                    "image": store.read(f"{split}/{item.image}", origin=item.origin),
                    "image/filename": item.image,
                    "safe": item.safe,
                    "harmful_category": item.category or "",
                    "harmful_subcategory": item.subcategory or "",
                    "instr-resp": [dict(zip(features.PAIR, pair, strict=True)) for pair in item.pairs],
                },
            )

"""The builder keeps to TFDS's conventions, and its dummy data is dummy."""

from __future__ import annotations

import importlib.util
import io
import pathlib
import re
import subprocess
import sys
import zipfile

from PIL import Image
from PIL import ImageChops
from PIL import ImageStat
import pytest

from tests import source
from vlguard_jax.data import vlguard
from vlguard_jax.preparing import stand_in_pictures

FOLDER = source.ROOT / "vlguard_jax" / "preparing" / "tfds" / "vlguard"


def test_tfds_own_test_case() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.preparing.tfds.conventions"], cwd=source.ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-4000:]
    with_tensorflow = (
        importlib.util.find_spec("tensorflow") is not None and importlib.util.find_spec("dill") is not None
    )
    name, number = ("VLGuardTest", 6) if with_tensorflow else ("VLGuardWithoutTensorFlowTest", 5)
    assert done.stdout.splitlines()[-1] == f"{name}: {number} tests"
    assert len(re.findall(r"^.*test_\w+ \.\.\. ok$", done.stderr, re.MULTILINE)) >= 4


def test_every_file_of_the_convention_is_there() -> None:
    names = {path.name for path in FOLDER.iterdir()} - {"__pycache__"}
    files = {
        "__init__.py",
        "CITATIONS.bib",
        "README.md",
        "TAGS.txt",
        "checksums.tsv",
        "dummy_data",
        "vlguard_dataset_builder.py",
    }
    assert names == files
    for line in (FOLDER / "checksums.tsv").read_text().splitlines():
        url, size, digest, name = line.split("\t")
        assert url.endswith(f"/{name}") and int(size) > 0 and re.fullmatch("[0-9a-f]{64}", digest)


@pytest.mark.parametrize("split", vlguard.SPLITS)
def test_dummy_data_is_made_up(split: str) -> None:
    folder = FOLDER / "dummy_data"
    assert vlguard.is_stand_in(folder)
    with zipfile.ZipFile(folder / f"{split}.zip") as file:
        names = set(file.namelist())
        for item in vlguard.read_items(folder, split):
            assert all(re.fullmatch(r"Made-up [\w ]+ \d[.?]", text) for _, *texts in item.pairs for text in texts)
            if f"{split}/{item.image}" in names:  # the first record of a picture is the one drawn
                names.remove(f"{split}/{item.image}")
                with Image.open(io.BytesIO(file.read(f"{split}/{item.image}"))) as picture:
                    difference = ImageChops.difference(picture.convert("RGB"), stand_in_pictures.draw(item))
                assert max(ImageStat.Stat(difference).mean) < 8, item.image  # JPEG loses a little
        assert not names
    assert sum(path.stat().st_size for path in pathlib.Path(folder).iterdir()) < 50_000

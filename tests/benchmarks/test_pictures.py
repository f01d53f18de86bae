"""The picture benchmark measures what it says it measures, in miniature."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys

from absl import flags
from absl.testing import flagsaver
import numpy as np
from PIL import Image
import pytest

from benchmarks import pictures as benchmark
from tests import source
from vlguard_jax.data import images
from vlguard_jax.data import pictures
from vlguard_jax.families.llava import pictures as llava_pictures

FAST = ("--count=2", "--seconds=0", "--size=28", "--cores=1")


def script(*arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(source.ROOT)}
    command = [sys.executable, "benchmarks/pictures.py", *arguments]
    return subprocess.run(command, cwd=source.ROOT, capture_output=True, text=True, env=environment)


@pytest.fixture(scope="module")
def found() -> dict:
    pytest.importorskip("skimage")
    done = script("--json", *FAST)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_one_object(found) -> None:
    assert (found["size"], found["mode"], found["cores"], found["bar"]) == (28, "pad", 1, 150)
    assert set(found["kinds"]) == {"640x480", "2048x1536"}
    for figures in found["kinds"].values():
        assert list(figures["pictures_per_second"]) == ["folder", "zip"]
        assert all(list(rates) == ["1", "2", "4"] for rates in figures["pictures_per_second"].values())
        assert all(rate > 0 for rates in figures["pictures_per_second"].values() for rate in rates.values())
        spent = figures["milliseconds"]
        assert list(spent) == list(benchmark.STAGES) and spent[figures["bottleneck"]] == max(spent.values()) > 0


def test_large_pictures_are_large_files(found) -> None:
    small, large = found["kinds"].values()
    assert large["kilobytes"] > 3 * small["kilobytes"] > 100


def test_table(found) -> None:
    text = benchmark.table(found)
    assert "28 x 28, mode pad, 1 cores (bar: 150 from 640 x 480)" in text
    for kind, figures in found["kinds"].items():
        assert (
            f"{figures['pictures_per_second']['zip']['4']:.1f}" in text
            and figures["bottleneck"] in text
            and kind in text
        )
    assert max(map(len, text.splitlines())) < 140


def test_the_stages_are_the_whole_of_loading(tmp_path) -> None:
    """Read, decode, square and copy give what `images.load` gives, so nothing is left out of the table."""
    pytest.importorskip("skimage")
    content = benchmark.photograph(3, 64, 48)
    (tmp_path / "a.jpg").write_bytes(content)
    with Image.open(io.BytesIO(content)) as file:
        assert (file.format, file.size, file.mode) == ("JPEG", (64, 48), "RGB")
    if not flags.FLAGS.is_parsed():
        flags.FLAGS.mark_as_parsed()
    with flagsaver.flagsaver(seconds=0.0, size=14):
        model = benchmark.model()
        picture = llava_pictures.pad(images.to_rgb(io.BytesIO(content), model, "pad"), 14, model.vision.image_mean)
        assert (images.load(content, model, "pad").arrays["images"] == np.asarray(picture)).all()
        assert all(v > 0 for v in benchmark.stages(pictures.open_store(str(tmp_path)), ["a.jpg"]).values())


def test_a_stray_argument() -> None:
    done = script("extra")
    assert (done.returncode, done.stderr) == (
        2,
        "error: pictures.py takes --size, --mode, --count, --seconds, --cores and --json; see --help\n",
    )

"""How many pictures per second are read and resized to the model's size, and where the time goes.

  python benchmarks/pictures.py

Draws JPEG files from scikit-image's photographs, with sensor noise so that they are as large as a camera's, of 640 x
480, like most of the visual-instruction mixture's pictures, and 2048 x 1536, and loads them from a folder and from a
zip file in 1, 2 and 4 threads. All files are in the page cache: a slow disk adds to this. Prints a table, or with
--json one JSON object.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent import futures
import dataclasses
import functools
import io
import json
import os
from pathlib import Path
import tempfile
import time
from typing import Any
import zipfile

from absl import flags
import numpy as np
from PIL import Image

from vlguard_jax import cli
from vlguard_jax import errors
from vlguard_jax.data import images
from vlguard_jax.data import pictures
from vlguard_jax.families.llava import config as llava_config
from vlguard_jax.families.llava import pictures as llava_pictures
from vlguard_jax.families.llava import presets
from vlguard_jax.ranges import Range

_JSON = flags.DEFINE_boolean("json", False, "print one JSON object in place of the table", allow_override=True)
_SIZE = cli.define_number("size", int, 336, Range(1, 4096), "side of the model's pictures")
_MODE = flags.DEFINE_enum("mode", "pad", llava_pictures.MODES, "how pictures are made square")
_COUNT = cli.define_number("count", int, 60, Range(1, 10**6), "different pictures of each kind")
_SECONDS = cli.define_number("seconds", float, 2.0, Range(0, 3600), "how long each figure is measured")
_CORES = cli.define_number("cores", int, 2, Range(0, 4096), "cores to use; 0: all there are")

BAR = 150  # pictures a second from 640 x 480 on two cores
KINDS = {"640x480": (640, 480), "2048x1536": (2048, 1536)}
PHOTOGRAPHS = ("astronaut", "chelsea", "coffee", "rocket")
THREADS = (1, 2, 4)
NOISE = 6  # standard deviation, out of 255
STAGES = ("read", "decode", "square and resize", "copy")

Figures = dict[str, Any]


def main(positional: list[str]) -> int:
    """Draw the pictures, measure, print."""
    if positional:
        raise errors.UserError("pictures.py takes --size, --mode, --count, --seconds, --cores and --json; see --help")
    cores = sorted(os.sched_getaffinity(0))[: _CORES.value or None]
    os.sched_setaffinity(0, cores)
    with tempfile.TemporaryDirectory() as folder:
        kinds = {kind: measure(Path(folder) / kind, *size) for kind, size in KINDS.items()}
    found = {"size": _SIZE.value, "mode": _MODE.value, "cores": len(cores), "bar": BAR, "kinds": kinds}
    print(json.dumps(found) if _JSON.value else table(found))
    return errors.EXIT_OK


def measure(folder: Path, width: int, height: int) -> Figures:
    """Pictures per second by store and threads, and the milliseconds of each stage in one thread."""
    names = [f"{i}.jpg" for i in range(_COUNT.value)]
    folder.mkdir(parents=True)
    archive = folder.with_suffix(".zip")
    with zipfile.ZipFile(archive, "w") as file:
        for i, name in enumerate(names):
            content = photograph(i, width, height)
            (folder / name).write_bytes(content)
            file.writestr(name, content)
    stores = {"folder": pictures.open_store(str(folder)), "zip": pictures.open_store(str(archive))}
    rates = {
        place: {str(n): rate(functools.partial(load, store), names, n) for n in THREADS}
        for place, store in stores.items()
    }
    spent = stages(stores["folder"], names)
    return {
        "kilobytes": round(sum((folder / name).stat().st_size for name in names) / len(names) / 1000),
        "pictures_per_second": rates,
        "milliseconds": spent,
        "bottleneck": max(spent, key=lambda stage: spent[stage]),
    }


def photograph(seed: int, width: int, height: int) -> bytes:
    """A JPEG of quality 90: a random piece of a photograph, scaled and with noise."""
    rng = np.random.default_rng(seed)
    whole = _photographs()[seed % len(PHOTOGRAPHS)]
    share = min(whole.width / width, whole.height / height) * rng.uniform(0.7, 1)
    left, top = rng.uniform(0, 1, 2) * (whole.width - share * width, whole.height - share * height)
    piece = whole.resize(
        (width, height), Image.Resampling.BICUBIC, (left, top, left + share * width, top + share * height)
    )
    noisy = np.asarray(piece) + rng.normal(0, NOISE, (height, width, 3))
    out = io.BytesIO()
    Image.fromarray(noisy.clip(0, 255).astype(np.uint8)).save(out, "JPEG", quality=90)
    return out.getvalue()


@functools.cache
def _photographs() -> list[Image.Image]:
    try:
        from skimage import data
    except ImportError as e:
        raise errors.UserError("the photographs come with scikit-image: pip install 'vlguard_jax[quickstart]'") from e
    return [Image.fromarray(getattr(data, name)()) for name in PHOTOGRAPHS]


def model() -> llava_config.LlavaConfig:
    """LLaVA-1.5 with pictures of --size."""
    published = presets.PRESETS["llava-v1.5-7b"]
    return dataclasses.replace(published, vision=dataclasses.replace(published.vision, image_size=_SIZE.value))


def load(store: pictures.Store, name: str) -> None:
    """Load one picture as the loader does."""
    images.load(store.read(name), model(), _MODE.value, name=name)


def rate(work: Callable[[str], None], names: Sequence[str], threads: int) -> float:
    """Names processed per second."""
    with futures.ThreadPoolExecutor(threads) as pool:
        list(pool.map(work, names[:threads]))
        done, start = 0, time.perf_counter()
        while not done or time.perf_counter() - start < _SECONDS.value:
            done += len(list(pool.map(work, names)))
        return round(done / (time.perf_counter() - start), 1)


def stages(store: pictures.Store, names: Sequence[str]) -> dict[str, float]:
    """Milliseconds per picture in each of STAGES."""
    mode, sizes = _MODE.value, model()
    mean = sizes.vision.image_mean
    square = functools.partial(llava_pictures.pad, mean=mean) if mode == "pad" else llava_pictures.crop
    spent = dict.fromkeys(STAGES, 0.0)
    rounds, begin = 0, time.perf_counter()
    while not rounds or time.perf_counter() - begin < _SECONDS.value:
        for name in names:
            times = [time.perf_counter()]
            content = store.read(name)
            times.append(time.perf_counter())
            picture = images.to_rgb(io.BytesIO(content), sizes, mode)
            times.append(time.perf_counter())
            picture = square(picture, size=_SIZE.value)
            times.append(time.perf_counter())
            np.asarray(picture)
            times.append(time.perf_counter())
            for stage, before, after in zip(STAGES, times, times[1:], strict=False):
                spent[stage] += after - before
        rounds += 1
    return {stage: round(seconds * 1000 / rounds / len(names), 3) for stage, seconds in spent.items()}


def table(found: Figures) -> str:
    """The figures as text."""
    lines = [
        f"Pictures a second at {found['size']} x {found['size']}, mode {found['mode']}, {found['cores']} cores"
        f" (bar: {BAR} from 640 x 480)",
        "",
    ]
    lines.append(
        f"{'JPEG':<12}{'kB':>6}  {'from':<8}" + "".join(f"{f'{n} thread' + 's' * (n > 1):>12}" for n in THREADS)
    )
    for kind, figures in found["kinds"].items():
        for place, rates in figures["pictures_per_second"].items():
            lines.append(
                f"{kind:<12}{figures['kilobytes']:>6}  {place:<8}" + "".join(f"{rates[str(n)]:>12.1f}" for n in THREADS)
            )
    lines += ["", f"{'ms a picture':<20}" + "".join(f"{stage:>19}" for stage in STAGES) + "   most of it"]
    for kind, figures in found["kinds"].items():
        spent = figures["milliseconds"]
        lines.append(
            f"{kind:<20}" + "".join(f"{spent[stage]:>19.2f}" for stage in STAGES) + f"   {figures['bottleneck']}"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    cli.run(main)

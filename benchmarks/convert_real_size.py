"""A random model of LLaVA-v1.5-7B's real sizes through every layout, and one question with a picture asked of it.

  python benchmarks/convert_real_size.py --dir=DIR [--size=tiny] [--only=convert|evaluate] [--json]

Prints, for each stage: seconds, GB/s of the written bytes, that as a share of the disk's own sequential speed, and the
peak memory of its process (the kernel's VmHWM: everything resident, libraries and mapped pages too; the page cache is
not in it). The disk's speed is measured beside it, with the same number of bytes or 4 GB: written until they are on the
disk, and read back without the page cache. The share is of the slower of the two.

After each stage every array is compared by its hash, and at the end every tensor of the last folder, byte by byte as
safetensors reads it, with those of the first; a stage's source is deleted once it is compared. 7B takes 30 GB of disk.
"""

from __future__ import annotations

from collections.abc import Iterator
import functools
import hashlib
import json
import math
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import time
from typing import Any

from absl import app
from absl import flags
import ml_dtypes
import numpy as np
from PIL import Image
from sentencepiece import sentencepiece_model_pb2

from vlguard_jax import trees
from vlguard_jax.checkpoints import checkpoint
from vlguard_jax.checkpoints import layouts
from vlguard_jax.checkpoints import lazy
from vlguard_jax.checkpoints import load
from vlguard_jax.checkpoints import save
from vlguard_jax.families import table
from vlguard_jax.families.llava import config as llava_config
from vlguard_jax.families.llava import presets
from vlguard_jax.quickstart import language
from vlguard_jax.quickstart import model as quickstart_model

BLOCK = 1 << 24
DRAWN = (1 << 24) + 43  # no multiple of a row
MOST = 4 * 10**9  # bytes of the disk's measurement
STAGES = (("start", "orbax"), ("orbax", "hf"), ("hf", "llava"))

_DIR = flags.DEFINE_string("dir", "", "an empty folder on the disk to measure; what is made there is deleted again")
_SIZE = flags.DEFINE_enum("size", "7b", ["7b", "tiny"], "of the model")
_ONLY = flags.DEFINE_enum("only", "", ["", "convert", "evaluate"], "a part of it")
_JSON = flags.DEFINE_bool("json", False, "one JSON object in place of the table")


@functools.cache
def _bits() -> np.ndarray:
    """Random small bf16 numbers, 2 ** -7 to 2 ** -6 of either sign, as their bits."""
    return (np.random.default_rng(0).integers(0, 1 << 16, DRAWN, np.uint16) & 0x807F) | 0x3C00


class Drawn:
    """A random bf16 array that is made when it is read, layer by layer: the same numbers, from another place of them in
    each."""

    def __init__(self, path: str, shape: tuple[int, ...], stacked: bool):
        self.shape, self.dtype = shape, np.dtype(ml_dtypes.bfloat16)
        self._seed = list(hashlib.sha256(path.encode()).digest())
        self._one = path.endswith("scale")
        self._layer = shape[stacked:]

    def __getitem__(self, key: Any) -> np.ndarray:
        if self._one:
            return np.ones(self._layer, self.dtype)
        start = int(np.random.default_rng([*self._seed, 0 if key is ... else key]).integers(DRAWN))
        count, drawn = math.prod(self._layer), _bits()
        whole = np.concatenate([drawn[start:], *([drawn] * (count // DRAWN + 1))])[:count]
        return whole.reshape(self._layer).view(self.dtype)


def make(folder: pathlib.Path) -> None:
    """Write the model as a folder of LLaVA's own layout, without the manifest that one from elsewhere has not."""
    with tempfile.TemporaryDirectory() as tokenizer:
        quickstart_model.train_tokenizer(pathlib.Path(tokenizer), language.sentences())
        if _SIZE.value == "7b":
            config = presets.PRESETS["llava-v1.5-7b"]
            fill(pathlib.Path(tokenizer), config.text.vocab_size - 1)  # and one that is added
        else:
            config = quickstart_model.sizes(quickstart_model.vocabulary_size(pathlib.Path(tokenizer)))
        assert isinstance(config, llava_config.LlavaConfig)
        known = table.parameters_of(config)
        shapes = layouts.tree_shapes(config)
        flat = {path: Drawn(path, shape, known[path].stacked) for path, shape in shapes.items()}
        model = checkpoint.Checkpoint(config, trees.unflatten(flat), tokenizer_folder=pathlib.Path(tokenizer))
        save.save_llava(model, folder)
    (folder / "manifest.json").unlink()


def fill(folder: pathlib.Path, pieces: int) -> None:
    """Add unused pieces to a tokenizer, up to so many; its added token comes after them."""
    path, config = folder / "tokenizer.model", folder / "tokenizer_config.json"
    model = sentencepiece_model_pb2.ModelProto.FromString(path.read_bytes())  # type: ignore[attr-defined]
    for i in range(len(model.pieces), pieces):
        model.pieces.add(piece=f"<filler {i}>", score=-1e6 - i)
    path.write_bytes(model.SerializeToString())
    said = json.loads(config.read_text())
    said["added_tokens_decoder"] = dict(zip([str(pieces)], said["added_tokens_decoder"].values(), strict=True))
    config.write_text(json.dumps(said))


def disk(folder: pathlib.Path, size: int) -> tuple[float, float]:
    """GB/s of sequential writing and reading of `size` bytes."""
    path, block = folder / "disk", np.random.default_rng(0).bytes(BLOCK)
    began = time.perf_counter()
    with path.open("wb") as file:
        for _ in range(size // BLOCK):
            file.write(block)
        os.fsync(file.fileno())
    written = time.perf_counter() - began
    with path.open("rb") as file:
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        began = time.perf_counter()
        while file.read(BLOCK):
            pass
        read = time.perf_counter() - began
    path.unlink()
    done = size // BLOCK * BLOCK / 1e9
    return done / written, done / read


def timed(*command: str) -> tuple[float, float]:
    """(seconds, peak GB) of a process; its output is shown only if it fails."""
    began, peak = time.perf_counter(), 0
    environment = {**os.environ, "JAX_PLATFORMS": "cpu", "PYTHONPATH": str(pathlib.Path(__file__).parent.parent)}
    with tempfile.TemporaryFile() as said:
        process = subprocess.Popen([sys.executable, *command], stdout=said, stderr=subprocess.STDOUT, env=environment)
        while process.poll() is None:
            peak = max(peak, _resident(process.pid))
            time.sleep(0.02)
        if process.returncode:
            said.seek(0)
            raise SystemExit(f"{' '.join(command)} ended with {process.returncode}:\n{said.read().decode()}")
    return time.perf_counter() - began, peak / 1e9


def _resident(pid: int) -> int:
    """The most bytes that a process has had in memory so far; `getrusage` would count its parent's, too."""
    try:
        lines = pathlib.Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:  # it has ended
        return 0
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM")), 0)


def digests(folder: pathlib.Path) -> dict[str, str]:
    """The hash of every array of a checkpoint."""
    model = load.opened(folder, hashed=False)
    known = table.parameters_of(model.config)
    flat: dict[str, lazy.Leaf] = trees.flatten(model.params)
    return {path: checkpoint.digest_lazily(path, value, known[path].stacked) for path, value in flat.items()}


def stored(folder: pathlib.Path) -> dict[str, str]:
    """The hash of every tensor of a folder's files, as safetensors reads it."""
    return dict(_stored(folder))


def _stored(folder: pathlib.Path) -> Iterator[tuple[str, str]]:
    import safetensors

    for path in sorted(folder.rglob("*.safetensors")):
        with safetensors.safe_open(path, "np") as file:
            for name in file.keys():  # noqa: SIM118 (not a mapping)
                value = np.ascontiguousarray(file.get_tensor(name))
                kind = f"{value.dtype} {value.shape}".encode()
                yield f"{path.parent.name}/{name}", hashlib.sha256(kind + value.tobytes()).hexdigest()


def _size(folder: pathlib.Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def convert(top: pathlib.Path) -> list[dict[str, Any]]:
    """Every stage; ends the program if an array or a tensor differs."""
    first = {name.split("/", 1)[1]: one for name, one in stored(top / "start").items()}
    expected = digests(top / "start")
    found = []
    for source, target in STAGES:
        size = _size(top / source)
        before = disk(top, max(BLOCK, min(size, MOST)))
        where = ("--src", str(top / source), "--dst", str(top / target))
        seconds, peak = timed("-m", "vlguard_jax.convert", *where, "--to", target)
        written = _size(top / target)
        if digests(top / target) != expected:
            raise SystemExit(f"{target}: another array than in {source}")
        shutil.rmtree(top / source)
        speed = written / 1e9 / seconds
        found.append(
            {
                "stage": f"{source} -> {target}",
                "gigabytes": written / 1e9,
                "seconds": seconds,
                "gb_per_second": speed,
                "disk_writes": before[0],
                "disk_reads": before[1],
                "share": speed / min(before),
                "peak_gb": peak,
            }
        )
    last = {name.split("/", 1)[1]: one for name, one in stored(top / "llava").items()}
    if last != first:
        raise SystemExit("the last folder holds other tensors than the first")
    return found


def evaluate(top: pathlib.Path, model: pathlib.Path) -> dict[str, Any]:
    """One question with a picture, answered in bf16."""
    data = top / "vlguard"
    (data / "test").mkdir(parents=True)
    Image.effect_noise((336, 336), 80).convert("RGB").save(data / "test/one.png")
    asked = [{"instruction": "What is in the picture?", "response": "Noise."}]
    one = {"id": "one", "image": "one.png", "safe": False, "instr-resp": asked}
    one |= {"harmful_category": "privacy", "harmful_subcategory": "personal data"}
    (data / "test.json").write_text(json.dumps([one]))
    seconds, peak = timed(
        *("-m", "vlguard_jax.evaluate", "--config=configs/eval/vlguard.py:llava", f"--config.model.path={model}"),
        *(f"--config.benchmark.path={data}", "--config.benchmark.limit=1", "--config.benchmark.subsets=('unsafes',)"),
        *("--config.precision.compute=bf16", "--config.decode.max_new_tokens=2", "--config.decode.batch_size=1"),
        f"--workdir={top / 'run'}",
    )
    lines = (top / "run/generations.jsonl").read_text().splitlines()
    return {"answers": len(lines), "seconds": seconds, "peak_gb": peak}


def main(argv: list[str]) -> None:
    """Measure and print."""
    if argv[1:] or not _DIR.value:
        raise app.UsageError("give --dir; takes flags only")
    top = pathlib.Path(_DIR.value).absolute()
    top.mkdir(parents=True, exist_ok=True)
    if any(top.iterdir()):
        raise app.UsageError(f"--dir={top} is not empty")
    os.chdir(pathlib.Path(__file__).parent.parent)
    try:
        make(top / "start")
        result: dict[str, Any] = {"size": _SIZE.value, "gigabytes": _size(top / "start") / 1e9}
        if _ONLY.value != "evaluate":
            result["convert"] = convert(top)
        if _ONLY.value != "convert":
            result["evaluate"] = evaluate(top, top / ("start" if _ONLY.value else "llava"))
    finally:
        shutil.rmtree(top, ignore_errors=True)
    show(result)


def show(result: dict[str, Any]) -> None:
    """Print the figures."""
    if _JSON.value:
        print(json.dumps(result))
        return
    print(f"{'stage':<16}{'GB':>8}{'s':>8}{'GB/s':>8}{'disk w':>8}{'disk r':>8}{'share':>8}{'peak GB':>9}")
    for one in result.get("convert", ()):
        values = (one[key] for key in ("gigabytes", "seconds", "gb_per_second", "disk_writes", "disk_reads"))
        print(f"{one['stage']:<16}" + "".join(f"{v:>8.2f}" for v in values), end="")
        print(f"{100 * one['share']:>7.0f}%{one['peak_gb']:>9.2f}")
    if "evaluate" in result:
        one = result["evaluate"]
        print(f"one question with a picture in bf16: {one['seconds']:.0f} s, peak {one['peak_gb']:.2f} GB")


if __name__ == "__main__":
    app.run(main)

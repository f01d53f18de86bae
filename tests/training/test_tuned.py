"""The tuned model is written from the mesh: the same files wherever its parameters lie, and nothing whole but one
tensor."""

from __future__ import annotations

from collections.abc import Iterator
import dataclasses
import errno
import pathlib
import tracemalloc
from typing import Any

import jax
import numpy as np
import pytest

from tests.checkpoints import made
from vlguard_jax import config
from vlguard_jax import trees
from vlguard_jax.checkpoints import checkpoint as checkpoint_lib
from vlguard_jax.checkpoints import conversion
from vlguard_jax.checkpoints import layouts
from vlguard_jax.checkpoints import lora as lora_lib
from vlguard_jax.checkpoints import safetensors_files
from vlguard_jax.families import functional
from vlguard_jax.families.blocks import configs
from vlguard_jax.families.llava import config as llava_config
from vlguard_jax.parallel import gather
from vlguard_jax.parallel import mesh as mesh_lib
from vlguard_jax.parallel import rules
from vlguard_jax.training import step as step_lib
from vlguard_jax.training import tuned

# 27 MB in fp32, of which one matrix is 0.8 MB, and a stack of them 5 MB.
TEXT = configs.TextConfig(768, 256, 6, 4, 4, 64, 768, 1e-5, 1e4)
VISION = dataclasses.replace(made.VISION, width=64, num_heads=2, mlp_width=96)
CONFIG = llava_config.LlavaConfig(TEXT, VISION, "mlp2x_gelu")
LORA = configs.LoraConfig(16, 32.0, 0.0)
MATRIX = 4 * 256 * 768
SLACK = 400_000  # bytes of Python's own


def model(lora: configs.LoraConfig | None) -> checkpoint_lib.Checkpoint:
    shapes, rng = layouts.tree_shapes(CONFIG, lora), np.random.default_rng(0)
    flat = {path: rng.normal(size=shape, scale=0.1).astype(np.float32) for path, shape in shapes.items()}
    base = checkpoint_lib.Base("base", "llava", "0" * 64)
    return checkpoint_lib.Checkpoint(CONFIG, trees.unflatten(flat), lora, pathlib.Path("no tokenizer"), base=base)


def settings(export: str) -> config.TrainConfig:
    return config.TrainConfig(run=config.RunSettings(export=export))


def mesh() -> jax.sharding.Mesh:
    return mesh_lib.build(config.MeshSettings(data=1, fsdp=4, tensor=2), jax.devices()[:8])


def place(start: checkpoint_lib.Checkpoint) -> dict[str, Any]:
    """The trained parameters as a training has them, as they were before it."""
    places = rules.shardings(start.config, start.lora, mesh())
    trained, where = (step_lib.split(tree, start.config, start.lora)[0] for tree in (start.params, places))
    return rules.place(trained, where, np.dtype(np.float32))


def write(start: checkpoint_lib.Checkpoint, path: pathlib.Path, export: str) -> None:
    said = tuned.write(settings(export), tuned.without_trained(start), place(start), path)
    assert said.startswith(f"wrote {path} ({export} layout")


def files(folder: pathlib.Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize(
    ("export", "rank"), [("llava", 0), ("hf", 0), ("llava", 16), ("hf", 16), ("peft", 16)], ids=str
)
def test_the_files_are_those_of_whole_arrays(tmp_path: pathlib.Path, export: str, rank: int) -> None:
    start = model(LORA if rank else None)
    write(start, tmp_path / "ours", export)
    whole = start if export == "peft" else lora_lib.merge(start)
    conversion.WRITERS[export](whole, tmp_path / "theirs", functional.DTYPES["bf16"])
    ours, theirs = files(tmp_path / "ours"), files(tmp_path / "theirs")
    assert ours.keys() == theirs.keys() and len(ours) > 2
    assert [name for name in ours if ours[name] != theirs[name]] == []


@pytest.mark.parametrize(("export", "rank"), [("hf", 0), ("llava", 16), ("peft", 16)], ids=str)
def test_one_tensor_is_whole_at_a_time(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, export: str, rank: int
) -> None:
    """On a device a block of it, beside what lay there before. On the host: it, what turning or merging takes, and the
    one before it, which a thread may still be writing."""
    start, blocks, seen = model(LORA if rank else None), gather._blocks, []
    placed = place(start)
    before = jax.live_arrays()  # kept, so that no other takes an id of theirs
    known = {id(array) for array in before}

    def largest_new() -> int:
        """Bytes on one device."""
        new = (shard.data for x in jax.live_arrays() if id(x) not in known for shard in x.addressable_shards[:1])
        return max(data.nbytes for data in new)

    def watched(*args) -> Iterator[tuple[gather.Rows, jax.Array]]:
        for found in blocks(*args):
            seen.append(largest_new())
            yield found
            del found

    monkeypatch.setattr(gather, "_blocks", watched)
    monkeypatch.setattr(gather, "BLOCK", MATRIX // 8)
    tuned.write(settings(export), tuned.without_trained(start), placed, tmp_path / "out")  # compiles
    tracemalloc.start()
    try:
        tuned.write(settings(export), tuned.without_trained(start), placed, tmp_path / "again")
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert len(seen) > 50 and max(seen) <= MATRIX // 8
    assert peak <= 3 * MATRIX + SLACK


def test_a_disk_that_is_full(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was exported before stays, and nothing is left beside it."""
    write(model(None), tmp_path / "out", "llava")
    before, data, written = files(tmp_path), safetensors_files._data, []

    def full(entry: safetensors_files.Entry) -> memoryview:
        written.append(entry)
        if len(written) > 5:
            raise OSError(errno.ENOSPC, "No space left on device")
        return data(entry)

    monkeypatch.setattr(safetensors_files, "_data", full)
    with pytest.raises(OSError, match="No space left") as caught:
        write(model(LORA), tmp_path / "out", "hf")
    assert caught.value.filename == str(tmp_path / "out") and files(tmp_path) == before


@pytest.mark.parametrize(
    "path", ["text.layers.mlp.up_proj.kernel", "text.layers.mlp.up_proj.lora_b", "projector.fc1.bias"]
)
def test_a_model_that_is_not_finite_is_not_written(tmp_path: pathlib.Path, path: str) -> None:
    start = model(LORA if "lora" in path else None)
    trees.flatten(start.params)[path][(1,) * trees.flatten(start.params)[path].ndim] = np.inf
    with pytest.raises(checkpoint_lib.NotFiniteError, match=f"{path.replace('lora_b', 'kernel')} holds (-?inf|nan)"):
        write(start, tmp_path / "out", "llava")
    assert not list(tmp_path.iterdir())


def test_other_processes_keep_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    start = model(LORA)
    kept = trees.flatten(tuned.without_trained(start).params)
    assert kept and not any(path.startswith("projector.") or ".lora_" in path for path in kept)
    monkeypatch.setattr(jax, "process_index", lambda: 1)
    assert tuned.without_trained(start).params == {}

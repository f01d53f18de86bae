"""Conversion tensor by tensor: the same bytes as from memory, in any order of layouts, and on after a kill."""

from __future__ import annotations

import hashlib
import json
import os
import pathlib
from typing import Any
from unittest import mock

import numpy as np
import orbax.checkpoint as ocp
import pytest

from tests.checkpoints import made
from tests.checkpoints import tiny
from vlguard_jax import errors
from vlguard_jax import trees
from vlguard_jax.checkpoints import arrays
from vlguard_jax.checkpoints import conversion
from vlguard_jax.checkpoints import export
from vlguard_jax.checkpoints import hub_hashes
from vlguard_jax.checkpoints import job as job_lib
from vlguard_jax.checkpoints import load
from vlguard_jax.checkpoints import safetensors_files
from vlguard_jax.checkpoints import save
from vlguard_jax.checkpoints import tensors

NO_PARTS = {"base": "", "vision_tower": "", "projector": "", "as_family": ""}


def convert(src: pathlib.Path, dst: pathlib.Path, to: str, dtype: str = "keep") -> list[str]:
    said: list[str] = []
    with mock.patch.object(conversion.terminal, "say", said.append):
        kind = tensors.FLOATS.get(dtype)
        conversion.convert(str(src), str(dst), to, kind, parts=NO_PARTS, overwrite=False, further=lambda *_: {})
    return said


@pytest.fixture
def start(tmp_path: pathlib.Path) -> pathlib.Path:
    save.save_llava(made.model(), tmp_path / "start", shard_bytes=4000)
    return tmp_path / "start"


def test_all_layouts_and_back(start: pathlib.Path, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No array is whole in memory but those of one layer; the last folder has the bytes of the first."""
    monkeypatch.setattr(arrays, "CHUNK", 64)
    monkeypatch.setattr(load.lazy, "whole", None)
    convert(start, tmp_path / "orbax", "orbax")
    convert(tmp_path / "orbax", tmp_path / "hf", "hf")
    said = convert(tmp_path / "hf", tmp_path / "llava", "llava")
    assert said[0].endswith("compared with its manifest.json") and "written as llava: " in said[-1]
    ends = [load.opened(folder).weights_sha256 for folder in (start, tmp_path / "orbax", tmp_path / "llava")]
    assert set(ends) == {made.model().weights_sha256}


def test_layers_are_chunks_that_orbax_reads(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(arrays, "CHUNK", 64)
    model = made.model()
    save.save_orbax(model, tmp_path / "m")
    found = ocp.PyTreeCheckpointer().metadata(tmp_path / "m/arrays").item_metadata.tree
    up_proj = found["params"]["text"]["layers"]["mlp"]["up_proj"]["kernel"]
    assert up_proj.shape == (2, 8, 12) and up_proj.storage.chunk_shape == (1, 1, 12)
    theirs = ocp.StandardCheckpointer().restore(tmp_path / "m/arrays")
    tiny.assert_same_arrays(trees.flatten(theirs["params"]), trees.flatten(model.params))
    tiny.assert_same_model(load.load(tmp_path / "m"), model)


def test_a_folder_that_orbax_wrote_is_read(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As written before layers were chunks: arrays that are one chunk each, compressed, and no manifest."""
    model = made.model()
    save.save_orbax(model, tmp_path / "m")
    (tmp_path / "m/manifest.json").unlink()
    with ocp.StandardCheckpointer() as writer:
        writer.save(tmp_path / "m/arrays", {"params": model.params}, force=True)
        writer.wait_until_finished()
    monkeypatch.setattr(arrays, "CHUNK", 64)
    tiny.assert_same_model(load.load(tmp_path / "m"), model)
    convert(tmp_path / "m", tmp_path / "hf", "hf")
    assert load.opened(tmp_path / "hf").weights_sha256 == model.weights_sha256


def test_arrays_without_a_manifest_are_compared(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save.save_orbax(made.model(), tmp_path / "m")
    (tmp_path / "m/manifest.json").unlink()
    value = made.model().params["text"]["norm"]["scale"] + 1
    arrays.write(tmp_path / "m/arrays", "params.text.norm.scale", value, stacked=False)
    for read in (load.load, load.opened):
        with pytest.raises(errors.UserError, match=r"array text\.norm\.scale is not what checkpoint\.json says"):
            read(tmp_path / "m")


def test_dtypes(start: pathlib.Path, tmp_path: pathlib.Path) -> None:
    convert(start, tmp_path / "orbax", "orbax", "bf16")
    convert(start, tmp_path / "hf", "hf", "bf16")
    convert(tmp_path / "orbax", tmp_path / "again", "hf")
    one, other = load.load(tmp_path / "hf"), load.load(tmp_path / "again")
    assert one.weights_sha256 == other.weights_sha256 and load.load(tmp_path / "orbax").base is None
    for path, value in trees.flatten(made.model().params).items():
        np.testing.assert_array_equal(trees.flatten(one.params)[path], value.astype("bfloat16"))


class Killed(BaseException):
    """As a signal."""


def _dying(monkeypatch: pytest.MonkeyPatch, where: Any, name: str, after: int) -> list[str]:
    """Let the call after so many of `where.name` end half-way."""
    real, calls = getattr(where, name), []

    def dying(*args: Any, **given: Any) -> Any:
        calls.append(str(args[0]) + str(args[1] if name == "write" else ""))
        if len(calls) == after + 1:
            real(*args, **given)
            if name == "save":
                args[0].write_bytes(args[0].read_bytes()[:-1])
            raise Killed
        return real(*args, **given)

    monkeypatch.setattr(where, name, dying)
    return calls


@pytest.mark.parametrize(
    ("to", "where", "name"),
    [("hf", safetensors_files, "save"), ("orbax", arrays, "write"), ("llava", safetensors_files, "save")],
)
def test_a_killed_conversion_goes_on(
    start: pathlib.Path, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, to: str, where: Any, name: str
) -> None:
    """What was whole is not written again, and what was half-written is; the end is the same."""
    shards = safetensors_files.shards
    monkeypatch.setattr(safetensors_files, "shards", lambda entries, _: shards(entries, 3000))
    convert(start, tmp_path / "once", to)
    calls = _dying(monkeypatch, where, name, 2)
    with pytest.raises(Killed):
        convert(start, tmp_path / "twice", to)
    assert not (tmp_path / "twice").exists() and len(list(tmp_path.glob(".twice.*.partial"))) == 1
    before, first = len(calls), set(calls[:-1])
    convert(start, tmp_path / "twice", to)
    assert len(first) == 2 and not first & set(calls[before:])
    assert not list(tmp_path.glob(".twice.*")) and not (tmp_path / "twice/.journal").exists()
    one, other = (load.opened(tmp_path / folder).weights_sha256 for folder in ("once", "twice"))
    assert one == other


@pytest.mark.parametrize("torn", [b'["model-0', b"\0\0\0", b'{"a": 1}\n', b'["a"]\n', b"3\n", b"\xff\n", b'["a", 1]\n'])
def test_a_journal_is_read_as_far_as_it_is_whole(tmp_path: pathlib.Path, torn: bytes) -> None:
    """A crash of the machine leaves what it likes at the end, and what is noted later must not stand behind it."""
    for name in "ab":
        job = job_lib.Job("key")
        job.begin(tmp_path)
        (tmp_path / name).write_text(name)
        job.add_file(tmp_path / name, hashlib.sha256(name.encode()).hexdigest())
        with (tmp_path / ".journal").open("ab") as file:
            file.write(torn)
    job = job_lib.Job("key")
    job.begin(tmp_path)
    assert job.done.keys() == {"a", "b"} and all(job.has(tmp_path / name) for name in "ab")


def test_orbax_writes_no_folder_whose_name_is_not_utf8(start: pathlib.Path, tmp_path: pathlib.Path) -> None:
    dst = tmp_path / os.fsdecode(b"a\xff")
    with pytest.raises(errors.UserError, match="its name is not UTF-8, and Orbax reads and writes no such folder"):
        convert(start, dst, "orbax")
    convert(start, dst, "hf")
    convert(start, tmp_path / "orbax", "orbax")
    (tmp_path / "orbax").rename(tmp_path / os.fsdecode(b"b\xff"))
    with pytest.raises(errors.UserError, match="its name is not UTF-8"):
        load.opened(tmp_path / os.fsdecode(b"b\xff"))


def test_another_command_does_not_go_on_with_it(
    start: pathlib.Path, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch, pytest.raises(Killed):
        _dying(patch, safetensors_files, "save", 0)
        convert(start, tmp_path / "twice", "hf")
    [left] = tmp_path.glob(".twice.*.partial")
    convert(start, tmp_path / "twice", "llava")
    assert not left.exists() and load.load(tmp_path / "twice").layout == "llava"


def test_a_failed_conversion_leaves_nothing(start: pathlib.Path, tmp_path: pathlib.Path) -> None:
    flat = trees.flatten(made.model().params)
    flat["text.norm.scale"] = flat["text.norm.scale"] * np.float32(1e30)
    save.save_llava(made.model(params=trees.unflatten(flat)), tmp_path / "large")
    with pytest.raises(errors.UserError, match="beyond the range of fp16"):
        convert(tmp_path / "large", tmp_path / "hf", "hf", "fp16")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["large", "start"]


def test_a_cloud_path_is_no_folder(start: pathlib.Path) -> None:
    with pytest.raises(errors.UserError, match="dst=gs://bucket/model: a folder of this machine is written"):
        conversion.convert(str(start), "gs://bucket/model", "hf", None, parts=NO_PARTS, overwrite=False, further=dict)


def test_without_a_manifest_it_is_said(start: pathlib.Path, tmp_path: pathlib.Path) -> None:
    (start / "manifest.json").unlink()
    assert "its structure can be checked, its content cannot" in convert(start, tmp_path / "hf", "hf")[0]


def test_hashes_of_the_hub(start: pathlib.Path, tmp_path: pathlib.Path) -> None:
    """As its cache has them: links to blobs named by sha256, or git's hash of small files; and as `local_dir` has."""
    (start / "manifest.json").unlink()
    snapshot, blobs = tmp_path / "models--a--b/snapshots/1", tmp_path / "models--a--b/blobs"
    blobs.mkdir(parents=True)
    for path in sorted(p for p in start.rglob("*") if p.is_file()):
        data, link = path.read_bytes(), snapshot / path.relative_to(start)
        git = hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()
        name = hashlib.sha256(data).hexdigest() if path.suffix == ".safetensors" else git
        (blobs / name).write_bytes(data)
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(blobs / name)
    assert "files are what the hub has" in convert(snapshot, tmp_path / "hf", "hf")[0]
    large = next(iter(snapshot.glob("*.safetensors"))).resolve()
    large.write_bytes(large.read_bytes()[:-1] + b"\x01")
    with pytest.raises(errors.UserError, match=r"safetensors: not what the hub has"):
        convert(snapshot, tmp_path / "again", "hf")
    records = start / ".cache/huggingface/download"
    records.mkdir(parents=True)
    (records / "config.json.metadata").write_text(f"{'0' * 40}\n{'1' * 40}\n1.0\n")
    with pytest.raises(errors.UserError, match=r"config\.json: not what the hub has \(111111111111"):
        hub_hashes.check(hub_hashes.of(start))


def test_a_record_of_its_base_without_reading_it_first(start: pathlib.Path, tmp_path: pathlib.Path) -> None:
    """The hash of the base is made while the arrays are written."""
    convert(start, tmp_path / "orbax", "orbax")
    base = json.loads((tmp_path / "orbax/checkpoint.json").read_text())["base"]
    assert base == {"name": str(start), "layout": "llava", "sha256": made.on("").sha256}
    assert export.opened(tmp_path / "orbax").base is not None

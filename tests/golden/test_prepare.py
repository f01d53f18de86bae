"""VLGuard's own files through `prepare`, with drawn pictures: counts, ArrayRecord form, conversations."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import pathlib
import shutil

import pytest

from tests import source
from vlguard_jax.data import vlguard
from vlguard_jax.data.tfds import reader
from vlguard_jax.preparing import vlguard_folder

CHECKSUMS = source.ROOT / "vlguard_jax" / "preparing" / "tfds" / "vlguard" / "checksums.tsv"


def published(file: pathlib.Path) -> bool:
    """Whether this is VLGuard's file, not another of its form."""
    sums = {name: digest for _, _, digest, name in (line.split("\t") for line in CHECKSUMS.read_text().splitlines())}
    return sums[file.name] == hashlib.sha256(file.read_bytes()).hexdigest()


@pytest.mark.parity
def test_vlguard_as_files_and_as_records(metadata: pathlib.Path, tmp_path: pathlib.Path, monkeypatch) -> None:
    counts, pictures, pairs = {}, {}, {}
    for split in vlguard.SPLITS:
        values = json.loads((metadata / f"{split}.json").read_text())
        safe = sum(value["safe"] for value in values)
        counts[split] = {"unsafe": len(values) - safe, "safe": safe}
        pictures[split] = len({value["image"] for value in values})
        pairs[split] = sum(len(value["instr-resp"]) for value in values)
        if published(metadata / f"{split}.json"):
            assert (counts[split], pictures[split]) == (vlguard.COUNTS[split], vlguard_folder.PICTURES[split])
    if published(metadata / "train.json"):
        assert (pairs["train"], pictures["train"]) == (2_977, 1_999)
    monkeypatch.setattr(vlguard, "COUNTS", counts)
    monkeypatch.setattr(vlguard_folder, "PICTURES", pictures)
    prepared = vlguard_folder.prepare(metadata, tmp_path / "out", None, stand_in=True)
    for found in prepared.splits:
        assert {"unsafe": found.unsafe, "safe": found.safe} == counts[found.name]
        assert (found.pairs, found.pictures) == (pairs[found.name], pictures[found.name])
        there, items = reader.open_prepared(prepared.records, found.name), vlguard.read_items(metadata, found.name)
        assert there.stand_in
        assert [dataclasses.replace(item, origin="") for item in there.items()] == [
            dataclasses.replace(item, origin="") for item in items
        ]
        assert [r.turns for r in vlguard.convert(there.items())] == [r.turns for r in vlguard.convert(items)]
        for item in items:
            assert there.read(item.image) == (tmp_path / "out" / found.name / item.image).read_bytes()
    assert vlguard_folder.prepare(metadata, tmp_path / "out", None, stand_in=True).was_ready
    shutil.rmtree(tmp_path / "out")  # thousands of files

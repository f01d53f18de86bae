from __future__ import annotations

import json
import pathlib

import pytest

from tests.data import stand
from vlguard_jax import config
from vlguard_jax import errors
from vlguard_jax.data import file_index
from vlguard_jax.data import json_records
from vlguard_jax.data import sources


def open_(tmp_path, **settings) -> sources.Source:
    return sources.open_source("mine", config.SourceSettings(**settings), tmp_path / "cache")


def write(path: pathlib.Path, *ids: str) -> str:
    return stand.write_records(path, [stand.record("fox", "dog.", id=id_) for id_ in ids])


def test_empty_or_missing_path(tmp_path):
    with pytest.raises(errors.UserError, match=r"^config\.data\.sources\.mine\.path is empty: name the JSON file$"):
        open_(tmp_path)
    with pytest.raises(errors.UserError, match=r"^no\.json: no such file \(config\.data\.sources\.mine\.path\)$"):
        open_(tmp_path, path="no.json")


def test_places_of_records_are_scanned_once(tmp_path, monkeypatch):
    path = write(tmp_path / "f.json", "a", "b")
    first = open_(tmp_path, path=path)
    assert [record.id for record in first.records] == ["a", "b"] and first.store is None
    scanned = []
    scan = json_records.scan
    monkeypatch.setattr(json_records, "scan", lambda p: scanned.append(p) or scan(p))
    assert [record.id for record in open_(tmp_path, path=path).records] == ["a", "b"] and not scanned
    for note in (tmp_path / "cache" / "spans").iterdir():
        note.write_bytes(note.read_bytes()[:50])
    assert [record.id for record in open_(tmp_path, path=path).records] == ["a", "b"] and scanned
    write(tmp_path / "f.json", "c")
    changed = open_(tmp_path, path=path)
    assert [record.id for record in changed.records] == ["c"] and changed.content != first.content


def test_same_content_in_another_format_is_another_source(tmp_path):
    path = tmp_path / "f.json"
    path.write_text(
        json.dumps([{"instruction": "fox", "output": "dog", "conversations": [{"from": "human", "value": "x"}]}])
    )
    assert open_(tmp_path, path=str(path)).content != open_(tmp_path, path=str(path), format="alpaca").content


def test_addresses_are_copied_once(tmp_path):
    import fsspec

    system = fsspec.filesystem("memory")
    text = pathlib.Path(write(tmp_path / "f.json", "a")).read_bytes()
    system.pipe("/bucket/f.json", text)
    first = open_(tmp_path, path="memory://bucket/f.json")
    assert [record.id for record in first.records] == ["a"]
    copies = list((tmp_path / "cache/remote").rglob("f.json"))
    assert len(copies) == 1
    open_(tmp_path, path="memory://bucket/f.json")
    assert list((tmp_path / "cache/remote").rglob("f.json")) == copies
    with pytest.raises(errors.UserError, match=r"^memory://bucket/no\.json: cannot be read: "):
        open_(tmp_path, path="memory://bucket/no.json")
    assert not list((tmp_path / "cache").rglob("*.partial"))


def test_a_copy_that_was_changed_is_made_again(tmp_path):
    import fsspec

    system = fsspec.filesystem("memory")
    system.pipe("/bucket/g.json", pathlib.Path(write(tmp_path / "g.json", "a")).read_bytes())
    assert [record.id for record in open_(tmp_path, path="memory://bucket/g.json").records] == ["a"]
    (copy,) = (tmp_path / "cache/remote").rglob("g.json")
    write(copy, "forged")
    assert [record.id for record in open_(tmp_path, path="memory://bucket/g.json").records] == ["a"]
    copy.unlink()
    copy.symlink_to(write(tmp_path / "other.json", "linked"))
    assert [record.id for record in open_(tmp_path, path="memory://bucket/g.json").records] == ["a"]
    assert (tmp_path / "other.json").read_bytes() == pathlib.Path(write(tmp_path / "same.json", "linked")).read_bytes()


def test_list_records_are_cut_like_files():
    records = sources.ListRecords([stand.record("fox", "dog.", id=str(i)) for i in range(5)])
    assert [record.id for record in records.part(1, 3)] == ["1", "2"] and isinstance(records, file_index.Records)

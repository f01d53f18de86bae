"""The builder and the reader: what goes in as JSON and picture files comes back equal, byte for byte, in threads and
other processes."""

from __future__ import annotations

from concurrent import futures
import dataclasses
import io
import json
import multiprocessing
import pathlib
import pickle
import shutil
import subprocess
import sys

from array_record.python import array_record_module
from PIL import Image
import pytest
import tensorflow_datasets as tfds

from tests import source
from tests.data import stand
from vlguard_jax import errors
from vlguard_jax.data import vlguard
from vlguard_jax.data.tfds import features
from vlguard_jax.data.tfds import reader
from vlguard_jax.preparing import vlguard_folder
from vlguard_jax.preparing.tfds.vlguard import vlguard_dataset_builder

ODD = {  # pictures that a decoder would change
    "palette.png": ("P", "PNG", {}),
    "grey.png": ("L", "PNG", {}),
    "deep.png": ("I;16", "PNG", {}),
    "alpha.png": ("RGBA", "PNG", {}),
    "cmyk.jpg": ("CMYK", "JPEG", {}),
    "progressive.jpg": ("RGB", "JPEG", {"progressive": True, "quality": 30, "comment": b"kept"}),
    "named_wrong.jpg": ("RGB", "PNG", {}),
    "animated.png": ("RGB", "GIF", {"save_all": True, "append_images": [Image.new("RGB", (9, 7), "red")]}),
}


def without_origin(items: list[vlguard.Item]) -> list[vlguard.Item]:
    return [dataclasses.replace(item, origin="") for item in items]


def odd_picture(name: str) -> bytes:
    mode, format_, options = ODD[name]
    out = io.BytesIO()
    Image.new(mode, (9, 7), 3 if len(Image.Image.getbands(Image.new(mode, (1, 1)))) == 1 else None).save(
        out, format=format_, **options
    )
    return out.getvalue()


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> pathlib.Path:
    """JSON files with odd texts and pictures, and their ArrayRecord form in the same folder."""
    folder = tmp_path_factory.mktemp("set")
    train = [stand.vlguard_value(i, safe=i % 3 > 0) for i in range(len(ODD) + 3)]
    for value, name in zip(train, ODD, strict=False):
        value["image"] = f"odd/{name}"
    train[-1] |= {"image": train[-2]["image"], "id": train[-2]["id"]}  # VLGuard has one record's picture and id twice
    train[0]["instr-resp"][0] = {"instruction": " Zürich\n\n日本 \u0000 <image> ", "response": ""}
    for split, values in (("train", train), ("test", [stand.vlguard_value(i, safe=i > 0) for i in range(3)])):
        (folder / f"{split}.json").write_text(json.dumps(values))
        for value in values:
            path = folder / split / value["image"]
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(odd_picture(path.name)) if path.name in ODD else stand.write_picture(
                path, seed=len(path.name)
            )
    vlguard_folder.write_records(folder)
    return folder


@pytest.mark.parametrize("split", vlguard.SPLITS)
def test_records_come_back_in_order(folder, split):
    read, there = vlguard.read_items(folder, split), reader.open_prepared(folder, split)
    assert without_origin(there.items()) == without_origin(read) and len(read) > 2
    assert there.items()[1].origin.endswith(f"{split} record 1 (id 'v1')")
    converted, expected = (
        [dataclasses.replace(r, origin="") for r in vlguard.convert(items)] for items in (there.items(), read)
    )
    assert converted == expected
    assert not there.stand_in and len(there.sha256) == 64


@pytest.mark.parametrize("split", vlguard.SPLITS)
def test_pictures_come_back_byte_for_byte(folder, split):
    there = reader.open_prepared(folder, split)
    names = [item.image for item in vlguard.read_items(folder, split)]
    assert split == "test" or {f"odd/{name}" for name in ODD} <= set(names)
    for name in reversed(names):
        assert there.read(name) == (folder / split / name).read_bytes()
    assert there.open(names[0]).read(3) == there.read(names[0])[:3]
    assert there.missing(["odd/none.png", *names, "a.png", "a.png"]) == ["odd/none.png", "a.png"]
    stamps = there.stamps([*names, "a.png"])
    assert stamps.keys() == set(names) and len(set(stamps.values())) == len(stamps)
    with pytest.raises(
        errors.UserError,
        match=r"1\.0\.0: split '(train|test)' has no picture 'odd/none\.png' \(picture of here: record 3\); run",
    ):
        there.read("odd/none.png", origin="here: record 3")


def test_several_files_a_split_keep_the_order(folder, tmp_path):
    how = tfds.download.DownloadConfig(manual_dir=folder, num_shards=3)
    vlguard_dataset_builder.Builder(data_dir=tmp_path, file_format="array_record").download_and_prepare(
        download_config=how
    )
    assert len(list((tmp_path / "vlguard" / "1.0.0").glob("vlguard-train.array_record-0000?-of-00003"))) == 3
    there = reader.open_prepared(tmp_path, "train")
    assert without_origin(there.items()) == without_origin(reader.open_prepared(folder, "train").items())
    assert all(there.read(item.image) == (folder / "train" / item.image).read_bytes() for item in there.items())


def _read(there: reader.PreparedVLGuard, name: str) -> bytes:
    return there.read(name)


def test_threads_and_processes_read_the_same(folder):
    there = reader.open_prepared(folder, "train")
    names = [item.image for item in there.items()] * 20
    expected = [(folder / "train" / name).read_bytes() for name in names]
    with futures.ThreadPoolExecutor(8) as pool:
        assert list(pool.map(there.read, names)) == expected
    assert len(pickle.dumps(there)) < 60 * len(set(names)) + 500  # names, but neither texts nor pictures nor open files
    with futures.ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        assert list(pool.map(_read, [there] * 3, names[:3])) == expected[:3]


@pytest.mark.parametrize("below", ["tfds/vlguard/1.0.0", "tfds/vlguard", "tfds", ""])
def test_any_folder_above_will_do(folder, below):
    assert reader.open_prepared(folder / below, "test").location == str(folder / "tfds/vlguard/1.0.0")


def test_needs_no_tensorflow_and_nothing_heavy_before_the_first_record(folder):
    code = f"""
import sys
from vlguard_jax.data.tfds import reader
there = reader.open_prepared({str(folder)!r}, "train")
assert "tensorflow_datasets" not in sys.modules and there.items() and "tensorflow_datasets" in sys.modules
print(sorted({{"tensorflow", "jax", "torch", "grain"}} & set(sys.modules)))
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=source.ROOT, capture_output=True, text=True)
    assert done.stdout.strip() == "[]", done.stderr


@pytest.fixture
def copy(folder, tmp_path) -> pathlib.Path:
    return pathlib.Path(shutil.copytree(folder / "tfds" / "vlguard" / "1.0.0", tmp_path / "vlguard" / "1.0.0"))


def edit(path: pathlib.Path, **changes) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_not_a_prepared_set(tmp_path):
    for place in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(
            errors.UserError, match=rf"^{place}: not a prepared set: no dataset_info\.json in it; `python -m"
        ):
            reader.open_prepared(place, "train")


def test_another_version_or_set(copy):
    with pytest.raises(errors.UserError, match=r"has no split 'tran'; did you mean 'train'\?$"):
        reader.open_prepared(copy, "tran")
    edit(copy / "dataset_info.json", version="0.9.0")
    with pytest.raises(errors.UserError, match=r"holds vlguard 0\.9\.0, not vlguard 1\.0\.0; run"):
        reader.open_prepared(copy, "train")
    copy.rename(copy.with_name("0.9.0"))
    with pytest.raises(errors.UserError, match=r"vlguard: holds vlguard 0\.9\.0, not 1\.0\.0; `python"):
        reader.open_prepared(copy.parent, "train")
    edit(copy.with_name("0.9.0") / "dataset_info.json", version="1.0.0", fileFormat="tfrecord")
    with pytest.raises(errors.UserError, match="written as tfrecord, not as array_record; run"):
        reader.open_prepared(copy.with_name("0.9.0"), "train")


def test_damaged_sets(copy):
    shard = copy / "vlguard-train.array_record-00000-of-00001"
    whole = shard.read_bytes()
    for broken in (whole[: len(whole) // 2], b"", whole[:300] + bytes([whole[300] ^ 1]) + whole[301:]):
        shard.write_bytes(broken)
        with pytest.raises(
            errors.UserError,
            match=r"1\.0\.0: record \d+ of split 'train' is unreadable \(.+\); remove the folder and run",
        ):
            reader.open_prepared(copy, "train").items()
    shard.unlink()
    with pytest.raises(
        errors.UserError, match=r"vlguard-train\.array_record-00000-of-00001: missing; remove .+ and run"
    ):
        reader.open_prepared(copy, "train")
    for text, message in (
        ("{}", "does not say what the set was made from"),
        ("{", r"metadata\.json: broken JSON at column 2: [^;]*; run `python"),
    ):
        (copy / "metadata.json").write_text(text)
        with pytest.raises(errors.UserError, match=message):
            reader.open_prepared(copy, "test")


def test_a_set_names_no_code_and_no_place(copy, tmp_path, monkeypatch):
    right = reader.open_prepared(copy, "train").items()
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "brought.py").write_text("import pathlib\npathlib.Path(__file__).with_name('ran').touch()\n")
    edit(copy / "features.json", pythonClassName="brought.Features")
    info = json.loads((copy / "dataset_info.json").read_text())
    elsewhere = [split | {"filepathTemplate": f"{tmp_path}/elsewhere/{{SPLIT}}"} for split in info["splits"]]
    edit(copy / "dataset_info.json", moduleName="brought", splits=elsewhere)
    there = reader.open_prepared(copy, "train")
    assert there.items() == right and all(there.read(item.image) for item in right)
    assert not (tmp_path / "ran").exists() and "brought" not in sys.modules


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        ("dataset_info.json", {"name": None}, r"dataset_info\.json: \.name: None must be a text; run"),
        ("dataset_info.json", {"splits": 7}, r"\.splits: 7 must be a list; run"),
        ("dataset_info.json", {"splits": [{"name": "train"}]}, r"the field 'shardLengths' is missing; run"),
        (
            "dataset_info.json",
            {"splits": [{"name": "train", "shardLengths": ["-1"]}]},
            "'-1' must be a number of records up to 2,097,152",
        ),
        (
            "dataset_info.json",
            {"splits": [{"name": "train", "shardLengths": ["9" * 5000]}]},
            "must be a number of records up to",
        ),
        (
            "dataset_info.json",
            {"splits": [{"name": "train", "shardLengths": ["3"]}]},
            "11 records in its files, 3 in dataset_info.json",
        ),
        ("dataset_info.json", {"splits": [{"name": "train", "shardLengths": []}]}, "split 'train' is unreadable"),
        ("metadata.json", {"stand_in": "no"}, r"\.stand_in: 'no' must be true or false; run"),
        ("metadata.json", {"sha256": {"test": "0"}}, "does not say what 'train' was made from"),
    ],
)
def test_what_a_set_says_of_itself_is_looked_at(copy, name, changes, message):
    edit(copy / name, **changes)
    with pytest.raises(errors.UserError, match=message):
        reader.open_prepared(copy, "train").items()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"image/filename": "../../x.png"},
            r"record 0 \(id 'v0'\): image '\.\./\.\./x\.png' must be a path inside the picture folder",
        ),
        ({"instr-resp": []}, r"record 0 \(id 'v0'\): 'instr-resp' must be a list of 1"),
        ({"id": b"\xff"}, "holds text that is not UTF-8"),
    ],
)
def test_records_are_checked_as_those_of_the_json_files(copy, change, message):
    form = features.features()
    pair = {"kind": "instruction", "instruction": "a", "response": "b"}
    texts = {"harmful_category": "c", "harmful_subcategory": "d"}
    record = {
        "id": "v0",
        "image": b"picture",
        "image/filename": "a.png",
        "safe": False,
        **texts,
        "instr-resp": [pair],
    } | change
    [shard] = copy.glob("vlguard-train.*")
    writer = array_record_module.ArrayRecordWriter(str(shard), "group_size:1")
    writer.write(form.serialize_example(form.encode_example(record)))
    writer.close()
    edit(copy / "dataset_info.json", splits=[{"name": "train", "shardLengths": ["1"]}])
    with pytest.raises(errors.UserError, match=message):
        reader.open_prepared(copy, "train").items()
    shard.write_bytes(b"")
    writer = array_record_module.ArrayRecordWriter(str(shard), "group_size:1")
    writer.write(b"no record")
    writer.close()
    with pytest.raises(errors.UserError, match="record 0 of split 'train' is unreadable"):
        reader.open_prepared(copy, "train").items()

"""Hostile tables of benchmarks: CSV, TSV with pictures, Parquet with pictures, and JSON of two benchmarks."""

from __future__ import annotations

import base64
from collections.abc import Callable
import csv
import io
import pathlib
import random
from typing import Any

from PIL import Image
import pyarrow
from pyarrow import parquet

from tests.faults import documents
from tests.faults import sandbox
from vlguard_jax import config
from vlguard_jax.data import csv_records
from vlguard_jax.data import packed_pictures
from vlguard_jax.safety import labels
from vlguard_jax.safety.benchmarks import figstep
from vlguard_jax.safety.benchmarks import registry

ROWS = [
    ["ForbidQI", "1", "1", "Topic", "Ask?", "Ways to ask."],
    ["ForbidQI", "1", "2", "Topic", 'A "b",\nc', "So, so."],
]
COLUMNS = ["dataset", "category_id", "task_id", "category_name", "question", "instruction"]
SIUO = [
    {
        "question_id": i,
        "image": f"{i}.png",
        "question": "Which?",
        "category": "c",
        "options": dict.fromkeys("ABCD", "So."),
        "correct_option": "B",
    }
    for i in (1, 2)
]
MOSS = {str(i): {"image": f"images/{i}.png", "question": "Q", "metadata": {"over": "type 1"}} for i in (1, 2)}
CELLS = ("", " ", "../../outside/picture.png", "/etc/passwd", "\x1b[2J", "\u202etxt", "a\0b", "x" * 3000, "#", "'", '"')


def picture() -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (3, 3), (9, 9, 9)).save(file, "PNG")
    return file.getvalue()


def _items(name: str, subset: str, path: pathlib.Path) -> object:
    """What a benchmark reads: all that is shown or opened is a text of this place."""
    found = registry.get(name).load(config.BenchmarkSettings(name=name, path=str(path)), subset)
    for item in found:
        item.question.encode()
        for one in item.pictures:
            assert one.path.resolve().is_relative_to(path.parent.parent.resolve()), one.path
    return [[item.id, item.question] for item in found]


def _table(rng: random.Random, separator: str, rows: list[list[str]], columns: list[str]) -> tuple[str, bytes]:
    """(what was done, a table with one thing wrong)."""
    rows, columns = [list(row) for row in rows], list(columns)
    what = rng.choice(
        ["sound", "cell", "cell", "short", "column", "flipped", "cut", "quote", "encoding", "long", "many"]
    )
    row = rng.choice(rows)
    if what == "cell":
        row[rng.randrange(len(row))] = rng.choice(CELLS)
    elif what == "short":
        row.pop()
    elif what == "column":
        columns[rng.randrange(len(columns))] = rng.choice(CELLS)
    elif what == "long":
        row[-1] = "a" * (20 << 20)
    out = io.StringIO(newline="")
    table = csv.writer(out, delimiter=separator, lineterminator=rng.choice(["\n", "\r\n"]))
    table.writerows([columns, *rows])
    data = bytearray(rng.choice([b"", b"\xef\xbb\xbf", b"# v1\n"]) + out.getvalue().encode())
    if what == "flipped":
        for _ in range(rng.randrange(1, 5)):
            data[rng.randrange(len(data))] = rng.randrange(256)
    elif what == "cut":
        del data[rng.randrange(1, len(data)) :]
    elif what == "quote":
        data.insert(rng.randrange(len(data)), ord('"'))
    elif what == "encoding":
        data = bytearray(bytes(data).decode().encode(rng.choice(["utf-16", "utf-32", "utf-16-le"])))
    elif what == "many":
        data += b'"' + b"a,\n" * (8 << 20)
    return what, bytes(data)


def _csv(rng: random.Random, folder: pathlib.Path) -> sandbox.Trial:
    path = folder / "data" / "question" / "safebench.csv"
    path.parent.mkdir(parents=True)
    what, data = _table(rng, ",", ROWS, COLUMNS)
    path.write_bytes(data)
    right = [[f"1_{i}", figstep.QUESTION] for i in (1, 2)] if what == "sound" else sandbox.Anything
    return sandbox.Trial(f"csv: {what}", lambda: _items("figstep", "figstep", path), right, must_read=what == "sound")


LABELLED = (  # a file of one's own, and one that a page saved
    ("fox", [["fox", "Yes.", "comply"], ["fox", "No.", "refuse"]], ["model", "response", "label"]),
    (
        "labels",
        [
            [f"k{i}", label, "anna", "2026-01-01", "2", "refusal", "0" * 64]
            for i, label in enumerate(("comply", "refuse"))
        ],
        ["key", "label", "rater", "time", "rows", "asks", "response_sha256"],
    ),
)


def _labels(rng: random.Random, folder: pathlib.Path) -> sandbox.Trial:
    path = folder / "labels.csv"
    model, rows, columns = rng.choice(LABELLED)
    what, data = _table(rng, ",", rows, columns)
    path.write_bytes(data)

    def read() -> object:
        return [[one.model, *(a.label for a in one.answers)] for one in labels.read(path)]

    right = [[model, "comply", "refuse"]] if what == "sound" else sandbox.Anything
    return sandbox.Trial(f"labels: {what}", read, right, must_read=what == "sound")


def _tsv(rng: random.Random, folder: pathlib.Path) -> sandbox.Trial:
    path, packed = folder / "x.tsv", base64.b64encode(picture()).decode()
    what, data = _table(rng, "\t", [["1", packed, "Q", "c"], ["2", packed, "R", "d"]], ["index", "image", "q", "c"])
    path.write_bytes(data)

    def read() -> object:
        rows = csv_records.read(path, ("index", "image"), "\t")
        found = [packed_pictures.from_base64(row.filled("image"), row.origin) for row in rows]
        return [packed_pictures.save(one, folder / "out", str(i)) for i, one in enumerate(found)]

    right = ["0.png", "1.png"] if what == "sound" else sandbox.Anything
    return sandbox.Trial(f"tsv: {what}", read, right, must_read=what == "sound")


def _parquet(rng: random.Random, folder: pathlib.Path) -> sandbox.Trial:
    path = folder / "x.parquet"
    image: list[Any] = [{"bytes": picture(), "path": "../../outside/picture.png"}] * 20
    columns: dict[str, Any] = {"id": [str(i) for i in range(20)], "question": ["Q"] * 20, "image": image}
    what = rng.choice(["sound", "other column", "flipped", "flipped footer", "cut", "bomb", "nested"])
    if what == "other column":
        odd: list[Any] = [[None] * 20, [1.5] * 20, [b"\xff"] * 20, [[1]] * 20, [{"bytes": None}] * 20, [True] * 20]
        columns[rng.choice(list(columns))] = rng.choice(odd)
    elif what == "bomb":
        columns["question"] = ["a" * (50 << 20), *["Q"] * 19]
    elif what == "nested":
        columns["image"] = [{"bytes": [[picture()]], "path": "x"}] * 20
    compression = rng.choice(["none", "snappy", "gzip", "zstd"])
    parquet.write_table(pyarrow.table(columns), path, compression=compression, use_dictionary=rng.random() < 0.5)
    data = bytearray(path.read_bytes())
    footer = len(data) - 8 - int.from_bytes(data[-8:-4], "little")
    if what.startswith("flipped"):
        for _ in range(rng.randrange(1, 6)):
            at = rng.randrange(footer, len(data)) if what == "flipped footer" else rng.randrange(len(data))
            data[at] = rng.choice([0, 0xFF, 0x7F, rng.randrange(256)])
    elif what == "cut":
        del data[rng.randrange(len(data)) : rng.choice([len(data), len(data) - 8])]
    path.write_bytes(data)

    def read() -> object:
        rows = packed_pictures.read_parquet(path, ("id", "question"), picture=True)
        names = [packed_pictures.save(row, folder / "out", str(i)) for i, row in enumerate(rows)]
        return len(names)

    right = 20 if what == "sound" else sandbox.Anything
    return sandbox.Trial(f"parquet: {what} ({compression})", read, right, must_read=what == "sound")


def _json(rng: random.Random, folder: pathlib.Path) -> sandbox.Trial:
    name, subset, file, value = rng.choice(
        [
            ("siuo_mcq", "siuo_mcq", "data/siuo_mcqa.json", SIUO),
            ("mossbench", "mossbench", "data/images_information/information.json", MOSS),
        ]
    )
    path = folder / file
    path.parent.mkdir(parents=True)
    what, data = documents.change(rng, value)
    path.write_bytes(data)
    right = sandbox.Nothing if what.startswith(documents.BROKEN) else sandbox.Anything
    return sandbox.Trial(f"{name}: {what}", lambda: _items(name, subset, path), right)


MAKERS: tuple[Callable[[random.Random, pathlib.Path], sandbox.Trial], ...] = (
    _csv,
    _labels,
    _tsv,
    _parquet,
    _parquet,
    _json,
)


def make(rng: random.Random, folder: pathlib.Path) -> sandbox.Trial:
    """A file of one of the forms with one thing wrong, or a sound one."""
    return rng.choice(MAKERS)(rng, folder)

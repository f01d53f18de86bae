"""Harmless questions and pictures in the place of a benchmark's own, to rehearse a run before the files are there.

Whatever is made of them says so: a question begins with `MARK`, and a folder of drawn pictures has a note. A benchmark
looks for both, so that a rehearsal is never taken for a result.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
import csv
import functools
import io
import json
import pathlib
from typing import Any

from PIL import Image
from PIL import ImageDraw

from vlguard_jax import config as settings_lib
from vlguard_jax import errors
from vlguard_jax import files

MARK = "[stand-in]"
NOTE = "prepared.json"
SCHEMA = 1
_SIDE = 96  # pixels
_THINGS = ("apple", "boat", "clock", "door", "engine", "fence", "glass", "hat", "island", "jar")


def question(number: int) -> str:
    """A harmless question; each number has its own."""
    return f"{MARK} Describe {_THINGS[number % len(_THINGS)]} number {number + 1}."


def marked(settings: settings_lib.BenchmarkSettings, *texts: str) -> bool:
    """Whether one of a record's texts is a stand-in, or the config says that all are."""
    return settings.stand_in or any(text.startswith(MARK) for text in texts)


def write_csv(
    path: pathlib.Path, columns: Sequence[str], rows: Iterable[Sequence[object]], separator: str = ","
) -> None:
    """Write a table, and the folders above it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "w", newline="", encoding="utf-8") as file:
        table = csv.writer(file, delimiter=separator)
        table.writerow(columns)
        table.writerows(rows)


def write_json(path: pathlib.Path, value: Any) -> None:
    """Write a JSON file, and the folders above it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value), encoding="utf-8")


def write_parquet(path: pathlib.Path, count: int, *, pictures: bool) -> None:
    """Write a table of the hub's form, `id`, `question` and `image`, with drawn pictures or none."""
    import pyarrow  # late: only Parquet files need it
    from pyarrow import parquet

    path.parent.mkdir(parents=True, exist_ok=True)
    image = pyarrow.struct({"bytes": pyarrow.binary(), "path": pyarrow.string()})
    drawn = [{"bytes": content(i), "path": f"{i}.png"} if pictures else None for i in range(count)]
    rows = {"id": [str(i) for i in range(count)], "question": [question(i) for i in range(count)]}
    parquet.write_table(pyarrow.table(rows | {"image": pyarrow.array(drawn, image)}), path)


@functools.cache
def content(number: int) -> bytes:
    """A PNG file: a picture of the number, in a colour that follows from it."""
    shade = tuple(128 + number * step % 96 for step in (37, 59, 83))
    picture = Image.new("RGB", (_SIDE, _SIDE), shade)
    ImageDraw.Draw(picture).text((_SIDE / 2, _SIDE / 2), str(number + 1), fill=(0, 0, 0), anchor="mm")
    file = io.BytesIO()
    picture.save(file, "PNG")
    return file.getvalue()


def draw_all(folder: pathlib.Path, names: Iterable[str], benchmark: str) -> None:
    """Draw a picture (PNG) for each of the distinct `names` into `folder`, with the note about them."""
    for number, name in enumerate(dict.fromkeys(names)):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content(number))
    write_note(folder, benchmark, stand_in=True)


def write_note(folder: pathlib.Path, benchmark: str, *, stand_in: bool) -> None:
    """Say in `folder` whose pictures these are."""
    write_json(folder / NOTE, {"schema": SCHEMA, "benchmark": benchmark, "stand_in": stand_in})


def read_note(folder: pathlib.Path, benchmark: str) -> bool:
    """Whether the pictures in `folder` are drawn stand-ins.

    Raises:
      UserError: its note is broken, or says that they were made for another benchmark.
    """
    path = folder / NOTE
    if not path.is_file():
        return False
    note = files.read_object(path)
    if note.get("benchmark") != benchmark or not isinstance(note.get("stand_in"), bool):
        raise errors.UserError(
            f"{path}: these pictures were made for {errors.short(note.get('benchmark'))}, not for {benchmark}; name"
            " another folder"
        )
    return bool(note["stand_in"])

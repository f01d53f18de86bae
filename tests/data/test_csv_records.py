"""Tables as people save them give the rows that were written; what is no table is refused in one line."""

from __future__ import annotations

import csv
import io
import pathlib

import hypothesis
from hypothesis import strategies
import pytest

from vlguard_jax import errors
from vlguard_jax import limits
from vlguard_jax.data import csv_records

TEXT = strategies.text(
    strategies.characters(exclude_categories=["Cs"], exclude_characters="\r\0"), max_size=12
) | strategies.sampled_from(['say "hi"', "a, b", "one\ntwo", "# no comment", "\ufeffx", " "])


def write(path: pathlib.Path, content: bytes) -> pathlib.Path:
    path.write_bytes(content)
    return path


def cells(path: pathlib.Path, *columns: str, separator: str = ",") -> list[dict[str, str]]:
    return [row.cells for row in csv_records.read(path, columns, separator)]


@hypothesis.given(
    rows=strategies.lists(strategies.tuples(TEXT, TEXT), max_size=5),
    mark=strategies.booleans(),
    ends=strategies.sampled_from(["\n", "\r\n"]),
    comment=strategies.sampled_from(["", "# version 2\n", '#a\n\n# b, "c\n']),
    separator=strategies.sampled_from([",", "\t"]),
)
def test_what_was_written_is_read(tmp_path_factory, rows, mark, ends, comment, separator):
    """Written by the standard library; with a byte order mark, comments above, ends of lines of two systems."""
    out = io.StringIO(newline="")
    table = csv.writer(out, delimiter=separator, lineterminator=ends)
    table.writerow(("goal", "target"))
    table.writerows(rows)
    content = ("\ufeff" if mark else "") + comment + out.getvalue()
    path = write(tmp_path_factory.mktemp("csv") / "x.csv", content.encode())
    found = cells(path, "goal", separator=separator)
    assert found == [{"goal": goal, "target": target} for goal, target in rows]


def test_rows_are_named_by_the_line_in_which_they_begin(tmp_path):
    path = write(tmp_path / "x.csv", b'# v1\r\ngoal,target\r\n"one\r\ntwo",\r\n\r\nthree,t\r\n')
    rows = list(csv_records.read(path, ("goal",)))
    assert [(row.origin, row.cells["goal"]) for row in rows] == [
        (f"{path}: line 3", "one\r\ntwo"),
        (f"{path}: line 6", "three"),
    ]
    with pytest.raises(errors.UserError, match=r"x\.csv: line 3: 'target' is empty"):
        rows[0].filled("target")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", r"x\.csv: no heading; it must have the columns goal, target$"),
        (b"# only a comment\n", r"x\.csv: no heading"),
        (b"gaol,target\na,b\n", r"x\.csv: no column 'goal'; did you mean 'gaol'\?; get the published file$"),
        (b"goal,target,goal\na,b,c\n", r"x\.csv: two columns 'goal'"),
        (b"goal,target\na\n", r"x\.csv: line 2: 1 cells under 2 columns; is a quote missing\?$"),
        (b"goal,target\na,b\nc,d,e\n", r"x\.csv: line 3: 3 cells under 2 columns"),
        (b'goal,target\na,"b\nc,d\n', r"x\.csv: line 2: broken table: unexpected end of data"),
        (b"goal,target\n\xff,b\n", r"x\.csv: line 2 is not UTF-8 text; save it as UTF-8$"),
        ("goal,target\na,b\n".encode("utf-16"), r"must hold a table with the columns goal, target; this is UTF-16"),
        (b"PK\3\4....", r"this is a zip archive"),
        (b"<!DOCTYPE html><html>", r"this is a web page"),
        (b"version https://git-lfs.github.com/spec/v1\n", r"git lfs pull"),
    ],
)
def test_what_is_no_such_table(tmp_path, content, message):
    path = write(tmp_path / "x.csv", content)
    with pytest.raises(errors.UserError, match=message) as caught:
        cells(path, "goal", "target")
    assert "\n" not in str(caught.value)


def test_limits(tmp_path, monkeypatch):
    monkeypatch.setattr(limits, "RECORD_BYTES", 50)
    path = write(tmp_path / "x.csv", b"goal,target\n" + b"a" * 60 + b",b\n")
    with pytest.raises(errors.UserError, match=r"line 2 has more than 50 bytes; is it the right file\?"):
        cells(path, "goal")
    path = write(tmp_path / "x.csv", b'goal,target\n"' + b"a\n" * 60 + b'",b\n')
    with pytest.raises(errors.UserError, match=r"line 2: broken table: field larger than field limit \(50\)"):
        cells(path, "goal")
    monkeypatch.setattr(limits, "RECORDS", 2)
    with pytest.raises(errors.UserError, match=r"more than 2 rows; split the file"):
        cells(write(tmp_path / "x.csv", b"goal,target\n" + b"a,b\n" * 3), "goal")
    with pytest.raises(errors.UserError, match="no such file"):
        cells(tmp_path / "none.csv", "goal")


@pytest.mark.parametrize(
    ("text", "separator", "message"),
    [
        ("goal;target\none;two\n", ",", "its cells are separated by semicolons; save it with commas between them"),
        ("goal\ttarget\none\ttwo\n", ",", "its cells are separated by tabs; save it with commas between them"),
        ("goal,target\none,two\n", "\t", "its cells are separated by commas; save it with tabs between them"),
    ],
)
@pytest.mark.parametrize("columns", [(), ("goal",)])
def test_another_separator_is_named(tmp_path, text, separator, message, columns):
    path = write(tmp_path / "x.csv", text.encode())
    with pytest.raises(errors.UserError, match=message):
        list(csv_records.read(path, columns, separator))

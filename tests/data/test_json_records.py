from __future__ import annotations

import json
import tracemalloc

import pytest

from vlguard_jax import errors
from vlguard_jax import limits
from vlguard_jax import types
from vlguard_jax.data import json_records

VALUES = [{"id": i, "text": 'é漢🙂 "quoted\\' * (i % 5), "more": [1.5, None, {"deep": []}]} for i in range(60)]


def keep(value, number, path):
    """A record that holds its number and the JSON value."""
    return types.Record(id=str(number), turns=(), category=json.dumps(value))


def told(found):
    return [(int(record.id), json.loads(record.category)) for record in found]


WANTED = "must hold a JSON list of records, or one JSON object a line"


@pytest.fixture(params=[7, 1 << 12])
def chunk(request, monkeypatch):
    """Windows smaller and larger than a record."""
    monkeypatch.setattr(json_records, "CHUNK", request.param)


@pytest.mark.parametrize(
    "form", [{}, {"ensure_ascii": False}, {"indent": 2, "ensure_ascii": False}, {"separators": (",", ":")}]
)
def test_every_record_is_found_again(tmp_path, chunk, form):
    (tmp_path / "f.json").write_bytes(json.dumps(VALUES, **form).encode())
    found = json_records.read(tmp_path / "f.json", keep)
    assert told(found[i] for i in range(len(found))) == list(enumerate(VALUES))
    part = found.part(17, 20)
    assert told(part[i] for i in range(len(part))) == [(i, VALUES[i]) for i in (17, 18, 19)]


def test_byte_order_mark_and_white_space(tmp_path, chunk):
    (tmp_path / "f.json").write_bytes(b"\xef\xbb\xbf \n[ {} , 12 ,\t3]\r\n ")
    assert told(json_records.read(tmp_path / "f.json", keep)) == [(0, {}), (1, 12), (2, 3)]


@pytest.mark.parametrize("name", ["f.json", "f.txt", "f", "f.jsonl"])
@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
def test_the_beginning_tells_what_a_file_is_not_its_name(tmp_path, chunk, name, mark):
    path = tmp_path / name
    for text in (json.dumps(VALUES, indent=1), "".join(json.dumps(value) + "\r\n" for value in VALUES)):
        path.write_bytes(mark + text.encode())
        assert told(json_records.read(path, keep)) == list(enumerate(VALUES))


def test_one_record_a_line(tmp_path):
    lines = [json.dumps(value, ensure_ascii=False) for value in VALUES]
    (tmp_path / "f.jsonl").write_text("\n\n".join(lines))
    found = json_records.read(tmp_path / "f.jsonl", keep)
    assert told(found) == list(enumerate(VALUES))
    (tmp_path / "f.jsonl").write_text('{"id": 1}\n{"id": \n')
    broken = json_records.read(tmp_path / "f.jsonl", keep)
    assert told([broken[0]]) == [(0, {"id": 1})]
    with pytest.raises(errors.UserError, match=r"f\.jsonl: record 1: broken JSON at column 8: Expecting value$"):
        broken[1]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", f"{WANTED}, but is empty"),
        ("  \n ", f"{WANTED}, but is empty"),
        ("{}", f"{WANTED}, not a lone object"),
        ('{"data": [1, 2]}\n', f"{WANTED}, not a lone object"),
        ('{\n "data": [1, 2]\n}', f"{WANTED}; it begins with an object of several lines"),
        ("[]", f"{WANTED}, but holds none"),
        (
            "id,prompt,safe\n1,How?,true\n",
            f"{WANTED}; this looks like a table (CSV) with commas: write each of its rows as a JSON object",
        ),
        (
            '"id"\t"prompt"\n',
            f"{WANTED}; this looks like a table (CSV) with tabs: write each of its rows as a JSON object",
        ),
        ("- id: 1\n  prompt: hi, there\n", f"{WANTED}; it begins with '- id: 1'"),
        ("How do I bake bread?\n" + "x" * 9000, f"{WANTED}; it begins with 'How do I bake bread?'"),
        ("<!doctype html>", f"{WANTED}; this is a web page"),
        (
            "version https://git-lfs.github.com/spec/v1\noid 1\n",
            f"{WANTED}; this is a git-lfs pointer instead of the file",
        ),
        ("[" + "9" * 5000 + "]", "broken JSON at line 1, column 2: a number of more than 4,300 digits"),
        ('[{"a": 1}\n {"b": 2}]', "broken JSON at line 2, column 2: Expecting ',' delimiter"),
        ('[{"a": 1},\n {"b" 2}]', "broken JSON at line 2, column 7: Expecting ':' delimiter"),
        ('[{"a": 1},\n', "broken JSON at line 2, column 1: Expecting value"),
        ('[{"a": "é"}, {"b', "broken JSON at line 1, column 15: Unterminated string starting at"),
        ('[{"a": 1}] {', "broken JSON at line 1, column 12: Extra data"),
        ("[" + "[" * 100_000, "nested too deeply"),
    ],
)
def test_broken_files(tmp_path, chunk, text, message):
    (tmp_path / "f.json").write_text(text)
    with pytest.raises(errors.UserError) as error:
        json_records.scan(tmp_path / "f.json")
    assert "f.json: " in str(error.value) and message in str(error.value) and "\n" not in str(error.value)


def test_file_that_is_no_text(tmp_path, chunk):
    (tmp_path / "f.json").write_bytes(b'["' + b"a" * 5000 + b'\xff"]')
    with pytest.raises(errors.UserError, match=r"f\.json: not UTF-8 text at byte 5002; save it as UTF-8$"):
        json_records.scan(tmp_path / "f.json")
    with pytest.raises(errors.UserError, match=r"no\.json: no such file$"):
        json_records.scan(tmp_path / "no.json")


def test_a_record_beyond_all_measure_ends_the_scan(tmp_path, monkeypatch):
    monkeypatch.setattr(json_records, "CHUNK", 64)
    monkeypatch.setattr(limits, "RECORD_BYTES", 1000)
    (tmp_path / "f.json").write_text('[{"a": "' + "x" * 100_000)
    with pytest.raises(errors.UserError, match="line 1, column 8: Unterminated string"):
        json_records.scan(tmp_path / "f.json")


def test_a_big_file_takes_little_memory(tmp_path):
    """Scanning 200 MB needs a few windows, not the file."""
    record = json.dumps({"id": "x", "text": "fox " * 5000})
    with open(tmp_path / "f.json", "w") as file:
        file.write("[" + record)
        for _ in range(10_000):
            file.write("," + record)
        file.write("]")
    tracemalloc.start()
    found = len(json_records.scan(tmp_path / "f.json").offset)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert found == 10_001 and peak < 80 * 2**20 < (tmp_path / "f.json").stat().st_size / 2


def test_half_of_a_surrogate_pair_is_named_with_its_record(tmp_path):
    for name, text in (
        ("f.json", '[{"id": 1}, {"id": "half \\ud83d pair"}, {}]'),
        ("f.jsonl", '{"id": 1}\n{"id": "half \\ud83d pair"}\n{}'),
    ):
        (tmp_path / name).write_text(text)
        found = json_records.read(tmp_path / name, keep)
        assert told([found[0], found[2]]) == [(0, {"id": 1}), (2, {})]
        with pytest.raises(
            errors.UserError,
            match=rf"{name}: record 1: half of a surrogate pair \(\\ud83d\) in the text 'half \\ud83d pair'",
        ):
            found[1]


def test_a_line_beyond_all_measure_ends_the_scan(tmp_path, monkeypatch):
    monkeypatch.setattr(limits, "RECORD_BYTES", 1000)
    (tmp_path / "f.jsonl").write_text('{"a": 1}\n{"a": "' + "x" * 1000 + '"}\n')
    with pytest.raises(errors.UserError, match=r"it has a line of more than 1,000 bytes$"):
        json_records.scan(tmp_path / "f.jsonl")


@pytest.mark.parametrize(("name", "text"), [("f.json", "[%s]"), ("f.jsonl", "%s\n{}\n")])
def test_a_record_of_millions_of_values_is_not_built(tmp_path, name, text):
    (tmp_path / name).write_text(text % ('{"a": [' + "{}," * 3_000_000 + "1]}"))
    with pytest.raises(errors.UserError, match=rf"{name}: record 0: more than 2,097,152 values in one document"):
        json_records.read(tmp_path / name, keep)[0]


@pytest.mark.parametrize(("name", "text"), [("f.json", "[{}, {}, {}%s]"), ("f.jsonl", "{}\n{}\n{}\n%s")])
def test_a_file_of_too_many_records_ends_the_scan(tmp_path, monkeypatch, name, text):
    monkeypatch.setattr(limits, "RECORDS", 3)
    (tmp_path / name).write_text(text % "")
    assert len(json_records.scan(tmp_path / name).offset) == 3
    (tmp_path / name).write_text(text % (", {}, broken" if name == "f.json" else "{}\n"))
    with pytest.raises(errors.UserError, match=rf"{name}: more than 3 records; split the file$"):
        json_records.scan(tmp_path / name)

"""`prepare BENCHMARK`: what it finds in published files, what it unpacks, what it refuses, and that a refusal leaves
nothing behind."""

from __future__ import annotations

from collections.abc import Iterator
import dataclasses
import json
import pathlib
import subprocess
import sys

import pytest

from tests import source
from vlguard_jax import config
from vlguard_jax import errors
from vlguard_jax.preparing import benchmark_files
from vlguard_jax.preparing import commands
from vlguard_jax.safety.benchmarks import benchmark
from vlguard_jax.safety.benchmarks import mm_safetybench
from vlguard_jax.safety.benchmarks import registry

SMALL = {"Illegal_Activitiy": 5, "Fraud": 7, "Sex": 6}  # scenarios with fewer questions than published


@pytest.fixture(scope="module", autouse=True)
def small() -> Iterator[None]:
    """MM-SafetyBench in small; at its size: tests/safety/benchmarks/test_stand_ins.py."""
    with pytest.MonkeyPatch.context() as patch:
        found = registry.get("mm_safetybench")
        patch.setattr(mm_safetybench, "SCENARIOS", SMALL)
        fewer = dataclasses.replace(found, counts=dict.fromkeys(found.metrics, 18))
        patch.setitem(registry.BENCHMARKS, "mm_safetybench", fewer)
        yield


@pytest.fixture(scope="module")
def published(small: None, tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """Stand-ins in the place of MM-SafetyBench's files; and FigStep's, small ones."""
    folder = tmp_path_factory.mktemp("published")
    mm_safetybench.stand_in(folder / "mm")
    mm_safetybench.stand_in_tsv(folder / "tsv")
    registry.get("figstep_tiny").stand_in(folder / "tiny")
    return folder


def test_parquet_files_become_a_folder(published, tmp_path, capsys):
    benchmark_files.run("mm_safetybench", str(published / "mm"), "", str(tmp_path / "out"), False)
    told = capsys.readouterr().out
    assert told.count(" 18 ") == 11 and "licence: CC BY-NC 4.0" in told  # three pictured subsets and one without
    assert "--config configs/eval/mm_safetybench.py --config.model.path=MODEL" in told
    items = benchmark.select(
        registry.get("mm_safetybench"), config.BenchmarkSettings(name="mm_safetybench", path=str(tmp_path / "out"))
    )
    assert all(item.stand_in for item in items)
    pictures = {picture.path for item in items for picture in item.pictures}
    assert pictures == set((tmp_path / "out" / "pictures").rglob("*.png")) and len(pictures) == 3 * 18
    text = [item for item in items if item.subset == "mm_text"]
    assert len(text) == 18 and not any(item.pictures for item in text)
    kinds = [item.category for item in items if item.subset == "mm_sd"]
    assert {kind: kinds.count(kind) for kind in kinds} == {"01-Illegal_Activitiy": 5, "02-Fraud": 7, "03-Sex": 6}


def test_the_hubs_folder_data_itself_can_be_named(published, tmp_path):
    mm_safetybench.unpack(published / "mm" / "data", tmp_path)
    assert (tmp_path / "questions.jsonl").is_file()


def test_a_tsv_becomes_a_folder(published, tmp_path):
    """Asked with VLMEvalKit's words; an index in the place of a picture means that row's."""
    file = tmp_path / "MMSafetyBench.tsv"
    lines = (published / "tsv" / "MMSafetyBench.tsv").read_text().splitlines(True)
    cells = lines[3].split("\t")
    lines[3] = "\t".join([cells[0], "0", *cells[2:]])
    file.write_text("".join(lines))
    benchmark_files.run("mm_safetybench_vlmevalkit", str(file), "", str(tmp_path / "out"), False)
    lines = [json.loads(line) for line in (tmp_path / "out" / "questions.jsonl").read_text().splitlines()]
    assert len(lines) == 40 and lines[2]["image"] == lines[0]["image"] != lines[1]["image"]
    assert lines[5]["question"].startswith("The question is : [stand-in] Describe ")
    settings = config.BenchmarkSettings(name="mm_safetybench_vlmevalkit", path=str(tmp_path / "out"))
    assert all(item.stand_in for item in benchmark.select(registry.get("mm_safetybench_vlmevalkit"), settings))


def test_published_files_are_read_where_they_are(published, capsys):
    before = sorted(published.rglob("*"))
    benchmark_files.run("figstep_tiny", str(published / "tiny"), "", "", False)
    assert sorted(published.rglob("*")) == before
    told = capsys.readouterr().out
    assert "configs/eval/figstep.py" in told and "--config.benchmark.name=figstep_tiny" in told
    assert "licence: MIT" in told and "50" in told


def test_a_damaged_picture_is_found(published, tmp_path):
    registry.get("figstep_tiny").stand_in(tmp_path)
    picture = tmp_path / "data" / "images" / "SafeBench-Tiny" / "query_ForbidQI_2_3_6.png"
    picture.write_bytes(picture.read_bytes()[:-30])
    message = (
        r"1 of 50 pictures are not readable, first .*query_ForbidQI_2_3_6\.png: .+; get .+; or set .*on_bad_picture="
    )
    with pytest.raises(errors.UserError, match=message):
        benchmark_files.run("figstep_tiny", str(tmp_path), "", "", False)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (
            {},
            r"prepare xstest: give --source, the published files, or --stand_in, .*get xstest_prompts\.csv from https",
        ),
        ({"source": "x", "stand_in": True, "out": "y"}, "prepare xstest: give --source, the published files, or"),
        ({"source": "nowhere"}, r"nowhere: no such file or folder \(--source\); get xstest_prompts"),
        ({"source": ".", "out": "y"}, "prepare xstest: leave --out away; the published files are read where they are"),
        ({"stand_in": True}, "prepare xstest: give --out, the folder to write"),
        ({"stand_in": True, "out": "y", "images": "z"}, "prepare xstest: leave --images away"),
        ({"stand_in": True, "out": "."}, r"\. holds something already: remove it, or name another folder with --out"),
        ({"source": "."}, r"\.: holds no xstest_prompts\.csv; get xstest_prompts\.csv from https://github\.com/paul-r"),
    ],
)
def test_flags(tmp_path, monkeypatch, given, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "here").write_text("")
    flags = {"source": "", "images": "", "out": "", "stand_in": False} | given
    with pytest.raises(errors.UserError, match=message):
        benchmark_files.run("xstest", **flags)
    assert [path.name for path in tmp_path.iterdir()] == ["here"]


def broken(folder: pathlib.Path, kind: str) -> None:
    """A missing file, one of another number of rows, one that is none."""
    path = folder / "Fraud" / "TYPO.parquet"
    if kind == "missing":
        path.unlink()
    elif kind == "other":
        path.unlink()
        path.hardlink_to(folder / "Sex" / "TYPO.parquet")
    else:
        path.unlink()
        path.write_bytes(b"PAR1 and no more")


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("missing", r"Fraud/TYPO\.parquet: no such file; get data/\*/\*\.parquet from https"),
        ("other", r"Fraud/TYPO\.parquet: 6 questions, MM-SafetyBench has 7; download the file again"),
        ("damaged", r"Fraud/TYPO\.parquet: not a whole Parquet file .*; download the file again"),
    ],
)
def test_a_refusal_leaves_nothing(published, tmp_path, kind, message):
    folder = tmp_path / "data"
    for path in (published / "mm" / "data").rglob("*.parquet"):
        (folder / path.parent.name).mkdir(parents=True, exist_ok=True)
        (folder / path.parent.name / path.name).hardlink_to(path)
    broken(folder, kind)
    with pytest.raises(errors.UserError, match=message):
        benchmark_files.run("mm_safetybench", str(tmp_path), "", str(tmp_path / "new" / "out"), False)
    assert [path.name for path in tmp_path.iterdir()] == ["data"]


def test_an_index_that_comes_twice(published, tmp_path):
    text = (published / "tsv" / "MMSafetyBench.tsv").read_text().replace("\n7\t", "\n6\t")
    (tmp_path / "MMSafetyBench.tsv").write_text(text)
    with pytest.raises(errors.UserError, match=r"MMSafetyBench\.tsv: line 9: the index '6' comes twice"):
        benchmark_files.run("mm_safetybench_vlmevalkit", str(tmp_path), "", str(tmp_path / "out"), False)


def test_every_benchmark_has_a_config():
    for name in commands.BENCHMARKS:
        (known,) = [known for known in benchmark_files.CONFIGS if name.startswith(known)]
        assert (source.ROOT / "configs" / "eval" / f"{known}.py").is_file()


def test_the_command(tmp_path):
    """Stand-ins, and one line and exit code 2 where there is nothing to read."""

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        line = [sys.executable, "-m", "vlguard_jax.prepare", *arguments]
        return subprocess.run(line, cwd=tmp_path, capture_output=True, text=True, timeout=source.PATIENCE)

    done = run("strongreject_small", "--stand_in", "--out=made")
    assert done.returncode == 0 and "StrongREJECT, the small set in made" in done.stdout, done.stderr
    done = run("strongreject_small")
    assert done.returncode == 2 and len(done.stderr.splitlines()) == 1 and "--stand_in" in done.stderr
    done = run("strongreject_small", "--source=made", "--metadata=x")
    assert done.returncode == 2 and "takes no --metadata" in done.stderr

"""`prepare` through the real command; index and inspect with a model folder that has no weights."""

from __future__ import annotations

import json
import pathlib
import shutil
import subprocess
import sys

import numpy as np
import pytest

from tests import source
from tests.training import stand
from vlguard_jax import config
from vlguard_jax import errors
from vlguard_jax.checkpoints import export
from vlguard_jax.checkpoints import load
from vlguard_jax.preparing import index
from vlguard_jax.preparing import inspect

ROOT = pathlib.Path(__file__).parents[2]


@pytest.fixture(scope="module")
def bare(tmp_path_factory) -> pathlib.Path:
    return stand.bare(tmp_path_factory.mktemp("bare"))


def run(folder: pathlib.Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "vlguard_jax.prepare", *arguments]
    env = {
        "PATH": "/usr/bin:/bin",
        "HOME": str(folder),
        "PYTHONPATH": str(ROOT),
        "JAX_PLATFORMS": "cpu",
        "HF_HUB_OFFLINE": "1",
    }
    return subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, timeout=source.PATIENCE)


def settings(
    bare: pathlib.Path, tmp_path: pathlib.Path, model: pathlib.Path | None = None, **data
) -> config.TrainConfig:
    source = config.SourceSettings(path=str(bare / "chats.json"), images=str(bare / "pictures"))
    given = {"sources": {"chats": source}, "cache": str(tmp_path / "cache"), **data}
    return stand.settings(model={"path": str(model or bare / "model")}, data=given)


def test_index_prints_figures_writes_them_and_finds_them_again(bare):
    own = "--config.data.cache=counts"  # other tests of this file count the same conversations
    first = run(
        bare, "index", "--config=config.py", own, "--config.data.mode=pack", "--shards=2", "--json=out/figures.json"
    )
    assert first.returncode == 0 and not first.stderr, first.stderr
    value = json.loads((bare / "out" / "figures.json").read_text())
    (source,) = value["sources"]
    assert (source["conversations"], source["pictures"], value["files_counted"]) == (stand.COUNT, 18, 1)
    assert (
        value["plan"]["mode"],
        value["plan"]["shards"],
        value["plan"]["steps"],
        value["plan"]["steps_per_epoch"],
    ) == ("pack", 2, 6, 3)
    shares = f"{100 * source['supervised_share']:.1f} %"
    for words in (
        f"{source['tokens']:,}",
        shares,
        "\u2588",
        "1 file counted; the counts are kept in counts",
        "2 row shards",
        "computed tokens per token",
    ):
        assert words in first.stdout
    again = run(bare, "index", "--config=config.py", own)
    assert again.returncode == 0 and "all from the cache counts" in again.stdout
    assert [line for line in again.stdout.splitlines() if "learned" in line] == [
        line for line in first.stdout.splitlines() if "learned" in line
    ]


def test_inspect_prints_a_step_and_writes_a_page(bare):
    done = run(bare, "inspect", "--config=config.py", "--step=1", "--rows=3", "--out=out/page.html")
    assert done.returncode == 0 and not done.stderr, done.stderr
    for words in (
        "step 1 of 6, counted from 0 (update 2 in the log), epoch 0",
        "row 2:",
        "5 more rows",
        ".png: 9 slots]",
        "a red circle",
    ):
        assert words in done.stdout
    page = (bare / "out" / "page.html").read_text()
    assert "<title>Step 1 of 6</title>" in page and page.count("<img") == 3 and '<main class="unsafe">' in page
    assert "\u00ab" in done.stdout and "\x1b" not in done.stdout  # no colours where nobody sees them


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["inspect", "--config=config.py", "--step=6"], "--step=6: the run has 6 steps, 0 to 5"),
        (["inspect", "--config=config.py", "--step=-1"], "flag --step=-1: must be a whole number from 0 to "),
        (["inspect"], "prepare inspect needs --config"),
        (["vlgard"], "prepare cannot do 'vlgard'; did you mean 'vlguard'?\n"),
        (["vlguard", "--out=x"], "prepare vlguard needs --metadata, a folder with train.json and test.json: data/"),
        (["vlguard", "--metadata=x"], "prepare vlguard needs --out\n"),
        (["vlguard", "--metadata=nowhere", "--out=x"], "nowhere: no such folder (--metadata)\n"),
        (["vlguard", "more"], "prepare vlguard takes no further argument, but got 'more'\n"),
        (
            ["index", "--config=none.py"],
            "--config=none.py: no such file, and nothing of this name comes with the program; known: llama3",
        ),
        (
            ["index", "--config=config.py", "--step=3"],
            "prepare index takes no --step; it takes --config, --shards, --json, --list_bad",
        ),
        (
            ["index", "--config=config.py", "--config.data.sources.nobody.path=x"],
            "x: no such file (config.data.sources.nobody.path)",
        ),
        (
            ["index", "--config=config.py", "--config.data.sources.nobody.pth=x"],
            "config.data.sources.nobody.pth is not a setting; did you mean config.data.sources.nobody.path?",
        ),
        (
            ["index", "--config=config.py", "--config.model.path="],
            "config.model.path is empty: name a checkpoint folder or hub id",
        ),
        (
            ["index", "--config=config.py", "--config.run.rows=4", "--shards=3"],
            "config.run.rows=4 must be a multiple of the 3 row shards",
        ),
    ],
)
def test_user_mistakes(bare, arguments, message):
    done = run(bare, *arguments)
    assert done.returncode == 2 and done.stderr.startswith(f"error: {message}") and len(done.stderr.splitlines()) == 1


def test_without_a_sub_command_it_says_what_it_can_do(bare):
    done = run(bare)
    assert done.returncode == 0 and "--stand_in_images" in done.stdout


def test_index_lists_everything_that_is_bad(bare, tmp_path, capsys):
    chats = json.loads((bare / "chats.json").read_text())
    chats[1]["image"] = "none.png"
    chats[2]["conversations"] = []
    chats[4]["conversations"][1]["value"] = ""
    (tmp_path / "bad.json").write_text(json.dumps(chats))
    shutil.copytree(bare / "pictures", tmp_path / "pictures")
    whole = (tmp_path / "pictures" / "3.png").read_bytes()
    (tmp_path / "pictures" / "3.png").write_bytes(whole[: len(whole) // 2])
    source = config.SourceSettings(path=str(tmp_path / "bad.json"), images=str(tmp_path / "pictures"))
    given = settings(bare, tmp_path, sources={"chats": source}, check_pictures="decode")
    with pytest.raises(errors.UserError, match=r"config\.data\.on_(bad_record|mismatch)="):
        index.run(given)
    index.run(given, bad_file=str(tmp_path / "new" / "bad.jsonl"))
    lines = [json.loads(line) for line in (tmp_path / "new" / "bad.jsonl").read_text().splitlines()]
    assert {line["origin"].split("record ")[1].split()[0] for line in lines} == {"1", "2", "3", "4"}
    assert {line["source"] for line in lines} == {"chats"} and all(line["reason"] for line in lines)
    assert "4 records that cannot be used are listed in" in capsys.readouterr().out


def test_a_file_that_cannot_be_written(bare, tmp_path):
    (tmp_path / "file").write_text("")
    for flag in ("json_file", "bad_file"):
        with pytest.raises(errors.UserError, match=r"file/x cannot be written: .+; choose another file$"):
            index.run(settings(bare, tmp_path), **{flag: str(tmp_path / "file" / "x")})


def test_an_exported_model_tells_its_sizes_without_its_arrays(bare, tmp_path):
    folder = tmp_path / "orbax"
    folder.mkdir()
    export.save_export(load.load(stand.folder() / "init"), folder)
    shutil.rmtree(folder / "arrays")
    ours = inspect.run(settings(bare, tmp_path, model=folder), rows=1)
    theirs = inspect.run(settings(bare, tmp_path), rows=1)
    for one, other in zip(ours.conversations, theirs.conversations, strict=True):
        np.testing.assert_array_equal(one.tokens, other.tokens)


def test_every_step_can_be_looked_at_from_workers_too(bare, tmp_path):
    one = inspect.run(settings(bare, tmp_path), step=5, rows=1)
    other = inspect.run(settings(bare, tmp_path, read_workers=1), step=5, rows=1)
    assert [c.id for c in one.conversations] == [c.id for c in other.conversations] and len(one.conversations) == 8

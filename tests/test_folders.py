"""Folders that are there whole or not at all, and of several that write one, a single winner."""

from __future__ import annotations

import errno
import os
import pathlib
import subprocess
import sys

import pytest

from tests import source
from vlguard_jax import errors
from vlguard_jax import folders


@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "x"), SystemExit(75)])
def test_a_new_folder_is_whole_or_not_there(tmp_path: pathlib.Path, error: BaseException) -> None:
    target = tmp_path / "a" / "b"
    with pytest.raises(type(error)), folders.new_folder(target) as folder:
        (folder / "x").write_text("half")
        raise error
    assert list(tmp_path.iterdir()) == []
    with folders.new_folder(target) as folder:
        (folder / "x").write_text("old")
    with pytest.raises(type(error)), folders.new_folder(target, replace=True) as folder:
        raise error
    with pytest.raises(errors.UserError, match="something is there already"), folders.new_folder(target) as folder:
        (folder / "x").write_text("another")
    assert (target / "x").read_text() == "old" and list(target.parent.iterdir()) == [target]
    with folders.new_folder(target, replace=True) as folder:
        (folder / "x").write_text("new")
    assert (target / "x").read_text() == "new" and list(target.parent.iterdir()) == [target]


def _tree(folder: pathlib.Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


def test_what_was_there_before_stays(tmp_path: pathlib.Path) -> None:
    """Folders of others that look like a temporary one, links, files."""
    for name in (".a.partial", "a.partial", ".a.old"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "kept").touch()
    (tmp_path / "file").touch()
    (tmp_path / "link").symlink_to(".a.old")
    before = _tree(tmp_path)
    for name in ("file", "link"):
        with (
            pytest.raises(errors.UserError, match=r"file: something is there|link is a link to"),
            folders.new_folder(tmp_path / name),
        ):
            pass
    with pytest.raises(SystemExit), folders.new_folder(tmp_path / "a"):
        raise SystemExit
    assert _tree(tmp_path) == before
    with folders.new_folder(tmp_path / "a") as folder:
        (folder / "mine").touch()
    assert _tree(tmp_path) == sorted([*before, "a", "a/mine"])


def test_what_took_the_place_meanwhile_stays(tmp_path: pathlib.Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "old").touch()
    with (
        pytest.raises(errors.UserError, match="another process has written it meanwhile"),
        folders.new_folder(tmp_path / "a", replace=True),
    ):
        (tmp_path / "a").rename(tmp_path / "elsewhere")
        (tmp_path / "a").mkdir()
        (tmp_path / "a" / "theirs").touch()
    assert _tree(tmp_path) == ["a", "a/theirs", "elsewhere", "elsewhere/old"]


RACE = """
import pathlib, sys, time
from vlguard_jax import errors, folders
try:
    with folders.new_folder(pathlib.Path(sys.argv[1])) as folder:
        for part in "abc":
            (folder / part).write_text(sys.argv[2])
        print("ready", flush=True)
        sys.stdin.readline()
except errors.UserError as e:
    sys.exit(str(e))
"""


def test_processes_that_race_for_a_folder(tmp_path: pathlib.Path) -> None:
    """All are let go at once; one has it, whole, the others say so."""
    target = tmp_path / "new" / "a"
    command = [sys.executable, "-c", RACE, str(target)]
    pipes = {
        "stdin": subprocess.PIPE,
        "stdout": subprocess.PIPE,
        "stderr": subprocess.PIPE,
        "text": True,
        "cwd": source.ROOT,
    }
    racing = [subprocess.Popen([*command, str(i)], **pipes) for i in range(4)]
    for one in racing:
        assert one.stdout.readline() == "ready\n"
    for one in racing:
        one.stdin.write("go\n")
        one.stdin.flush()
    ended = [one.communicate(timeout=source.PATIENCE) for one in racing]
    winners = [i for i, one in enumerate(racing) if one.returncode == 0]
    assert len(winners) == 1 and sum("something is there already" in said for _, said in ended) == 3
    assert {path.name: path.read_text() for path in target.iterdir()} == dict.fromkeys("abc", str(winners[0]))
    assert os.listdir(tmp_path / "new") == ["a"]


def test_a_name_of_any_length(tmp_path: pathlib.Path) -> None:
    for name in ("n" * 255, "é" * 127, "." + "x" * 200):
        with folders.new_folder(tmp_path / name) as folder:
            (folder / "x").touch()
    assert len(list(tmp_path.iterdir())) == 3


def test_what_can_be_no_name_is_refused_before_anything_is_made(tmp_path: pathlib.Path) -> None:
    def made() -> None:
        pytest.fail("something was made")

    with (
        pytest.raises(errors.UserError, match=r"'.*a\\x00b': not a possible name of a folder"),
        folders.new_folder(tmp_path / "a\0b"),
    ):
        made()
    for name in ("new/" + "n" * 256, "d/" * 3000):
        with pytest.raises(OSError) as raised, folders.new_folder(tmp_path / name):
            made()
        assert raised.value.errno == errno.ENAMETOOLONG and not list(tmp_path.iterdir())


def test_programs_of_strangers_are_not_run(tmp_path: pathlib.Path) -> None:
    folders.check_programs({})
    for fine in (tmp_path, tmp_path / "new", "gs://bucket/programs"):
        folders.check_programs({"JAX_COMPILATION_CACHE_DIR": str(fine)})
    tmp_path.chmod(0o777)
    with pytest.raises(errors.UserError, match=r"JAX_COMPILATION_CACHE_DIR=.* can be written to by everyone"):
        folders.check_programs({"JAX_COMPILATION_CACHE_DIR": str(tmp_path)})
    tmp_path.chmod(0o755)
    os.chown(tmp_path, 12345, -1) if os.geteuid() == 0 else pytest.skip("only root can give a folder away")
    with pytest.raises(
        errors.UserError, match="is another user's, and programs kept there are run; name a folder of your own"
    ):
        folders.check_programs({"JAX_COMPILATION_CACHE_DIR": str(tmp_path)})


def test_what_a_killed_writer_left_is_swept_and_nothing_else(tmp_path: pathlib.Path) -> None:
    program = (
        "import os, pathlib, sys\nfrom vlguard_jax import folders\n"
        "with folders.scratch(pathlib.Path(sys.argv[1]), 'a') as new:\n    (new / 'half').write_text('x')\n   "
        " os._exit(9)\n"
    )
    assert subprocess.run([sys.executable, "-c", program, str(tmp_path)], cwd=source.ROOT).returncode == 9
    (left,) = tmp_path.iterdir()
    name = left.name.replace(".a.", ".b.")
    (tmp_path / ".p.partial").mkdir()  # others' own
    (tmp_path / f"x{name}").mkdir()
    (tmp_path / name).symlink_to(tmp_path / ".p.partial", target_is_directory=True)
    with folders.scratch(tmp_path, "live") as live:
        folders.sweep(tmp_path)
        assert sorted(path.name for path in tmp_path.iterdir()) == sorted([".p.partial", f"x{name}", name, live.name])


def test_what_cannot_be_swept_stays(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another user's, or one that its writer takes away just now."""
    (left := tmp_path / f".a.{'0' * 16}.partial").mkdir()
    for number in (errno.EACCES, errno.ENOENT):

        def refuse(path: pathlib.Path, flags: int, number: int = number) -> int:
            raise OSError(number, "x", str(path))

        with monkeypatch.context() as patched:
            patched.setattr(folders.os, "open", refuse)
            folders.sweep(tmp_path)
        assert left.is_dir()
    folders.sweep(tmp_path)
    assert not left.exists()


@pytest.mark.parametrize("when", ["before it is opened", "before it is locked"])
def test_a_folder_that_is_swept_before_it_is_locked_is_made_again(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    opened, taken = folders._opened, []

    def raced(folder: pathlib.Path) -> int:
        descriptor = opened(folder) if taken or when == "before it is locked" else -1
        if not taken:
            taken.append(folder)
            folder.rmdir()
        return descriptor if descriptor >= 0 else opened(folder)

    monkeypatch.setattr(folders, "_opened", raced)
    with folders.scratch(tmp_path, "a") as new:
        assert new.is_dir() and taken != [new]
    assert not list(tmp_path.iterdir())


@pytest.fixture
def files_only(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Folders cannot be renamed; the names of renamed files, in order. With "fails" in it the third one fails."""
    rename, names = os.rename, []

    def renaming(old: os.PathLike[str], new: os.PathLike[str]) -> None:
        if os.path.isdir(old):
            raise OSError(errno.EMFILE, "too many open files")
        if "fails" in names and len(names) > 2:
            names.clear()
            raise OSError(errno.EIO, "input/output error")
        names.append(os.path.basename(old))
        rename(old, new)

    monkeypatch.setattr(os, "rename", renaming)
    return names


def test_where_files_only_can_be_renamed_a_manifest_comes_last(tmp_path: pathlib.Path, files_only: list[str]) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out/old").write_text("before")
    with folders.new_folder(tmp_path / "out", replace=True) as new:
        for name in ("manifest.json", "config.json", "z.safetensors", "below/deep/a.txt"):
            (new / name).parent.mkdir(parents=True, exist_ok=True)
            (new / name).write_text(name)
        (new / "empty").mkdir()
    assert files_only == ["old", "a.txt", "z.safetensors", "config.json", "manifest.json"]
    assert [entry.name for entry in tmp_path.iterdir()] == ["out"]
    found = sorted(str(path.relative_to(tmp_path / "out")) for path in (tmp_path / "out").rglob("*"))
    assert found == [
        "below",
        "below/deep",
        "below/deep/a.txt",
        "config.json",
        "empty",
        "manifest.json",
        "z.safetensors",
    ]


def test_a_renaming_that_fails_midway_leaves_what_was_there(tmp_path: pathlib.Path, files_only: list[str]) -> None:
    for name in ("out/one", "out/two", "out/three"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(name)
    files_only.append("fails")
    with pytest.raises(OSError, match="input/output"), folders.new_folder(tmp_path / "out", replace=True) as new:
        (new / "a").write_text("new")
    assert {path.name: path.read_text() for path in (tmp_path / "out").iterdir()} == {
        name: f"out/{name}" for name in ("one", "two", "three")
    }
    assert [entry.name for entry in tmp_path.iterdir()] == ["out"]

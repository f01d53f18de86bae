"""Configs and launch files are found by name, from any folder; a file of one's own comes first."""

from __future__ import annotations

import os
import pathlib
import subprocess
import sys

import pytest

from tests import source
from vlguard_jax import errors
from vlguard_jax import shipped

CONFIGS = source.ROOT / "configs"


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> pathlib.Path:
    """An empty folder to be in."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("name", "command", "expected"),
    [
        ("llava_v15_7b_posthoc", "train", "train/llava_v15_7b_posthoc.py"),
        ("llava_v15_7b_posthoc", "evaluate", "released/llava_v15_7b_posthoc.py"),
        ("train/rehearsal", "train", "train/rehearsal.py"),
        ("rehearsal:lora", "train", "train/rehearsal.py:lora"),
        ("configs/eval/vlguard.py:llava", "evaluate", "eval/vlguard.py:llava"),
        ("vlguard", "evaluate", "eval/vlguard.py"),
        ("vlguard", "curate", "curate/vlguard.py"),
        ("vlguard", "plan", "eval/vlguard.py"),
        ("llama_guard", "prepare", "clean/llama_guard.py"),
        ("eval/vlguard", "train", "eval/vlguard.py"),  # what is in it, the command says
    ],
)
def test_a_name_is_a_config(name: str, command: str, expected: str) -> None:
    assert shipped.config(name, command) == str(CONFIGS / expected)


@pytest.mark.parametrize("path", sorted(CONFIGS.rglob("*.py")), ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_every_config_has_a_name_for_its_command(path: pathlib.Path) -> None:
    commands = [name for name, folders in shipped.FOLDERS.items() if name != "plan" and path.parent.name in folders]
    assert commands and all(shipped.config(path.stem, command) == str(path) for command in commands)
    assert shipped.config(f"{path.parent.name}/{path.stem}", "plan") == str(path)


def test_a_file_of_ones_own_comes_first(elsewhere: pathlib.Path) -> None:
    for name in ("rehearsal", "mine.py"):
        (elsewhere / name).write_text("")
    assert shipped.config("rehearsal:x", "train") == "rehearsal:x"
    assert shipped.config("mine.py", "train") == "mine.py"
    (elsewhere / "xstest").mkdir()  # a run's folder is no config
    assert shipped.config("xstest", "evaluate") == str(CONFIGS / "eval/xstest.py")


@pytest.mark.parametrize(
    ("name", "command", "words"),
    [
        ("rehersal", "train", ("--config=rehersal: no such file", "did you mean 'rehearsal'?")),
        ("eval/vlgard.py:llava", "evaluate", ("--config=eval/vlgard.py:llava", "did you mean 'eval/vlguard'?")),
        (
            "llava_v15_7b_posthoc:x",
            "plan",
            ("several have this name; say which: train/llava_v15_7b_posthoc or released/llava_v15_7b_posthoc",),
        ),
        ("", "train", ("no such file",)),
        ("../configs/train/rehearsal", "train", ("no such file",)),
        ("a\0b", "train", ("no such file",)),
        ("x" * 100_000, "train", ("no such file",)),
    ],
)
def test_another_name_is_told_in_one_line(name: str, command: str, words: tuple[str, ...]) -> None:
    with pytest.raises(errors.UserError) as caught:
        shipped.config(name, command)
    assert all(word in str(caught.value) for word in words) and len(str(caught.value)) < 2000, str(caught.value)


@pytest.mark.parametrize("name", ["posthoc_7b", "examples/posthoc_7b", "launch/examples/posthoc_7b.toml"])
def test_a_launch_file_has_names_too(name: str) -> None:
    assert shipped.launch_file(name) == source.ROOT / "launch/examples/posthoc_7b.toml"
    with pytest.raises(errors.UserError, match=r"table22: no such file.*did you mean 'table2'"):
        shipped.launch_file("table22")


def command(*words: str) -> subprocess.CompletedProcess[str]:
    """Run a command from the empty folder."""
    return subprocess.run(
        [sys.executable, "-m", "vlguard_jax", *words], capture_output=True, text=True, timeout=source.PATIENCE
    )


def test_the_commands_take_names() -> None:
    done = command("train", "--config", "rehearsal:lora", "--print_config", "--config.seed=3")
    assert done.returncode == 0, done.stderr
    assert "config.seed = 3   [command line]" in done.stdout
    assert "config.lora.rank = 128   [rehearsal:lora]" in done.stdout
    done = command("plan", "--config=llava_v15_7b_posthoc")
    assert done.returncode == 2 and "say which: train/llava_v15_7b_posthoc or" in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_launch_files_are_rendered_from_anywhere(elsewhere: pathlib.Path) -> None:
    done = command("render", "--target=gke", "sweep", "--out=launched")
    assert done.returncode == 0 and "start with: cd launched" in done.stdout, done.stderr
    gather = (elsewhere / "launched/gather.sh").read_text()
    assert "python -m vlguard_jax.gather --root=results" in gather
    done = command("gather", "--root=results", "a=b")
    assert done.returncode == 2 and "is --root the folder above theirs?" in done.stderr, done.stderr


def test_a_step_of_a_launch_file_names_its_config(elsewhere: pathlib.Path) -> None:
    text = (source.ROOT / "launch/examples/posthoc_7b.toml").read_text()
    mine = elsewhere / "mine.toml"
    mine.write_text(text.replace("configs/train/llava_v15_7b_posthoc.py", "llava_v15_7b_posthoc"))
    done = command("render", "--target=gke", "mine.toml", "--dry_run")
    assert done.returncode == 0 and "--config=llava_v15_7b_posthoc" in done.stdout, done.stderr
    mine.write_text(text.replace("configs/train/llava_v15_7b_posthoc.py", "llava_v15_7b_posthock"))
    done = command("render", "--target=gke", "mine.toml", "--dry_run")
    assert done.returncode == 2 and "did you mean 'llava_v15_7b_posthoc'" in done.stderr, done.stderr


def test_a_package_without_its_launch_folder_says_so(elsewhere: pathlib.Path) -> None:
    (elsewhere / "vlguard_jax").symlink_to(source.PACKAGE)  # the package alone
    env = os.environ | {"PYTHONPATH": str(elsewhere)}
    line = [sys.executable, "-P", "-m", "vlguard_jax.plan", "--sweep", "table2"]
    done = subprocess.run(line, env=env, capture_output=True, text=True, timeout=source.PATIENCE)
    assert done.returncode == 2 and "launch is missing, which comes with the program" in done.stderr, done.stderr
    assert "Traceback" not in done.stderr

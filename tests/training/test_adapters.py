"""The adapters of a run come out of its checkpoints as the run itself would have written them."""

from __future__ import annotations

import pathlib
import shutil
import subprocess
import sys

import pytest

from tests import source
from tests.training import stand
from vlguard_jax.training import loop

pytestmark = pytest.mark.parity  # with the trainings

UPDATES = 2


def convert(src: pathlib.Path, dst: pathlib.Path, *flags: str) -> subprocess.CompletedProcess[str]:
    line = [sys.executable, "-m", "vlguard_jax.convert", f"--src={src}", f"--dst={dst}", "--to=peft", *flags]
    return subprocess.run(line, cwd=source.ROOT, capture_output=True, text=True, timeout=source.PATIENCE)


def contents(folder: pathlib.Path) -> dict[str, bytes]:
    """What the weights and settings of a folder are; its card and manifest tell where it was written."""
    own = ("README.md", "manifest.json")
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file() and path.name not in own}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """A finished LoRA run that exported its model with merged adapters."""
    folder = tmp_path_factory.mktemp("of_run") / "mine"
    settings = {"lora": {"rank": 4, "dropout": 0.3}, "optimizer": {"max_steps": UPDATES}}
    loop.train(stand.settings(**settings, run={"export": "llava"}), folder)
    return folder


def test_they_are_what_the_run_would_have_exported(run: pathlib.Path, tmp_path: pathlib.Path) -> None:
    shutil.copytree(run, tmp_path / "again")
    lora, optimizer = {"rank": 4, "dropout": 0.3}, {"max_steps": UPDATES}
    loop.train(stand.settings(lora=lora, optimizer=optimizer, run={"export": "peft"}), tmp_path / "again")
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    done = convert(run, tmp_path / "adapters")
    assert done.returncode == 0, done.stderr
    assert f"checkpoints/{UPDATES}: its arrays have their checksums" in done.stdout
    ours, theirs = contents(tmp_path / "adapters"), contents(tmp_path / "again/model")
    assert ours.keys() == theirs.keys() and len(ours["adapter_model.safetensors"]) > 1000
    for name in ours:
        if name != "config.json":  # has the record of how it was tuned
            assert ours[name] == theirs[name], name
    assert before == {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}


def test_a_changed_number_is_found(run: pathlib.Path, tmp_path: pathlib.Path) -> None:
    shutil.copytree(run, tmp_path / "spoilt")
    state = tmp_path / "spoilt/checkpoints" / str(UPDATES) / "state"
    for path in state.rglob("d/*"):
        content = bytearray(path.read_bytes())
        content[len(content) // 4 :: 500] = (b ^ 1 for b in content[len(content) // 4 :: 500])
        path.write_bytes(content)
    done = convert(tmp_path / "spoilt", tmp_path / "adapters")
    assert done.returncode == 2 and done.stderr.count("\n") == 1 and "spoilt/checkpoints" in done.stderr, done.stderr
    assert not (tmp_path / "adapters").exists()


@pytest.mark.parametrize(
    ("flag", "words"), [("--base=elsewhere", "--base: "), ("--to=hf", "is the working directory of a training")]
)
def test_what_has_no_sense_is_said(run: pathlib.Path, tmp_path: pathlib.Path, flag: str, words: str) -> None:
    done = convert(run, tmp_path / "adapters", flag)
    assert done.returncode == 2 and done.stderr.count("\n") == 1 and words in done.stderr, done.stderr


def test_a_run_without_adapters(tmp_path: pathlib.Path) -> None:
    loop.train(stand.settings(optimizer={"max_steps": 1}), tmp_path / "full")
    done = convert(tmp_path / "full", tmp_path / "adapters")
    assert done.returncode == 2 and "tunes all weights, so it has no adapters" in done.stderr, done.stderr

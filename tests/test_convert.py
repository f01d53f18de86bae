"""The command as a user types it."""

from __future__ import annotations

import hashlib
import pathlib
import shutil
import subprocess
import sys
from typing import Any

import numpy as np
import pytest

from tests import source
from tests.checkpoints import made
from tests.checkpoints import tiny
from vlguard_jax import errors
from vlguard_jax import trees
from vlguard_jax.checkpoints import conversion
from vlguard_jax.checkpoints import describe
from vlguard_jax.checkpoints import load
from vlguard_jax.checkpoints import lora
from vlguard_jax.checkpoints import save
from vlguard_jax.checkpoints import save_adapters


def run(*args: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "vlguard_jax.convert", *map(str, args)]
    return subprocess.run(command, cwd=source.ROOT, capture_output=True, text=True, timeout=source.PATIENCE)


@pytest.fixture(scope="module")
def adapter(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """A folder with an adapter (runs/lora) and its base (base)."""
    folder = tmp_path_factory.mktemp("models")
    save.save_llava(made.model(), folder / "base")
    save_adapters.save_peft(made.model(made.LORA, base=made.on("base")), folder / "runs/lora")
    return folder


def test_merge_into_hf(adapter: pathlib.Path, tmp_path: pathlib.Path) -> None:
    done = run("--src", adapter / "runs/lora", "--dst", tmp_path / "hf", "--to", "hf", "--dtype", "fp16")
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0] == f"{adapter / 'runs/lora'}: compared with its manifest.json"
    assert lines[1] == "adapters: 4 modules matched of 4, all of which change their layer"
    assert lines[2].startswith(f"{adapter / 'runs/lora'}: 4 of its tensors are not used: 'model.mm_projector.0.bias")
    assert lines[3].startswith(f"{tmp_path / 'hf'}: written as hf: 80 tensors (80 float16), ") and len(lines) == 4
    expected = lora.merge(load.load(adapter / "runs/lora"))
    found = load.load(tmp_path / "hf")
    assert found.lora is None
    np.testing.assert_array_equal(
        found.params["text"]["layers"]["attention"]["q_proj"]["kernel"],
        expected.params["text"]["layers"]["attention"]["q_proj"]["kernel"].astype(np.float16),
    )
    again = run("--src", adapter / "runs/lora", "--dst", tmp_path / "hf", "--to", "peft")
    assert again.returncode == 2 and "is there already" in again.stderr and again.stderr.count("\n") == 1
    replaced = run("--src", adapter / "runs/lora", "--dst", tmp_path / "hf", "--to", "peft", "--overwrite")
    assert replaced.returncode == 0, replaced.stderr
    tiny.assert_same_model(load.load(tmp_path / "hf", base=str(adapter / "base")), load.load(adapter / "runs/lora"))


def test_adapters_for_peft(adapter: pathlib.Path, tmp_path: pathlib.Path) -> None:
    """The base is written as llava-hf and named; of the folder in LLaVA's layout they would change nothing."""
    refused = run("--src", adapter / "runs/lora", "--dst", tmp_path / "lora", "--to", "peft-hf")
    assert refused.returncode == 2 and "base is not a llava-hf folder" in refused.stderr
    assert refused.stderr.count("\n") == 1 and not (tmp_path / "lora").exists()
    save.save_hf(load.load(adapter / "base"), tmp_path / "hf")
    tower = adapter / "base/vision_tower"
    given = ("--base", tmp_path / "hf", "--vision_tower", tower)
    done = run("--src", adapter / "runs/lora", "--dst", tmp_path / "lora", "--to", "peft-hf", *given)
    assert done.returncode == 0, done.stderr
    found, expected = load.load(tmp_path / "lora"), load.load(adapter / "runs/lora")
    tiny.assert_same_arrays(trees.flatten(found.params), trees.flatten(expected.params))
    assert found.base is not None and found.base.name == str(tmp_path / "hf")


def test_adapters_that_do_not_fit(adapter: pathlib.Path, tmp_path: pathlib.Path) -> None:
    shutil.copytree(adapter / "runs/lora", tmp_path / "lora")
    tiny.change_json(tmp_path / "lora/adapter_config.json", r=3)
    (tmp_path / "lora/manifest.json").unlink()
    given = ("--base", adapter / "base", "--dst", tmp_path / "hf", "--to", "hf")
    done = run("--src", tmp_path / "lora", *given)
    assert done.returncode == 2 and "is not of rank 3, which" in done.stderr and done.stderr.count("\n") == 1
    assert not (tmp_path / "hf").exists()


def test_inspect(adapter: pathlib.Path) -> None:
    done = run("--inspect", adapter / "runs/lora")
    assert done.returncode == 0, done.stderr
    text = " ".join(done.stdout.split())
    for part in (
        "layout peft",
        "rank 2, alpha 6, dropout 0.1 on q_proj, down_proj",
        "llama, 2 layers, width 8",
        "float32; 0.000 GiB",
        "tokenizer none",
    ):
        assert part in text, done.stdout


def test_inspect_with_hashes(adapter: pathlib.Path, tmp_path: pathlib.Path) -> None:
    folder = tmp_path / "base"
    shutil.copytree(adapter / "base", folder)
    lines = describe.hashes(folder)
    expected = load.load(folder).weights_sha256
    assert lines["weights sha256"] == expected and lines["manifest.json"] == "all files that it lists are as it says"
    digest = hashlib.sha256((folder / "config.json").read_bytes()).hexdigest()
    assert lines["sha256 of config.json"] == digest and "sha256 of manifest.json" not in lines
    (folder / "config.json").write_bytes((folder / "config.json").read_bytes() + b" ")
    lines = describe.hashes(folder)
    assert lines["manifest.json"].startswith("DIFFERS: config.json; ") and "weights sha256" not in lines
    (folder / "manifest.json").unlink()
    lines = describe.hashes(folder)
    assert lines["manifest.json"].startswith("none, ") and lines["weights sha256"] == expected
    assert "original LLaVA's, safetensors" in describe.describe(folder)["names"]


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ([], "error: give --src, --dst and --to, or --inspect"),
        (["--inspect", "a", "--src", "a"], "error: --inspect only describes a checkpoint: leave it out, or --src"),
        (["--inspect", "no/such/folder"], "error: 'no/such/folder': no such folder, and not a hub id"),
        (["somewhere"], "error: unexpected argument 'somewhere'"),
        (["--to", "tf"], "error: "),
    ],
)
def test_mistakes(args: list[str], message: str) -> None:
    done = run(*args)
    assert done.returncode == 2 and done.stderr.startswith(message) and done.stderr.count("\n") == 1


def test_what_another_process_wrote_meanwhile_is_not_overwritten(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also with --overwrite, which speaks of what was there when the command began."""
    save.save_llava(made.model(), tmp_path / "src")
    read = load.opened

    def slow(*args: Any, **given: Any) -> Any:
        save.save_hf(made.model(), tmp_path / "dst", overwrite=True)
        return read(*args, **given)

    given = {"parts": dict.fromkeys(("base", "vision_tower", "projector", "as_family"), ""), "overwrite": True}
    monkeypatch.setattr(load, "opened", slow)
    for _ in range(2):  # nothing was there; something was
        with pytest.raises(
            errors.UserError, match="dst: another process has written it meanwhile; what it wrote stays"
        ):
            src, dst = str(tmp_path / "src"), str(tmp_path / "dst")
            conversion.convert(src, dst, "llava", None, further=lambda *_: {}, **given)
        assert read(tmp_path / "dst").layout == "llava-hf"


def test_each_folder_gets_its_card(adapter: pathlib.Path, tmp_path: pathlib.Path) -> None:
    done = run("--src", adapter / "runs/lora", "--dst", tmp_path / "hf", "--to", "hf", "--license", "llama2")
    assert done.returncode == 0, done.stderr
    text = (tmp_path / "hf/README.md").read_text()
    assert text.startswith("---\n") and "license: llama2\n" in text and "# hf\n" in text
    assert load.load(adapter / "runs/lora").weights_sha256 in text
    given = ("--src", adapter / "base", "--dst", tmp_path / "other", "--to", "hf")
    refused = run(*given, "--card_from", adapter)
    assert refused.returncode == 2 and "no finished run below" in refused.stderr and refused.stderr.count("\n") == 1
    assert not (tmp_path / "other").exists()

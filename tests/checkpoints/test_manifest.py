"""manifest.json: what it says, and that no change of a folder passes it."""

from __future__ import annotations

import hashlib
import json
import os
import pathlib
import random
import shutil
from typing import Any

import pytest

from tests.checkpoints import made
from tests.faults import written
from vlguard_jax import errors
from vlguard_jax.checkpoints import load
from vlguard_jax.checkpoints import manifest
from vlguard_jax.checkpoints import place
from vlguard_jax.checkpoints import save


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    folder = tmp_path_factory.mktemp("written")
    written.write(folder)
    return folder


@pytest.mark.parametrize("layout", written.LAYOUTS)
def test_every_other_file_is_listed(folders: pathlib.Path, layout: str) -> None:
    found = json.loads((folders / layout / "manifest.json").read_text())
    files = {str(p.relative_to(folders / layout)): p.read_bytes() for p in (folders / layout).rglob("*") if p.is_file()}
    del files["manifest.json"]
    assert found["files"] == {
        name: {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()} for name, data in files.items()
    }
    assert found["schema"] == 1 and found["layout"].endswith(layout)


def test_the_census(folders: pathlib.Path) -> None:
    """Of the sizes in made.py: text 100 x 8 twice, a norm of 8, and 2 layers; tower and projector beside it, written
    twice by LLaVA's layout, where the tower has a folder of its own."""
    found = json.loads((folders / "hf/manifest.json").read_text())["census"]
    import safetensors.numpy

    arrays = [a for p in (folders / "hf").glob("*.safetensors") for a in safetensors.numpy.load_file(p).values()]
    assert found == {
        "tensors": len(arrays),
        "parameters": sum(a.size for a in arrays),
        "bytes": sum(a.nbytes for a in arrays),
        "dtypes": {"float32": len(arrays)},
    }


@pytest.mark.parametrize("layout", written.LAYOUTS)
def test_no_damage_is_loaded(folders: pathlib.Path, tmp_path: pathlib.Path, layout: str) -> None:
    """The short form of `make faults`, reader "written"."""
    rng = random.Random(5)
    for i in range(5):
        copy = tmp_path / str(i) / layout
        shutil.copytree(folders / layout, copy)
        what = written.damage(rng, copy)
        if (copy / "manifest.json").exists():
            with pytest.raises(errors.UserError) as caught:
                load.load(copy)
            assert str(copy) in str(caught.value) and "delete manifest.json if" in str(caught.value), what


@pytest.mark.parametrize("name", ["model.safetensors", "vision_tower/extra.json", "arrays/d/0"])
def test_a_file_that_a_load_could_read_is_not_added(folders: pathlib.Path, tmp_path: pathlib.Path, name: str) -> None:
    shutil.copytree(folders / "llava", tmp_path / "m")
    (tmp_path / "m/README.md").write_text("a card")
    manifest.check(tmp_path / "m")
    (tmp_path / "m" / name).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / "m" / name).write_text("x")
    with pytest.raises(errors.UserError, match="does not list it: remove it"):
        load.load(tmp_path / "m")


def test_the_base_of_adapters_is_compared_too(tmp_path: pathlib.Path) -> None:
    written.write(tmp_path)
    path = tmp_path / "llava/generation_config.json"
    path.write_text(path.read_text() + " ")
    with pytest.raises(errors.UserError, match=r"llava/generation_config\.json: has"):
        load.load(tmp_path / "peft")


def test_a_folder_that_nobody_may_look_into_is_not_called_damaged(
    folders: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.stat

    def stat(path: Any, *args: Any, **given: Any) -> os.stat_result:
        if str(path).endswith("vision_tower/config.json"):
            raise PermissionError(13, "Permission denied", str(path))
        return real(path, *args, **given)

    monkeypatch.setattr(os, "stat", stat)
    with pytest.raises(PermissionError):
        manifest.check(folders / "llava")


def test_a_later_schema_and_names_outside(folders: pathlib.Path, tmp_path: pathlib.Path) -> None:
    content = json.loads((folders / "hf/manifest.json").read_text())
    for change, said in (
        ({"schema": 2}, "schema is 2, this program reads 1"),
        ({"files": {"../x": {"bytes": 1, "sha256": "0" * 64}}}, "damaged"),
        ({"files": {"/x": {"bytes": 1, "sha256": "0" * 64}}}, "damaged"),
        ({"files": []}, "damaged"),
    ):
        (tmp_path / "manifest.json").write_text(manifest._dumped(content | change))
        with pytest.raises(errors.UserError, match=said):
            manifest.check(tmp_path)


def test_an_overwrite_knows_the_manifest(tmp_path: pathlib.Path) -> None:
    save.save_hf(made.model(), tmp_path / "m")
    place.check_free(tmp_path / "m", True)

"""What --overwrite may delete: a checkpoint, and nothing else."""

from __future__ import annotations

import pathlib

import pytest

from tests.checkpoints import made
from vlguard_jax import errors
from vlguard_jax.checkpoints import place
from vlguard_jax.checkpoints import save

WRITERS = {"llava": save.save_llava, "hf": save.save_hf, "orbax": save.save_orbax}


def test_where_a_model_cannot_be_written(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Told before anything is read, and nothing is left behind."""
    (tmp_path / "file").touch()
    (tmp_path / "link").symlink_to(tmp_path)
    (tmp_path / "here/home").mkdir(parents=True)
    monkeypatch.setenv("HOME", str(tmp_path / "here/home"))
    monkeypatch.chdir(tmp_path)
    before = sorted(tmp_path.rglob("*"))
    for dst, words in (
        ("file/x", "a part of this path is a file"),
        ("link", "is a link to"),
        ("link/", "is a link to"),
        ("link/here/home", "contains your home"),
        (".", "contains the working directory"),
        ("here/..", "contains the working directory"),
        ("..", "contains the working directory"),
        ("/", "contains the working directory"),
        ("here", "contains your home"),
        ("here/home", "contains your home"),
        ("x" * 300, "the name is too long"),
        ("x\0y", r"'x\\x00y': not a possible name of a folder"),
        ("file", "file is a file, and only a checkpoint is replaced"),
    ):
        with pytest.raises(errors.UserError, match=words):
            place.check_free(dst, True)
    with pytest.raises(errors.UserError, match="is there already"):
        place.check_free("file", False)
    place.check_free("new/folder", False)
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("layout", WRITERS)
@pytest.mark.parametrize(
    "name",
    ["notes.txt", "vision_tower/data.csv", "arrays/thesis.tex", ".git/config", "model/config.json", "config.json/x"],
)
def test_a_folder_with_other_files_is_not_overwritten(tmp_path: pathlib.Path, layout: str, name: str) -> None:
    WRITERS[layout](made.model(), tmp_path / "a")
    place.check_free(tmp_path / "a", True)
    foreign = tmp_path / "a" / name
    (tmp_path / "a/config.json").unlink(missing_ok=True)
    foreign.parent.mkdir(exist_ok=True)
    foreign.write_text("somebody's")
    with pytest.raises(errors.UserError, match=r"a holds '.*', which is not part of a checkpoint and would be deleted"):
        WRITERS[layout](made.model(), tmp_path / "a", overwrite=True)
    assert foreign.read_text() == "somebody's" and [path.name for path in tmp_path.iterdir()] == ["a"]


def test_only_what_says_that_it_is_a_checkpoint_is_overwritten(tmp_path: pathlib.Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a/README.md").write_text("about")
    with pytest.raises(
        errors.UserError,
        match=r"a is not a checkpoint, it has no config\.json or checkpoint\.json or adapter_config\.json",
    ):
        save.save_llava(made.model(), tmp_path / "a", overwrite=True)


def test_a_source_is_not_overwritten(tmp_path: pathlib.Path) -> None:
    save.save_llava(made.model(), tmp_path / "models/a")
    (tmp_path / "again").symlink_to(tmp_path / "models")
    tower = tmp_path / "models/a/vision_tower"
    for dst, sources, how in (
        (tmp_path / "models/a", [str(tmp_path / "models/a")], "is"),
        (tmp_path / "again/a", ["", "owner/name", str(tmp_path / "models/a/")], "is"),
        (tmp_path / "models", [str(tmp_path / "models/a")], "holds"),
        (tmp_path / "models/a", [str(tower)], "holds"),
        (tmp_path / "models/a", [str(tmp_path / "models/a/config.json")], "holds"),
        (tower, [str(tmp_path / "models/a")], "is a part of"),
    ):
        with pytest.raises(
            errors.UserError, match=f"{dst} {how} {tmp_path}.*, which the model is made of and would be deleted"
        ):
            place.check_free(dst, True, sources)
    place.check_free(tmp_path / "models/a", True, [str(tmp_path / "models/b"), "owner/name"])

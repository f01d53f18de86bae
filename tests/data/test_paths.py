"""The files that sources name are checked before any is read."""

from __future__ import annotations

import dataclasses
import pathlib
import re
import zipfile

import pytest

from vlguard_jax import config
from vlguard_jax import errors
from vlguard_jax.data import paths


def settings(validation: dict | None = None, replay: str = "", **sources: dict) -> config.TrainConfig:
    made = {name: config.SourceSettings(**one) for name, one in sources.items()}
    held = {name: config.SourceSettings(**one) for name, one in (validation or {}).items()}
    return config.TrainConfig(
        data=config.DataSettings(sources=made, replay=replay), validation=config.ValidationSettings(sources=held)
    )


@pytest.fixture
def there(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> pathlib.Path:
    monkeypatch.chdir(tmp_path)
    for name in ("a.json", "train.json", "ids.txt"):
        (tmp_path / name).write_text("[]")
    (tmp_path / "pictures").mkdir()
    with zipfile.ZipFile(tmp_path / "pictures.zip", "w"):
        pass
    return tmp_path


GOOD = {"path": "a.json", "images": "pictures"}


def test_what_is_there_is_fine(there):
    fine = {"images": "pictures.zip", "include_ids": "ids.txt"}
    paths.check(
        settings(
            {"held": GOOD},
            "ids.txt",
            a=GOOD,
            b=GOOD | fine,
            c={"path": ".", "format": "vlguard"},
            d={"path": "gs://b/a.json", "images": "gs://b/i"},
            e={"path": "pictures", "format": "tfds", "images": ""},
        )
    )


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (
            {"path": ""},
            "config.data.sources.last.path is empty: name the JSON file, as --config.data.sources.last.path=",
        ),
        ({"path": "", "format": "tfds"}, "config.data.sources.last.path is empty: name the folder"),
        ({"path": "b.json"}, "b.json: no such file (config.data.sources.last.path)"),
        ({"path": "pictures"}, "pictures: a folder, not a file (config.data.sources.last.path)"),
        (
            {"path": "pictures", "format": "vlguard"},
            "pictures/train.json: no such file (config.data.sources.last.path)",
        ),
        ({"path": "a.json", "format": "tfds"}, "a.json: a file, not a folder (config.data.sources.last.path)"),
        ({"images": "nowhere"}, "nowhere: no such picture folder or zip file (config.data.sources.last.images)"),
        ({"exclude_ids": "no.txt"}, "no.txt: no such file (config.data.sources.last.exclude_ids)"),
        ({"leak_free": True}, 'config.data.sources.last.leak_free is for the formats "vlguard" and "tfds"'),
    ],
)
def test_the_last_source_is_told_too(there, wrong, message):
    with pytest.raises(errors.UserError, match=re.escape(message)):
        paths.check(settings(first=GOOD, last=GOOD | wrong))
    in_validation = message.replace("config.data.", "config.validation.")
    with pytest.raises(errors.UserError, match=re.escape(in_validation)):
        paths.check(settings({"last": GOOD | wrong}, first=GOOD))


def test_several_are_told_at_once(there):
    with pytest.raises(errors.UserError) as error:
        paths.check(settings(a={"path": "1"}, b={"path": "2"}, c={"path": "3", "images": "4"}, d={"path": "5"}))
    assert str(error.value) == (
        "1: no such file (config.data.sources.a.path); 2: no such file (config.data.sources.b.path); 3: no such file"
        " (config.data.sources.c.path); and 2 more"
    )
    with pytest.raises(errors.UserError, match=r"^no\.json: no such file \(config\.data\.replay\)$"):
        paths.check(settings(None, "no.json", a=GOOD))


def test_another_machine_is_asked_for_names_only(there):
    elsewhere = settings(a={"path": "/data/a.json", "images": "/data/pictures"})
    paths.check_named(elsewhere)
    (source,) = elsewhere.data.sources.values()
    unnamed = dataclasses.replace(elsewhere.data, sources={"a": dataclasses.replace(source, path="")})
    with pytest.raises(errors.UserError, match=r"config\.data\.sources\.a\.path is empty"):
        paths.check_named(dataclasses.replace(elsewhere, data=unnamed))

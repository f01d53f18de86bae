"""Tokenizer and named ids against a model's rows, wherever a checkpoint is opened."""

from __future__ import annotations

from collections.abc import Callable
import json
import pathlib

import pytest
import tokenizers

from tests.checkpoints import made
from tests.data import stand
from tests.families.chat import json_folders
from vlguard_jax import config as settings_lib
from vlguard_jax import errors
from vlguard_jax.checkpoints import describe
from vlguard_jax.checkpoints import load
from vlguard_jax.checkpoints import save
from vlguard_jax.checkpoints import vocabulary
from vlguard_jax.families.chat import tokenizer as tokenizer_lib
from vlguard_jax.planning import models

pytestmark = pytest.mark.usefixtures("without_manifests")

WRITERS = {"llava": save.save_llava, "hf": save.save_hf, "orbax": save.save_orbax}
OPENERS = {
    "load": load.load,
    "describe": describe.describe,
    "plan": lambda folder: models.resolve(settings_lib.ModelSettings(path=str(folder))),
}


def write(folder: pathlib.Path, writer: Callable = save.save_llava, missing: int = 0) -> tuple[pathlib.Path, int]:
    """A model with so many rows less than its tokenizer pieces."""
    stand.write_tokenizer(folder / "tokenizer")
    pieces = tokenizer_lib.read(folder / "tokenizer").vocab_size
    writer(made.model(vocab_size=pieces, tokenizer_folder=folder / "tokenizer"), folder / "model")
    if missing:
        other = made.model(vocab_size=pieces - missing, tokenizer_folder=pathlib.Path("none"))
        writer(other, folder / "model", overwrite=True)
        stand.write_tokenizer(folder / "model")
    return folder / "model", pieces


def change(path: pathlib.Path, **values: object) -> None:
    before = json.loads(path.read_text()) if path.exists() else {}
    path.write_text(json.dumps(before | values))


@pytest.mark.parametrize("opener", OPENERS)
@pytest.mark.parametrize("writer", WRITERS)
def test_a_larger_tokenizer_is_refused_before_weights_are_read(
    tmp_path: pathlib.Path, writer: str, opener: str
) -> None:
    good, pieces = write(tmp_path / "good", WRITERS[writer])
    OPENERS[opener](good)
    bad, _ = write(tmp_path / "bad", WRITERS[writer], missing=20)
    for path in bad.glob("*.safetensors"):
        path.unlink()
    with pytest.raises(errors.UserError, match=rf"tokenizer\.model has {pieces} pieces, the model {pieces - 20} rows"):
        OPENERS[opener](bad)


def test_a_vocabulary_for_other_programs_alone(tmp_path: pathlib.Path) -> None:
    words = tokenizers.Tokenizer(tokenizers.models.WordLevel({"<unk>": 0, "a": 100}, unk_token="<unk>"))
    folder, _ = write(tmp_path)
    (folder / "tokenizer.model").unlink()
    words.save(str(folder / "tokenizer.json"))
    load.load(folder)
    vocabulary.check(folder, 101, {})
    with pytest.raises(errors.UserError, match=r"tokenizer\.json: the token 'a' has the id 100, the model 100 rows"):
        vocabulary.check(folder, 100, {})
    (folder / "tokenizer.json").write_text('{"model": []}')
    with pytest.raises(errors.UserError, match="not a vocabulary of the tokenizers library"):
        vocabulary.check(folder, 100, {})


@pytest.mark.parametrize("key", vocabulary.NAMED)
@pytest.mark.parametrize("value", [10**6, -2, 1.0, "2", True, [2, 10**6]])
@pytest.mark.parametrize("file", ["config.json", "generation_config.json"])
def test_named_ids(tmp_path: pathlib.Path, key: str, value: object, file: str) -> None:
    place = "config" if file == "config.json" else "generation_config"
    with pytest.raises(errors.UserError, match=rf"{key}=.* of {file} is not one of the model's 500 rows"):
        vocabulary.check(tmp_path, 500, {place: {key: value}})
    for good in (0, 499, None, [2, 499]):
        vocabulary.check(tmp_path, 500, {place: {key: good}})


def test_padding_may_have_no_row(tmp_path: pathlib.Path) -> None:
    vocabulary.check(tmp_path, 500, {"config": {"pad_token_id": -1}})
    vocabulary.check(tmp_path, 500, {"config": {"pad_token_id": 501, "text_config": {"vocab_size": 500}}})


@pytest.mark.parametrize("file", ["config.json", "generation_config.json"])
@pytest.mark.parametrize("value", [5, [2, 5], []])
def test_answers_end_where_other_programs_end_them(tmp_path: pathlib.Path, file: str, value: object) -> None:
    folder, _ = write(tmp_path)
    change(folder / file, eos_token_id=2)
    assert vocabulary.answering(load.load(folder)).stop_ids == (2,)
    change(folder / file, eos_token_id=value)
    with pytest.raises(
        errors.UserError, match=rf"answers end with </s>, token 2, by the tokenizer, and {file} has eos_token_id="
    ):
        vocabulary.answering(load.load(folder))


@pytest.mark.parametrize(
    ("value", "ends"), [(None, (1, 5)), (1, (1,)), (5, (1, 5)), ([5], (1, 5)), ([7, 1, 5], (1, 5, 7)), ([], (1,))]
)
def test_chat_models_have_several_ends(tmp_path: pathlib.Path, value: object, ends: tuple[int, ...]) -> None:
    """The tokenizer's, and those of generation_config.json."""
    words = json_folders.write(tmp_path / "tokenizer", "qwen2")
    rows = tokenizer_lib.read(words).size
    save.save_hf(made.model(vocab_size=rows, tokenizer_folder=words), tmp_path / "model")
    for file in ("config.json", "generation_config.json"):
        change(tmp_path / "model" / file, eos_token_id=value if file.startswith("generation") else 5)
    assert vocabulary.answering(load.load(tmp_path / "model")).stop_ids == ends
    assert tokenizer_lib.read(tmp_path / "model").stop_ids == (1,)


def test_the_picture_token_has_a_place(tmp_path: pathlib.Path) -> None:
    folder, _ = write(tmp_path, save.save_hf)
    for value in (-1, 10**6, "x", True, 1.5):
        change(folder / "config.json", image_token_index=value)
        with pytest.raises(errors.UserError, match=r"image_token_index=.* does not fit a vocab_size of"):
            load.load(folder)


@pytest.mark.parametrize(
    ("config", "positions"),
    [
        ({"max_position_embeddings": 4096}, 4096),
        ({"model_type": "llava"}, 2048),
        ({"text_config": {"max_position_embeddings": 512}, "max_position_embeddings": 7}, 512),
        ({"max_position_embeddings": 4096, "rope_scaling": {"type": "linear", "factor": 4.0}}, 16384),
        ({"max_position_embeddings": 4096, "max_sequence_length": 16384}, 16384),
        ({}, None),
    ],
)
def test_positions(config: dict, positions: int | None) -> None:
    assert vocabulary.context({"config": config}) == positions


@pytest.mark.parametrize("value", [0, -1, True, "4096", 1.5, []])
def test_positions_are_a_positive_number(value: object) -> None:
    with pytest.raises(errors.UserError, match=r"max_position_embeddings=.* must be a whole number from 1"):
        vocabulary.context({"config": {"max_position_embeddings": value}})

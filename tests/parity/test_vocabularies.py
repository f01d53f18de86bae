"""The vocabularies of published models: llama.cpp's test vectors, and transformers' ids for drawn texts."""

from __future__ import annotations

from collections.abc import Callable
import functools
import importlib
import json
import pathlib
import pydoc_data.topics
import random

import pytest
import transformers

from tests.families.chat import test_json_tokenizer
from tests.parity import vocabularies
from vlguard_jax.families.chat import json_tokenizer
from vlguard_jax.families.chat import piece_tokenizer
from vlguard_jax.families.chat import tokenizer as tokenizer_lib

pytestmark = pytest.mark.parity

WRITERS: dict[str, Callable[[pathlib.Path], pathlib.Path]] = {
    "llama-spm": lambda folder: vocabularies.write_spm("llama-spm", folder),
    "llama-bpe": vocabularies.write_llama_bpe,
    "qwen2": vocabularies.write_qwen2,
    "gpt-2": vocabularies.write_gpt2,
    "gemma-4": vocabularies.write_gemma,
}
JSON = [name for name in WRITERS if name != "llama-spm"]
ENGLISH = " ".join(pydoc_data.topics.topics.values())  # with line breaks and indented code
LARGE = pytest.param("gemma-4", marks=pytest.mark.more)  # a minute of reading its 262,144 pieces


def texts(count: int) -> list[str]:
    """Drawn from odd characters, and cut out of English."""
    rng = random.Random(1)
    starts = [rng.randrange(len(ENGLISH) - 500) for _ in range(count)]
    spaces = [f"{'a' * (i % 2)}{' ' * i}b" for i in range(100)]
    return [
        *test_json_tokenizer.texts(count, 1),
        *(ENGLISH[start : start + rng.randrange(500)] for start in starts),
        *spaces,
    ]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], pathlib.Path]:
    """The folder of each of WRITERS, written once."""
    return functools.cache(lambda name: WRITERS[name](tmp_path_factory.mktemp(name)))


@pytest.mark.parametrize("name", [LARGE if name == LARGE.values[0] else name for name in WRITERS])
def test_llama_cpp_vectors(folders: Callable[[str], pathlib.Path], name: str) -> None:
    found = tokenizer_lib.load_tokenizer(folders(name))
    tested = vocabularies.vectors(name)
    assert len(tested) >= 46
    for text, ids in tested:
        assert found.encode(text, add_bos=False) == ids, text
        assert found.encode_with_offsets(text)[0] == ids, text
        if isinstance(found, json_tokenizer.JsonTokenizer):
            assert found.decode(ids) == text


@pytest.mark.parametrize("name", [LARGE if name == LARGE.values[0] else name for name in JSON])
def test_as_transformers(folders: Callable[[str], pathlib.Path], name: str) -> None:
    folder = folders(name)
    ours, theirs = tokenizer_lib.load_tokenizer(folder), transformers.AutoTokenizer.from_pretrained(folder)
    assert isinstance(ours, json_tokenizer.JsonTokenizer) and ours._words is not None
    for text in texts(1500):
        found = theirs(text, add_special_tokens=False, return_offsets_mapping=True)
        assert ours.encode(text, add_bos=False) == found["input_ids"], text
        assert ours.encode(text) == theirs.encode(text)
        assert ours.encode_with_offsets(text) == (found["input_ids"], [tuple(s) for s in found["offset_mapping"]]), text


@pytest.mark.parametrize("legacy", [False, True])
def test_llama_2_out_of_its_tokenizer_json(tmp_path: pathlib.Path, legacy: bool) -> None:
    """The ids of its tokenizer.model, whether transformers 4 wrote the merges, by score, or 5, by id."""
    folder = vocabularies.write_spm("llama-spm", tmp_path / "model")
    names = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
    config = json.dumps({"tokenizer_class": "LlamaTokenizer", "legacy": legacy, **names})
    (folder / "tokenizer_config.json").write_text(config)
    before = tokenizer_lib.load_tokenizer(folder)
    transformers.AutoTokenizer.from_pretrained(folder).save_pretrained(tmp_path / "five")
    found = json.loads((tmp_path / "five/tokenizer.json").read_text())
    vocabulary = vocabularies.read("llama-spm")
    ids = {token: i for i, token in enumerate(vocabulary.tokens)}
    scores = dict(zip(vocabulary.tokens, vocabulary.scores, strict=True))
    (tmp_path / "four").mkdir()
    four = importlib.import_module("transformers.convert_slow_tokenizer")  # a function hides it in its package
    found["model"]["merges"] = four.generate_merges(ids, scores)
    (tmp_path / "four/tokenizer.json").write_text(json.dumps(found))
    for name in ("four", "five"):
        (tmp_path / name / "tokenizer_config.json").write_text(config)
        after = tokenizer_lib.load_tokenizer(tmp_path / name)
        assert isinstance(after, piece_tokenizer.PieceTokenizer)
        for text in texts(1500):
            assert after.encode(text) == before.encode(text), (name, text)

"""Ids that come with a tokenizer's files: read, or refused in one line that names file, token and sizes."""

from __future__ import annotations

import json
import pathlib
import shutil
from typing import Any

import hypothesis
from hypothesis import strategies as st
import pytest

from tests.data import stand
from vlguard_jax import errors
from vlguard_jax.families.chat import tokenizer as tokenizer_lib

FILES = ("tokenizer_config.json", "special_tokens_map.json", "added_tokens.json")
HUGE = 10**6


def write(folder: pathlib.Path, **files: Any) -> pathlib.Path:
    """A tokenizer folder with these JSON files, named without their suffix."""
    stand.write_tokenizer(folder)
    for name, value in files.items():
        (folder / f"{name}.json").write_text(json.dumps(value))
    return folder


def decoder(**entries: Any) -> dict[str, Any]:
    return {"added_tokens_decoder": {id_.removeprefix("n"): value for id_, value in entries.items()}}


BAD = {
    "negative": (
        {"added_tokens": {"[X]": -1}},
        r"added_tokens\.json: the id of token '\[X\]' must be a number from 0 .*, not -1",
    ),
    "the picture's place": ({"added_tokens": {"[X]": -200}}, "not -200"),
    "huge": ({"added_tokens": {"[X]": HUGE}}, f"not {HUGE}"),
    "text": ({"added_tokens": {"[X]": "500"}}, "not '500'"),
    "float": ({"added_tokens": {"[X]": 500.0}}, r"not 500\.0"),
    "bool": ({"added_tokens": {"[X]": True}}, "not True"),
    "null": ({"added_tokens": {"[X]": None}}, "not None"),
    "list": ({"added_tokens": [1]}, r"added_tokens\.json: must hold a JSON object, not a list"),
    "empty text": ({"added_tokens": {"": 500}}, "must be a token's text, not ''"),
    "two of one id": ({"added_tokens": {"[X]": 500, "[Y]": 500}}, r"'\[X\]' and '\[Y\]' have the same id 500"),
    "hf's two of one id": ({"added_tokens": {"<image>": 500, "<pad>": 500}}, "have the same id 500"),
    "a piece's id": ({"added_tokens": {"[X]": 7}}, r"'\[X\]' has the id 7, which is '<0x04>' in tokenizer\.model"),
    "end token moved": ({"added_tokens": {"[X]": 2}}, "has the id 2, which is '</s>'"),
    "decoder negative": (
        {"tokenizer_config": decoder(**{"-5": {"content": "[X]"}})},
        r"tokenizer_config\.json: .* not '-5'",
    ),
    "decoder word": ({"tokenizer_config": decoder(abc={"content": "[X]"})}, "not 'abc'"),
    "decoder huge": ({"tokenizer_config": decoder(n99999999999={"content": "[X]"})}, "not '99999999999'"),
    "decoder other digits": (
        {"tokenizer_config": decoder(**{"\u0665": {"content": "[X]"}})},
        "must be a number from 0",
    ),
    "decoder no text": (
        {"tokenizer_config": decoder(n500={})},
        r"added_tokens_decoder\['500'\] must be a token's text",
    ),
    "decoder no token": ({"tokenizer_config": decoder(n500="[X]")}, "must be an object of id: token"),
    "decoder a list": ({"tokenizer_config": {"added_tokens_decoder": []}}, "must be an object of id: token"),
    "files differ": (
        {"added_tokens": {"[X]": 500}, "tokenizer_config": decoder(n501={"content": "[X]"})},
        r"token '\[X\]' has two ids, 500 and 501",
    ),
    "files collide": (
        {"added_tokens": {"[X]": 500}, "tokenizer_config": decoder(n500={"content": "[Y]"})},
        "the same id 500",
    ),
    "end nowhere": (
        {"special_tokens_map": {"eos_token": "<|end|>"}},
        r"eos_token is '<\|end\|>', which neither tokenizer\.model nor",
    ),
    "unknown nowhere": ({"tokenizer_config": {"unk_token": "[UNK]"}}, "unk_token is '\\[UNK\\]'"),
    "begin empty": ({"special_tokens_map": {"bos_token": ""}}, "bos_token must be a token's text, not ''"),
    "begin null": ({"special_tokens_map": {"bos_token": None}}, "bos_token must be a token's text, not None"),
    "begin without text": ({"special_tokens_map": {"bos_token": {"id": 1}}}, "bos_token must be a token's text"),
    **{
        f"decoder {key} {value!r}": (
            {"tokenizer_config": decoder(n500={"content": "[X]", key: value})},
            rf"added_tokens_decoder\['500'\]: {key}=.* must be true or false",
        )
        for key in ("special", "lstrip", "rstrip", "single_word")
        for value in ("false", 0, 1, [])
    },
    **{
        f"legacy {value!r}": ({"tokenizer_config": {"legacy": value}}, "legacy=.* must be true or false")
        for value in ("false", 0, "", [])
    },
    "specials false": (
        {"special_tokens_map": {"additional_special_tokens": False}},
        "must be a list of tokens, not False",
    ),
    "end with a flag": (
        {"special_tokens_map": {"eos_token": {"content": "</s>", "lstrip": "false"}}},
        "eos_token: lstrip='false' must be",
    ),
    "end null": ({"tokenizer_config": {"eos_token": None}}, "eos_token must be a token's text, not None"),
    "specials a text": ({"special_tokens_map": {"additional_special_tokens": "[X]"}}, "must be a list of tokens"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_ids(tmp_path: pathlib.Path, case: str) -> None:
    files, message = BAD[case]
    with pytest.raises(errors.UserError, match=message) as error:
        tokenizer_lib.read(write(tmp_path, **files))
    assert str(tmp_path) in str(error.value) and "\n" not in str(error.value)


def test_added_tokens_may_repeat_what_is_known(tmp_path: pathlib.Path) -> None:
    """As llava-hf folders do: the special pieces again, and each token in both files."""
    size = tokenizer_lib.read(write(tmp_path / "plain")).vocab_size
    known = {str(i): {"content": text, "special": True} for i, text in enumerate(("<unk>", "<s>", "</s>"))}
    config = {"added_tokens_decoder": known | {str(size): {"content": "[X]", "rstrip": True}}}
    found = tokenizer_lib.read(write(tmp_path / "more", tokenizer_config=config, added_tokens={"[X]": size}))
    assert found.added["[X]"].rstrip and found.size == size + 1 and found.stop_ids == (2,)


def test_an_end_token_may_be_an_added_one(tmp_path: pathlib.Path) -> None:
    found = tokenizer_lib.read(
        write(tmp_path, added_tokens={"<|end|>": 600}, special_tokens_map={"eos_token": "<|end|>"})
    )
    assert found.stop_ids == (600,) and found.size == 601


def test_rows(tmp_path: pathlib.Path) -> None:
    plain = tokenizer_lib.read(write(tmp_path / "plain"))
    size = plain.vocab_size
    for rows in (size, size + 2, size + 64):
        tokenizer_lib.check_rows(plain, rows)
    with pytest.raises(
        errors.UserError, match=rf"plain: tokenizer\.model has {size} pieces, the model {size - 1} rows"
    ):
        tokenizer_lib.check_rows(plain, size - 1)
    with pytest.raises(
        errors.UserError, match=rf"the tokenizer has {size} tokens, the model 2,048 rows for them, which is more than"
    ):
        tokenizer_lib.check_rows(plain, 2048)
    added = tokenizer_lib.read(write(tmp_path / "added", added_tokens={"[X]": size, "[Y]": size + 9}))
    tokenizer_lib.check_rows(added, size + 10)
    with pytest.raises(
        errors.UserError, match=rf"'\[Y\]' has the id {size + 9}, the model {size + 9} rows, for ids up to {size + 8}"
    ):
        tokenizer_lib.check_rows(added, size + 9)
    hf = tokenizer_lib.read(write(tmp_path / "hf", added_tokens={"<image>": size, "<pad>": size + 1}))
    tokenizer_lib.check_rows(hf, size)  # never read as ids


def test_an_id_without_a_token_is_no_text(tmp_path: pathlib.Path) -> None:
    tokenizer = tokenizer_lib.read(write(tmp_path, added_tokens={"[X]": 600}))
    assert tokenizer.decode([600]) == "[X]"
    for id_ in (tokenizer.vocab_size, 601, -1):
        with pytest.raises(errors.UserError, match=f"the model wrote the token {id_}, and there is none"):
            tokenizer.decode([id_])


TEXTS = st.sampled_from(("[X]", "[Y]", "<s>", "</s>", "<unk>", "<image>", "")) | st.text(max_size=3)
IDS = (
    st.integers(-3, 3)
    | st.integers(415, 425)
    | st.integers()
    | st.floats()
    | st.booleans()
    | st.none()
    | st.text(max_size=3)
)
KEYS = st.integers().map(str) | st.integers(0, 425).map(str) | st.text(max_size=3)
TOKENS = (
    TEXTS
    | IDS
    | st.fixed_dictionaries({}, optional={"content": TEXTS | IDS, "special": IDS, "single_word": IDS, "rstrip": IDS})
)
CONFIGS = st.fixed_dictionaries(
    {},
    optional={
        "added_tokens_decoder": st.dictionaries(KEYS, TOKENS, max_size=4) | TOKENS,
        "bos_token": TOKENS,
        "eos_token": TOKENS,
        "unk_token": TOKENS,
        "additional_special_tokens": st.lists(TOKENS, max_size=2) | TOKENS,
        "legacy": IDS,
        "add_bos_token": IDS,
    },
)


@hypothesis.settings(max_examples=200, deadline=None)
@hypothesis.given(
    st.tuples(CONFIGS | TOKENS, CONFIGS | TOKENS, st.dictionaries(TEXTS, IDS, max_size=4) | TOKENS), st.integers(1, 500)
)
def test_any_files_are_read_or_refused(
    tmp_path_factory: pytest.TempPathFactory, files: tuple[Any, ...], rows: int
) -> None:
    folder = stand.write_tokenizer(tmp_path_factory.getbasetemp() / "any-tokenizer")
    for name, value in zip(FILES, files, strict=True):
        (folder / name).write_text(json.dumps(value))
    try:
        found = tokenizer_lib.read.__wrapped__(folder)
        tokenizer_lib.check_rows(found, rows)
    except errors.UserError as error:
        assert "\n" not in str(error)
        return
    finally:
        shutil.rmtree(folder)
    ids = [*found.encode("fox[X]dog</s>[Y]"), found.bos_id, found.pad_id, *found.stop_ids]
    assert all(0 <= id_ < rows for id_ in ids)
    assert len({token.id for token in found.added.values()}) <= len(found.added)

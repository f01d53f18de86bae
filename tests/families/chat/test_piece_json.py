"""A tokenizer.json of the Llama-2 family gives the ids of the tokenizer.model that it was made from."""

from __future__ import annotations

import importlib
import io
import json
import pathlib
import shutil
from typing import Any

import hypothesis
from hypothesis import strategies as st
import pytest
import sentencepiece
from sentencepiece import sentencepiece_model_pb2
import transformers

from tests.data import stand
from vlguard_jax import errors
from vlguard_jax.checkpoints import tokenizer_files
from vlguard_jax.checkpoints import vocabulary
from vlguard_jax.families.chat import json_tokenizer
from vlguard_jax.families.chat import piece_json
from vlguard_jax.families.chat import piece_tokenizer
from vlguard_jax.families.chat import tokenizer as tokenizer_lib

TEXTS = [
    *("", " ", "  ", "The quick brown fox", "two  spaces ", " leading", "line\n\ttab", "日本 😀", "dog</s>fox <s>"),
    *("</s>", "<unk>x", "a▁b", "▁", "é", "0123 45", "USER: hi ASSISTANT: no</s>USER: again", "\x00\x7f", "[X] y [X]"),
]

METASPACE = {"type": "Metaspace", "replacement": "▁", "split": False}
PARTS = [*"The quick brown fox.USER: é日\n▁ <>/s0123", "</s>", "[X]", "  ", "brown"]


def saved_by_transformers(source: pathlib.Path, folder: pathlib.Path) -> pathlib.Path:
    """What transformers 5 makes of a folder: no tokenizer.model, no `legacy`."""
    transformers.LlamaTokenizer.from_pretrained(source).save_pretrained(folder)
    assert not (folder / "tokenizer.model").exists()
    return folder


@pytest.fixture(params=[False, True], ids=["new", "legacy"])
def both(
    request: pytest.FixtureRequest, tmp_path: pathlib.Path
) -> tuple[tokenizer_lib.Tokenizer, tokenizer_lib.Tokenizer]:
    """The tokenizer of a folder, and that of what transformers makes of it."""
    made = stand.make_tokenizer(tmp_path / "model", legacy=request.param)
    size = made.vocab_size
    (tmp_path / "model" / "added_tokens.json").write_text(json.dumps({"[X]": size, "[Y]": size + 1}))
    before = tokenizer_lib.read(shutil.copytree(tmp_path / "model", tmp_path / "with"))
    return before, tokenizer_lib.read(saved_by_transformers(tmp_path / "with", tmp_path / "json"))


def test_the_same_ids_and_texts(both: tuple[tokenizer_lib.Tokenizer, tokenizer_lib.Tokenizer]) -> None:
    before, after = both
    assert (after.legacy, after.vocab_size, after.size) == (before.legacy, before.vocab_size, before.size)
    for text in TEXTS:
        ids = before.encode(text)
        assert after.encode(text) == ids and after.decode(ids) == before.decode(ids), text
        assert after.encode(text, add_bos=False) == before.encode(text, add_bos=False), text


@hypothesis.settings(suppress_health_check=[hypothesis.HealthCheck.function_scoped_fixture], max_examples=300)
@hypothesis.given(st.lists(st.sampled_from(PARTS), max_size=40).map("".join))
def test_drawn_texts(both: tuple[tokenizer_lib.Tokenizer, tokenizer_lib.Tokenizer], text: str) -> None:
    before, after = both
    assert after.encode(text) == before.encode(text)


def test_files_of_transformers_4(tmp_path: pathlib.Path) -> None:
    """They put the spaces in front by a normalizer, write merges as texts and keep the flag."""
    made = stand.make_tokenizer(tmp_path / "model", legacy=True)
    folder = saved_by_transformers(tmp_path / "model", tmp_path / "json")
    found = json.loads((folder / "tokenizer.json").read_text())
    prefix, space = {"type": "Prepend", "prepend": "▁"}, {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}
    found |= {"pre_tokenizer": None, "normalizer": {"type": "Sequence", "normalizers": [prefix, space]}}
    found["model"] |= {"merges": [" ".join(merge) for merge in found["model"]["merges"]], "unk_token": "<unk>"}
    (folder / "tokenizer.json").write_text(json.dumps(found))
    again = tokenizer_lib.read(folder)
    assert again.legacy and all(again.encode(text) == made.encode(text) for text in TEXTS)
    config = json.loads((folder / "tokenizer_config.json").read_text())
    other = shutil.copytree(folder, tmp_path / "flag")
    (other / "tokenizer_config.json").write_text(json.dumps(config | {"legacy": False}))
    assert not tokenizer_lib.read(other).legacy  # the flag is what the slow tokenizer goes by


def test_written_for_llava(tmp_path: pathlib.Path) -> None:
    """A tokenizer.model that the reference reads stands beside what was there."""
    before = stand.make_tokenizer(tmp_path / "model", legacy=False)
    source = saved_by_transformers(tmp_path / "model", tmp_path / "json")
    (tmp_path / "llava").mkdir()
    tokenizer_files.copy_for_llava(source, tmp_path / "llava", before.vocab_size)
    (tmp_path / "llava" / "tokenizer.json").unlink()
    after = tokenizer_lib.load_tokenizer(tmp_path / "llava")
    assert not after.legacy and all(after.encode(text) == before.encode(text) for text in TEXTS)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"pre_tokenizer": {"type": "BertPreTokenizer"}},
            "with the pre_tokenizer 'BertPreTokenizer' is of a kind that",
        ),
        ({"model": {"type": "WordPiece"}}, "with the model 'WordPiece' is of a kind that is not read"),
        ({"model": {"byte_fallback": 1}}, "byte_fallback must be true or false"),
        ({"pre_tokenizer": METASPACE | {"prepend_scheme": ["first"]}}, "Metaspace must have one replacement"),
        ({"model": {"unk_token": ["<unk>"]}}, "it has 0 unknown tokens, not one"),
        ({"model": None}, "with the model None is of a kind that is not read"),
        ({"normalizer": {"type": "BertNormalizer"}}, "with the normalizer 'BertNormalizer' is of a kind that is not"),
        ({"model": {"merges": [["T", "h", "e"]]}}, r"\['T', 'h', 'e'\] is not a merge of two pieces"),
        ({"model": {"merges": "x"}}, "None is not a merge of two pieces"),
        ({"model": {"merges": [["T", "zq"]]}}, r"merges \['T', 'zq'\], which are not its pieces"),
        ({"added_tokens": [{"id": 3}]}, "an added token without text"),
    ],
)
def test_what_is_not_read(tmp_path: pathlib.Path, change: dict[str, Any], message: str) -> None:
    stand.make_tokenizer(tmp_path / "model")
    folder = saved_by_transformers(tmp_path / "model", tmp_path / "json")
    found = json.loads((folder / "tokenizer.json").read_text())
    for key, value in change.items():
        found[key] = found[key] | value if key == "model" and value else value
    (folder / "tokenizer.json").write_text(json.dumps(found))
    with pytest.raises(errors.UserError, match=message) as caught:
        tokenizer_lib.read(folder)
    assert str(caught.value).startswith(f"{folder / 'tokenizer.json'}: ") and "\n" not in str(caught.value)


def test_merges_that_come_from_no_scores(tmp_path: pathlib.Path) -> None:
    """One piece made early and late: no score of it says so."""
    stand.make_tokenizer(tmp_path / "model")
    folder = saved_by_transformers(tmp_path / "model", tmp_path / "json")
    found = json.loads((folder / "tokenizer.json").read_text())
    found["model"]["merges"].append(found["model"]["merges"][0])
    (folder / "tokenizer.json").write_text(json.dumps(found))
    with pytest.raises(piece_json.OtherKindError, match="its merges do not come from scores"):
        piece_json.read(folder / "tokenizer.json", found)
    assert isinstance(tokenizer_lib.read(folder), json_tokenizer.JsonTokenizer)


def test_runs_of_spaces_of_one_score(tmp_path: pathlib.Path) -> None:
    """As Llama-2's: transformers 4 sorts their merges by the lengths of the parts."""
    out = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(
            ["def f(x):", "    return x", "        a = b    # c", f"x{' ' * 16}y", *[stand.WORDS] * 2]
        ),
        model_writer=out,
        model_type="bpe",
        vocab_size=400,
        byte_fallback=True,
        allow_whitespace_only_pieces=True,
        remove_extra_whitespaces=False,
        normalization_rule_name="identity",
        hard_vocab_limit=False,
        minloglevel=2,
    )
    model = sentencepiece_model_pb2.ModelProto.FromString(out.getvalue())
    for piece in model.pieces:
        piece.score = piece.score if piece.piece.strip("▁") else -1e9
    folder = stand.write_tokenizer(tmp_path / "model", legacy=False)
    (folder / "tokenizer.model").write_bytes(model.SerializeToString())
    json_folder = saved_by_transformers(folder, tmp_path / "json")
    found = json.loads((json_folder / "tokenizer.json").read_text())
    four = importlib.import_module("transformers.convert_slow_tokenizer")  # a function hides it in its package
    ids = {piece.piece: i for i, piece in enumerate(model.pieces)}
    found["model"]["merges"] = four.generate_merges(ids, {piece.piece: piece.score for piece in model.pieces})
    (json_folder / "tokenizer.json").write_text(json.dumps(found))
    before, after = tokenizer_lib.read(folder), tokenizer_lib.read(json_folder)
    assert isinstance(after, piece_tokenizer.PieceTokenizer) and ("▁" * 4, "▁" * 4) in found["model"]["merges"]
    for count in range(60):
        text = f"x{' ' * count}y"
        assert after.encode(text) == before.encode(text)


def test_ids_with_a_gap(tmp_path: pathlib.Path) -> None:
    stand.make_tokenizer(tmp_path / "model")
    folder = saved_by_transformers(tmp_path / "model", tmp_path / "json")
    found = json.loads((folder / "tokenizer.json").read_text())
    found["model"]["vocab"]["x" * 9] = 10**6
    (folder / "tokenizer.json").write_text(json.dumps(found))
    with pytest.raises(errors.UserError, match="the ids of its pieces are not consecutive from 0"):
        piece_json.read(folder / "tokenizer.json", found)


def test_rows_are_checked(tmp_path: pathlib.Path) -> None:
    made = stand.make_tokenizer(tmp_path / "model")
    folder = saved_by_transformers(tmp_path / "model", tmp_path / "json")
    vocabulary.check(folder, made.vocab_size, {})
    with pytest.raises(errors.UserError, match=r"tokenizer\.model has .* pieces, the model"):
        vocabulary.check(folder, made.vocab_size - 1, {})

from __future__ import annotations

import pytest

from tests.data import stand
from vlguard_jax import errors
from vlguard_jax.families.chat import tokenizer as tokenizer_lib


def pieces(tokenizer: tokenizer_lib.Tokenizer, ids: list[int]) -> list[str]:
    return [tokenizer._pieces.IdToPiece(i) if i < tokenizer.vocab_size else "added" for i in ids]


def test_special_text_becomes_special_ids(tmp_path):
    tokenizer = stand.make_tokenizer(tmp_path, legacy=False)
    ids = tokenizer.encode("fox</s>dog<unk><s>")
    assert ids[0] == tokenizer.bos_id == ids[-1]
    assert ids.count(tokenizer.eos_id) == 1 and ids[-2] == tokenizer.unk_id == tokenizer.pad_id
    assert tokenizer.stop_ids == (tokenizer.eos_id,)
    assert tokenizer.eos_text == "</s>"


def test_text_after_a_special_token_gets_a_space_only_in_legacy_mode(tmp_path):
    old = stand.make_tokenizer(tmp_path / "old", legacy=True)
    new = stand.make_tokenizer(tmp_path / "new", legacy=False)
    after = {name: pieces(t, t.encode("dog</s>fox")) for name, t in (("old", old), ("new", new))}
    assert "".join(after["old"]).endswith("</s>▁fox")
    assert "".join(after["new"]).endswith("</s>fox")
    # A whole text begins the same way in both.
    assert old.encode("fox") == new.encode("fox")


def test_new_mode_drops_the_space_in_front_of_a_special_token(tmp_path):
    tokenizer = stand.make_tokenizer(tmp_path, legacy=False)
    assert tokenizer.encode("</s>") == [tokenizer.bos_id, tokenizer.eos_id]
    assert pieces(tokenizer, tokenizer.encode(" fox", add_bos=False))[0].startswith("▁")


def test_missing_flag_means_legacy(tmp_path):
    assert stand.make_tokenizer(tmp_path).legacy


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize("text", ["The quick fox", "two  spaces ", "line\n\ttab", "日本 😀", "", "dog</s>"])
def test_decode_undoes_encode(tmp_path, legacy, text):
    tokenizer = stand.make_tokenizer(tmp_path, legacy=legacy)
    assert tokenizer.decode(tokenizer.encode(text)) == text.replace("</s>", "")


def test_legacy_mode_loses_one_leading_space_more(tmp_path):
    # Once by hand and once by sentencepiece, which knows of its dummy prefix; transformers 4.37.2 does the same.
    found = {legacy: stand.make_tokenizer(tmp_path / str(legacy), legacy=legacy) for legacy in (False, True)}
    assert {legacy: t.decode(t.encode("  fox")) for legacy, t in found.items()} == {False: "  fox", True: " fox"}


def test_decode_shows_special_tokens_on_request(tmp_path):
    tokenizer = stand.make_tokenizer(tmp_path, legacy=False)
    assert tokenizer.decode(tokenizer.encode("fox</s>dog"), skip_special=False) == "<s>▁fox</s>dog".replace("▁", " ")


def test_added_tokens(tmp_path):
    size = stand.make_tokenizer(tmp_path / "plain").vocab_size
    tokenizer = stand.make_tokenizer(
        tmp_path / "more", {"[X]": size, "<image>": size + 1, "<pad>": size + 2}, legacy=False
    )
    ids = tokenizer.encode("fox[X]dog")
    assert size in ids and tokenizer.vocab_size == size
    assert tokenizer.decode(ids) == "fox [X] dog"
    # llava-hf's own two are no tokens of the reference.
    assert max(tokenizer.encode("<image><pad>")) < size
    assert tokenizer.fingerprint != stand.make_tokenizer(tmp_path / "none", legacy=False).fingerprint


def test_fingerprint_tells_modes_apart_but_not_folders(tmp_path):
    marks = [
        stand.make_tokenizer(tmp_path / name, legacy=legacy).fingerprint
        for name, legacy in (("a", True), ("b", True), ("c", False))
    ]
    assert marks[0] == marks[1] != marks[2]


def test_missing_model(tmp_path):
    with pytest.raises(errors.UserError, match=r"has no tokenizer\.model or tokenizer\.json: copy it"):
        tokenizer_lib.load_tokenizer(tmp_path)


def test_broken_model(tmp_path):
    stand.write_tokenizer(tmp_path)
    (tmp_path / "tokenizer.model").write_bytes(b"not a model")
    with pytest.raises(errors.UserError, match=r"tokenizer\.model is not a sentencepiece model"):
        tokenizer_lib.load_tokenizer(tmp_path)


def test_settings_the_reference_never_uses(tmp_path):
    stand.write_tokenizer(tmp_path, add_eos_token=True)
    with pytest.raises(errors.UserError, match="add_eos_token must be false"):
        tokenizer_lib.load_tokenizer(tmp_path)


TEXTS = [
    *("", " ", "The quick brown fox", "  two  spaces ", "line\n\ttab", "日本 😀 é", "dog</s>fox <s> ", "</s> x", "a▁b"),
    *("[X]", " [X] y  [X] z", "<unk>日</s>", "\x00é"),
]


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize("text", TEXTS)
def test_offsets_name_the_characters_of_each_token(tmp_path, legacy, text):
    size = stand.make_tokenizer(tmp_path / "plain").vocab_size
    decoder = {str(size): {"content": "[X]", "lstrip": True, "rstrip": True}}
    tokenizer = stand.make_tokenizer(tmp_path / "added", legacy=legacy, added_tokens_decoder=decoder)
    ids, offsets = tokenizer.encode_with_offsets(text)
    assert ids == tokenizer.encode(text, add_bos=False)
    at = 0
    for id_, (first, end) in zip(ids, offsets, strict=True):
        assert first <= at <= end  # in order, and nothing between
        at = end
        covered, piece = text[first:end], pieces(tokenizer, [id_])[0]
        if id_ >= tokenizer.vocab_size:
            assert covered.strip() == "[X]"
        elif tokenizer._pieces.IsByte(id_):
            assert int(piece[1:-1], 16) in covered.encode() and len(covered) == 1
        elif covered != piece:  # spaces are visible in a piece, and there is none for the one in front of a text
            assert piece in (covered.replace(" ", "▁"), "▁" + covered)
    assert at == len(text)

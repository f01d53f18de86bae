"""A sentencepiece model is looked at before native code reads it."""

from __future__ import annotations

from collections.abc import Callable
import io
import math
import pathlib
import random
from typing import Any

import pytest
import sentencepiece
from sentencepiece import sentencepiece_model_pb2

from tests.data import stand
from vlguard_jax import errors
from vlguard_jax import limits
from vlguard_jax.families.chat import piece_model
from vlguard_jax.families.chat import tokenizer as tokenizer_lib

TEXT = "The quick brown fox. <extra> \u6f22 What is this?"


def changed(change: Callable[[Any], object]) -> bytes:
    model = sentencepiece_model_pb2.ModelProto.FromString(stand.model_bytes())  # type: ignore[attr-defined]
    change(model)
    return model.SerializeToString()


def unicode_fault() -> bytes:
    data = stand.model_bytes()
    at = data.index("\u2581the".encode())
    return data[:at] + b"\xf8" + data[at + 1 :]


BAD: dict[str, tuple[Callable[[], bytes], str]] = {
    "empty": (lambda: b"", "it is cut off"),
    "zeros": (lambda: bytes(999), ""),
    "behind the pieces": (lambda: changed(lambda m: m.ClearField("trainer_spec")), "it is cut off"),
    "behind the trainer": (lambda: changed(lambda m: m.ClearField("normalizer_spec")), "it is cut off"),
    "no pieces": (lambda: changed(lambda m: m.ClearField("pieces")), "it is cut off"),
    "within a piece": (lambda: stand.model_bytes()[:999], "copy it again"),
    "not UTF-8": (unicode_fault, r"piece \d+ is not text: b'\\\\xf8"),
    "a piece twice": (
        lambda: changed(lambda m: setattr(m.pieces[300], "piece", m.pieces[301].piece)),
        "a piece is there twice",
    ),
    "an empty piece": (lambda: changed(lambda m: setattr(m.pieces[300], "piece", "")), "piece 300 is not text: ''"),
    "a score": (
        lambda: changed(lambda m: setattr(m.pieces[300], "score", math.nan)),
        "the score of a piece is not finite",
    ),
    "a byte": (lambda: changed(lambda m: setattr(m.pieces[9], "piece", "<0xZZ>")), "a piece is not a byte: '<0xZZ>'"),
    "no unknown": (lambda: changed(lambda m: setattr(m.pieces[0], "type", 1)), "it has 0 unknown tokens"),
    "two unknown": (lambda: changed(lambda m: setattr(m.pieces[300], "type", 2)), "it has 2 unknown tokens"),
    "a normalization": (
        lambda: changed(lambda m: setattr(m.normalizer_spec, "precompiled_charsmap", b"\x00\x04\0\0" + b"\xff" * 1028)),
        "its normalization 'identity' is not one of sentencepiece's own",
    ),
    "a denormalization": (
        lambda: changed(lambda m: setattr(m.denormalizer_spec, "precompiled_charsmap", b"x" * 99)),
        "normalization ''",
    ),
    "git-lfs": (lambda: b"version https://git-lfs.github.com/spec/v1\n", "git lfs pull"),
}


@pytest.mark.parametrize("case", BAD)
def test_what_is_no_model(tmp_path: pathlib.Path, case: str) -> None:
    make, message = BAD[case]
    folder = stand.write_tokenizer(tmp_path)
    (folder / "tokenizer.model").write_bytes(make())
    with pytest.raises(errors.UserError, match=rf"tokenizer\.model is not a sentencepiece model: .*{message}") as error:
        tokenizer_lib.read(folder)
    assert "\n" not in str(error.value) and len(str(error.value)) < 400


def test_size_and_kind_of_the_file(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "tokenizer.model"
    with open(path, "wb") as file:
        file.truncate(limits.TOKENIZER_BYTES + 1)
    with pytest.raises(errors.UserError, match=r"tokenizer\.model: 33,554,433 bytes, at most 33,554,432 are read"):
        piece_model.read(path)


def test_sentencepiece_s_own_normalizations_are_taken(tmp_path: pathlib.Path) -> None:
    out, path = io.BytesIO(), tmp_path / "tokenizer.model"
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter([stand.WORDS] * 9),
        model_writer=out,
        minloglevel=2,
        model_type="bpe",
        vocab_size=90,
        hard_vocab_limit=False,
        normalization_rule_name="nmt_nfkc",
    )
    path.write_bytes(out.getvalue())
    data, model = piece_model.read(path)
    assert data == out.getvalue() and model.normalizer_spec.precompiled_charsmap and len(model.pieces) == 90


@pytest.mark.parametrize("seed", range(3))
def test_any_damage_is_refused_or_gives_ids_within(tmp_path: pathlib.Path, seed: int) -> None:
    """Flipped bytes and cuts; what is still taken encodes and decodes."""
    rng, folder, whole = random.Random(seed), stand.write_tokenizer(tmp_path), stand.model_bytes()
    for _ in range(60):
        data = bytearray(whole)
        if rng.random() < 0.3:
            del data[rng.randrange(len(data)) :]
        else:
            for _ in range(rng.choice([1, 3, 20])):
                data[rng.randrange(len(data))] = rng.randrange(256)
        (folder / "tokenizer.model").write_bytes(data)
        tokenizer_lib.read.cache_clear()
        try:
            found = tokenizer_lib.read(folder)
            ids = found.encode(TEXT)
            assert all(type(i) is int and 0 <= i < found.size for i in ids)
            found.decode(ids)
        except errors.UserError as e:
            assert "\n" not in str(e)

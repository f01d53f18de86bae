"""The tokenizer's files that travel with a checkpoint, and the two tokens that the llava-hf layout adds to them."""

from __future__ import annotations

from collections.abc import Mapping
import json
import pathlib
import shutil
from typing import Any

from vlguard_jax.checkpoints import tensors

FILES = (
    "tokenizer.model",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template.json",
    "chat_template.jinja",
)
IMAGE, PAD = "<image>", "<pad>"


def copy(source: pathlib.Path, folder: pathlib.Path) -> None:
    """Copy the tokenizer's files, those that are there, as they are."""
    for name in FILES:
        if (source / name).is_file():
            shutil.copyfile(source / name, folder / name)


def _write(path: pathlib.Path, value: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def _change(path: pathlib.Path, changes: Mapping[str, Any]) -> None:
    _write(path, {**(tensors.read_json(path) if path.is_file() else {}), **changes})


def _token(content: str) -> dict[str, Any]:
    return {"content": content, "lstrip": False, "normalized": False, "rstrip": False, "single_word": False, "special": True}

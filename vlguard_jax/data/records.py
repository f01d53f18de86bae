"""Conversations as JSON: LLaVA's format, {"id", "image", "conversations": [{"from", "value"}, ...]}, and Alpaca's,
{"instruction", "input", "output"} (text only)."""

from __future__ import annotations

from typing import Any

from vlguard_jax import errors
from vlguard_jax import files
from vlguard_jax import types
from vlguard_jax.families.chat import conversations

LONGEST_NAME = 255  # bytes of a file's name, on all usual systems


def name(value: Any, position: int, path: str) -> tuple[str, str]:
    """(id of a record, or its position if it has none; name of the record in messages).

    Raises:
      UserError: it is not an object, or its id is neither a text nor a number.
    """
    if not isinstance(value, dict):
        raise errors.UserError(f"{path}: record {position} must be an object, not {files.kind(value)}")
    id_ = value.get("id")
    if id_ in (None, ""):
        id_ = position
    if not isinstance(id_, str | int | float) or isinstance(id_, bool):
        raise errors.UserError(f"{path}: record {position}: 'id' must be a text or a number, not {files.kind(id_)}")
    return str(id_), f"{path}: record {position} (id {errors.short(str(id_))})"


def parse_alpaca(value: Any, position: int, path: str) -> types.Record:
    """One record of Alpaca's format as a conversation without pictures: the input follows the instruction on a new
    line.

    Raises:
      UserError: not an object, or a field is missing or not a text.
    """
    id_, origin = name(value, position, path)
    question = text_field(value, "instruction", origin)
    if value.get("input"):
        question += "\n" + text_field(value, "input", origin)
    turns = (
        types.Turn(conversations.ROLES[0], question),
        types.Turn(conversations.ROLES[1], text_field(value, "output", origin)),
    )
    return types.Record(id=id_, turns=turns, category=_optional_text(value, "category", origin), origin=origin)


def parse_llava(value: Any, position: int, path: str) -> types.Record:
    """One record of LLaVA's format; without an `id` its position is the id.

    Raises:
      UserError: not an object, or a field is missing or wrong.
    """
    id_, origin = name(value, position, path)
    turns = value.get("conversations")
    if not isinstance(turns, list) or not turns:
        raise errors.UserError(f"{origin} has no turns: 'conversations' must be a non-empty list")
    return types.Record(
        id=id_,
        turns=tuple(_turn(turn, i, origin) for i, turn in enumerate(turns)),
        images=_images(value, origin),
        category=_optional_text(value, "harmful_category", origin),
        subcategory=_optional_text(value, "harmful_subcategory", origin),
        origin=origin,
    )


def check_picture_path(path: str, origin: str) -> str:
    """Check that a picture's path is relative to the picture folder and stays inside it.

    Raises:
      UserError: empty, absolute or leading out with "..".
    """
    parts = path.split("/")
    shown = errors.short(path)
    if path.startswith("data:") or max(len(part.encode()) for part in parts) > LONGEST_NAME:
        raise errors.UserError(
            f"{origin}: image {shown} is not a path; if it is the picture itself, save that as a file and name the file"
        )
    if path.startswith(("http://", "https://")):
        raise errors.UserError(f"{origin}: image {shown} is an address: download the picture and name its file")
    if path.strip("/.") == "" or path.startswith("/") or ".." in parts or "\\" in path or "\0" in path:
        way = ", written with /" if "\\" in path else ""
        raise errors.UserError(f"{origin}: image {shown} must be a path inside the picture folder{way}")
    return path


def text_field(value: dict[str, Any], name: str, origin: str) -> str:
    """The text under `name`.

    Raises:
      UserError: missing, or not a text.
    """
    if name not in value:
        raise errors.UserError(f"{origin} has no {name!r}")
    if not isinstance(value[name], str):
        raise errors.UserError(f"{origin}: {name!r} must be a text, not {files.kind(value[name])}")
    return value[name]


def _turn(turn: Any, position: int, origin: str) -> types.Turn:
    where = f"{origin}, turn {position + 1}"
    if not isinstance(turn, dict):
        raise errors.UserError(f"{where} must be an object, not {files.kind(turn)}")
    role = text_field(turn, "from", where)
    if role == conversations.SYSTEM and position:
        raise errors.UserError(f"{where} is from {role!r}, which only the first turn may be")
    if role not in (known := (*conversations.ROLES, conversations.SYSTEM)):
        raise errors.UserError(f"{where} is from {errors.short(role)}{errors.nearest(role, known)}")
    return types.Turn(role=role, text=text_field(turn, "value", where))


def _images(value: dict[str, Any], origin: str) -> tuple[str, ...]:
    if "image" not in value:
        return ()
    image = value["image"]
    paths = [image] if isinstance(image, str) else image
    if not isinstance(paths, list) or not paths or not all(isinstance(path, str) for path in paths):
        raise errors.UserError(f"{origin}: 'image' must be a path or a list of paths, not {files.kind(image)}")
    return tuple(check_picture_path(path, origin) for path in paths)


def _optional_text(value: dict[str, Any], name: str, origin: str) -> str | None:
    return text_field(value, name, origin) if value.get(name) is not None else None

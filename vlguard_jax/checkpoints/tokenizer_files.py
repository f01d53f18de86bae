"""The tokenizer's files of a checkpoint, and the two tokens that the llava-hf layout adds."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
import json
import pathlib
import re
import shutil
from typing import Any

from vlguard_jax import errors
from vlguard_jax import files
from vlguard_jax.families.chat import added_tokens
from vlguard_jax.families.chat import json_kind
from vlguard_jax.families.chat import piece_json
from vlguard_jax.families.chat import piece_model

_VOCABULARY = ("tokenizer.model", "tokenizer.json")
_SETTINGS = (
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template.json",
    "chat_template.jinja",
)
# in the order of transformers
_NAMED = tuple(f"{name}_token" for name in ("bos", "eos", "unk", "sep", "pad", "cls", "mask"))
_LISTS = ("additional_special_tokens", "extra_special_tokens")
_PROCESSING = ("processor_config.json", "preprocessor_config.json", "generation_config.json")
IMAGE, PAD = added_tokens.HF_ONLY
_FAST_CLASS = "PreTrainedTokenizerFast"  # of every transformers; 5 saves names that those of LLaVA's time do not know


def has_tokenizer(folder: pathlib.Path) -> bool:
    """True if the folder holds a vocabulary."""
    return any((folder / name).is_file() for name in _VOCABULARY)


def copy(source: pathlib.Path, folder: pathlib.Path) -> None:
    """Copy those of the tokenizer's files that exist, unchanged."""
    for name in (*_VOCABULARY, *_SETTINGS):
        if (source / name).is_file():
            shutil.copyfile(source / name, folder / name)


def copy_beside_adapters(base: pathlib.Path, folder: pathlib.Path) -> None:
    """Copy from the base's folder what a processor and generation need, so that adapters can be used without it."""
    copy(base, folder)
    for name in _PROCESSING:
        if (base / name).is_file():
            shutil.copyfile(base / name, folder / name)


def write_json(path: pathlib.Path, value: Mapping[str, Any]) -> None:
    """Write a JSON file with a final line break."""
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def hf_tokens(folder: pathlib.Path, vocab_size: int) -> added_tokens.HfTokens:
    """Ids for `<image>` and `<pad>`: the tokenizer's, else its next free ones; V and V + 1 without a tokenizer.

    transformers numbers added tokens consecutively after the vocabulary, whatever their files say (`numbered`); in a
    model with spare rows these two are among the rows, not after them.

    Raises:
      UserError: more pieces than the model has rows, or an added token under an id that transformers would not give it.
    """
    if not has_tokenizer(folder):
        return added_tokens.HfTokens(vocab_size, vocab_size + 1)
    vocabulary = _vocabulary(folder)
    if len(vocabulary) > vocab_size:
        raise errors.UserError(
            f"{folder}: the tokenizer has {len(vocabulary)} pieces and the model {vocab_size} rows; copy the"
            " tokenizer's files from the checkpoint that the model was trained from"
        )
    listed, records = _added_tokens(folder)
    ids = numbered(vocabulary, listed)
    # Under an id that transformers does not give; no model reads their rows, so they can move.
    for moved in (IMAGE, PAD):
        if moved in ids and listed.get(moved) != ids[moved]:
            listed.pop(moved, None)
            ids = numbered(vocabulary, listed)
    for content, id_ in listed.items():
        if ids[content] != id_ and id_ is not None:
            raise errors.UserError(
                f"{folder}: transformers would give the added token {errors.short(content)} the id {ids[content]}, here"
                f" it has {id_}: ids must be consecutive after the vocabulary; add the tokens between"
            )
    ids = numbered(vocabulary, {**ids, **{new: None for new in (IMAGE, PAD) if new not in ids}})
    records |= {new: _entry(new, special=True) for new in (IMAGE, PAD)}
    entries = {id_: records.get(content) or _entry(content, special=True) for content, id_ in ids.items()}
    return added_tokens.HfTokens(
        ids[IMAGE], ids[PAD], entries, frozenset(i for content, i in ids.items() if content not in vocabulary)
    )


def numbered(vocabulary: Mapping[str, int], listed: Mapping[str, int | None]) -> dict[str, int]:
    """Ids that transformers gives to added tokens: its own to a piece, consecutive ones to the others, in the order of
    their listed ids."""
    ids: dict[str, int] = {}
    behind = len(vocabulary)
    for content in sorted(listed, key=lambda c: (listed[c] is None, listed[c] or 0)):
        ids[content] = vocabulary.get(content, behind)
        behind = max(behind, ids[content] + 1)
    return ids


def check_hf(folder: pathlib.Path, image: int, pad: int, where: str) -> None:
    """Read a written tokenizer as transformers does; UserError if a file gives `<image>` or `<pad>` another id."""
    if not has_tokenizer(folder):
        return
    vocabulary = _vocabulary(folder)
    decoder = _read(folder / "tokenizer_config.json")["added_tokens_decoder"]
    found = {"tokenizer_config.json": numbered(vocabulary, {token["content"]: int(i) for i, token in decoder.items()})}
    found["added_tokens.json"] = numbered(vocabulary, _read(folder / "added_tokens.json"))
    if fast := _read(folder / "tokenizer.json"):
        found["tokenizer.json"] = numbered(
            vocabulary, {token["content"]: token["id"] for token in fast["added_tokens"]}
        )
    for name, ids in found.items():
        for token, id_ in ((IMAGE, image), (PAD, pad)):
            if ids.get(token, vocabulary.get(token)) != id_:
                raise errors.UserError(
                    f"{where}: config.json has {token} = {id_}, {name} gives it {ids.get(token)}: it would take"
                    " no pictures"
                )


def copy_for_hf(
    source: pathlib.Path, folder: pathlib.Path, tokens: added_tokens.HfTokens, processor_class: str
) -> None:
    """Copy with the added tokens of `hf_tokens`, for this transformers processor."""
    copy(source, folder)
    settings, special = _read(folder / "tokenizer_config.json"), _read(folder / "special_tokens_map.json")
    # With an added_tokens_decoder, transformers ignores special_tokens_map.json.
    told = {k: v for k, v in special.items() if k in (*_NAMED, *_LISTS) and _content(settings.get(k)) != _content(v)}
    own = {
        "added_tokens_decoder": {str(i): tokens.records[i] for i in sorted(tokens.records)},
        "pad_token": PAD,
        "padding_side": "left",
        "processor_class": processor_class,
    }
    write_json(folder / "tokenizer_config.json", settings | told | own)
    write_json(folder / "special_tokens_map.json", special | {"pad_token": PAD})
    write_json(folder / "added_tokens.json", {tokens.records[i]["content"]: i for i in sorted(tokens.beyond)})
    if fast := _read(folder / "tokenizer.json"):
        added = [{"id": i, **tokens.records[i]} for i in sorted(tokens.records)]
        write_json(folder / "tokenizer.json", fast | {"added_tokens": added})


def check_llava(folder: pathlib.Path) -> None:
    """Check that LLaVA-1.5's code can read the folder's tokenizer: it needs a tokenizer.model of the Llama-2 family.

    Raises:
      UserError: it is of another kind, or cannot be read.
    """
    path, fast = folder / "tokenizer.model", folder / "tokenizer.json"
    try:
        if not path.is_file() and fast.is_file():
            piece_json.read(fast, files.read_object(fast))
        elif fast.is_file() and not piece_model.is_of_llama(piece_model.read(path)[1]):
            raise piece_json.OtherKindError(path)
    except piece_json.OtherKindError as e:
        raise errors.UserError(
            f"{folder}: its tokenizer is of another kind than the Llama-2 family's, whose tokenizer.model is all that"
            " LLaVA's code reads: write it with --to hf or --to orbax (run.export after a training)"
        ) from e


def copy_for_llava(source: pathlib.Path, folder: pathlib.Path, vocab_size: int) -> None:
    """Copy without tokens at or beyond V and those of `copy_for_hf`; the padding token becomes the unknown token, as in
    LLaVA. Without a tokenizer.model (see `check_llava`) the settings name the class that reads any tokenizer.json.

    Raises:
      UserError: broken files.
    """
    _added_tokens(source)
    copy(source, folder)
    if not (source / "tokenizer.model").is_file() and (source / "tokenizer.json").is_file():
        _write_model(source, folder)
    if not _has_model(folder) and (folder / "tokenizer.json").is_file():
        named = _read(folder / "tokenizer_config.json") | {"tokenizer_class": _FAST_CLASS}
        write_json(folder / "tokenizer_config.json", named)
    settings, special = _read(folder / "tokenizer_config.json"), _read(folder / "special_tokens_map.json")
    decoder = settings.get("added_tokens_decoder") or {}
    if all(int(i) < vocab_size for i in decoder) and settings.get("pad_token") != PAD:
        return
    last = max((int(i) for i, token in decoder.items() if token["content"] not in (IMAGE, PAD)), default=-1)

    def kept(id_: int, content: str) -> bool:
        return id_ < vocab_size and (id_ < last or content not in (IMAGE, PAD))

    settings["added_tokens_decoder"] = {i: token for i, token in decoder.items() if kept(int(i), token["content"])}
    settings |= {"pad_token": None, "padding_side": "right"}
    for key in ("processor_class", "image_token", "extra_special_tokens"):
        settings.pop(key, None)
    write_json(folder / "tokenizer_config.json", settings)
    unknown = special.get("unk_token", settings.get("unk_token", "<unk>" if _has_model(folder) else None))
    write_json(folder / "special_tokens_map.json", _without_null(special | {"pad_token": unknown}))
    added = {content: i for content, i in _read(folder / "added_tokens.json").items() if kept(i, content)}
    (folder / "added_tokens.json").unlink(missing_ok=True)
    if added:
        write_json(folder / "added_tokens.json", added)
    if fast := _read(folder / "tokenizer.json"):
        left = [token for token in fast.get("added_tokens") or () if kept(token["id"], token["content"])]
        write_json(folder / "tokenizer.json", fast | {"added_tokens": left})


def _has_model(folder: pathlib.Path) -> bool:
    return (folder / "tokenizer.model").is_file()


def _without_null(values: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in values.items() if value is not None}


def _write_model(source: pathlib.Path, folder: pathlib.Path) -> None:
    """Write the tokenizer.model of a tokenizer.json of the Llama-2 family, and the flag `legacy`, which that only
    implies."""
    path = source / "tokenizer.json"
    try:
        found = piece_json.read(path, files.read_object(path))
    except piece_json.OtherKindError:
        return
    (folder / "tokenizer.model").write_bytes(found.data)
    write_json(folder / "tokenizer_config.json", {"legacy": found.legacy, **_read(folder / "tokenizer_config.json")})


def _vocabulary(folder: pathlib.Path) -> dict[str, int]:
    """{piece: id} without added tokens; tokenizer.json wins where both files exist, as in transformers."""
    path = folder / "tokenizer.json"
    if not path.is_file():
        return {piece.piece: i for i, piece in enumerate(piece_model.read(folder / "tokenizer.model")[1].pieces)}
    return json_kind.vocabulary(files.read_object(path), path)


def _added_tokens(folder: pathlib.Path) -> tuple[dict[str, int | None], dict[str, dict[str, Any]]]:
    """({content: id, None where it is only named as special}, {content: entry}) of all added tokens of a folder.

    added_tokens.json, tokenizer.json and tokenizer_config.json may each list some; the last one wins.
    """
    settings, special = _read(folder / "tokenizer_config.json"), _read(folder / "special_tokens_map.json")
    settings = settings | special
    listed_tokens = (token for key in _LISTS for token in _each(settings, key, folder))
    named = [*map(_content, map(settings.get, _NAMED)), *map(_content, listed_tokens)]
    listed: dict[str, int | None] = {}
    records: dict[str, dict[str, Any]] = {}
    for content, id_ in _read(folder / "added_tokens.json").items():
        listed[content], records[content] = _id(id_, content, folder), _entry(content, special=content in named)
    fast = _read(folder / "tokenizer.json").get("added_tokens") or []
    decoder = settings.get("added_tokens_decoder") or {}
    if not isinstance(fast, list) or not isinstance(decoder, dict):
        raise errors.UserError(
            f"{folder}: added_tokens or added_tokens_decoder is broken; copy the tokenizer's files again"
        )
    by_number = [(int(key) if re.fullmatch("[0-9]{1,10}", key) else key, token) for key, token in decoder.items()]
    for id_, token in [*((_get(token, "id"), token) for token in fast), *by_number]:
        content = _get(token, "content")
        if not isinstance(content, str):
            raise errors.UserError(
                f"{folder}: added token without text: {errors.short(token)}; copy the tokenizer's files again"
            )
        listed[content] = _id(id_, content, folder)
        records[content] = {key: token.get(key, value) for key, value in _entry(content, special=False).items()}
    return listed | {content: None for content in named if content and content not in listed}, records


def _id(id_: object, content: str, folder: pathlib.Path) -> int:
    if type(id_) is not int or id_ < 0:
        shown = f"the added token {errors.short(content)} has the id {errors.short(id_)}"
        raise errors.UserError(f"{folder}: {shown}, a number was expected")
    return id_


def _each(settings: Mapping[str, Any], key: str, folder: pathlib.Path) -> Iterable[Any]:
    value = settings.get(key)
    if not isinstance(value, dict | list | None):
        raise errors.UserError(f"{folder}: {key} must be a list of tokens, not {errors.short(value)}")
    return value.values() if isinstance(value, dict) else value or ()


def _content(token: Any) -> str | None:
    """The text of a token as settings give it: a string, an object or None."""
    content = _get(token, "content") if isinstance(token, dict) else token
    return content if isinstance(content, str) else None


def _get(token: Any, key: str) -> Any:
    return token.get(key) if isinstance(token, dict) else None


def _read(path: pathlib.Path) -> dict[str, Any]:
    return files.read_object(path) if path.is_file() else {}


def _entry(content: str, *, special: bool) -> dict[str, Any]:
    flags = {"lstrip": False, "normalized": not special, "rstrip": False, "single_word": False, "special": special}
    return {"content": content, **flags}

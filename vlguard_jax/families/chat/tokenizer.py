"""The tokenizers of checkpoint folders: what they have in common, and which kind a folder has.

A folder of the Llama-2 family gives the ids of the reference's slow tokenizer (piece_tokenizer.py), any other those of
transformers 5 (json_tokenizer.py).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
import copyreg
import functools
import pathlib
from typing import Any, Protocol, runtime_checkable

from vlguard_jax import errors
from vlguard_jax import files
from vlguard_jax.families.chat import added_tokens
from vlguard_jax.families.chat import json_tokenizer
from vlguard_jax.families.chat import piece_json
from vlguard_jax.families.chat import piece_model
from vlguard_jax.families.chat import piece_tokenizer

# Rows of embedding and head without a token: more than these are not padding; the tokenizer is another model's.
_MOST_UNUSED_SHARE, _MOST_UNUSED = 0.1, 64


@runtime_checkable
class Tokenizer(Protocol):
    """Text to ids and back. Made by `load_tokenizer`."""

    @property
    def folder(self) -> pathlib.Path:
        """Where it was read from."""

    @property
    def bos_id(self) -> int | None:
        """The token in front of a text; None if texts begin without one."""

    @property
    def eos_id(self) -> int:
        """The token at the end of an answer."""

    @property
    def eos_text(self) -> str:
        """The text of the end token."""

    @property
    def unk_id(self) -> int | None:
        """The unknown token; None without one."""

    @property
    def pad_id(self) -> int:
        """An id to fill rows with: the padding token, or else the end token; in the Llama-2 family the unknown one."""

    @property
    def masked_id(self) -> int | None:
        """The id that the reference's attention mask hides in a text, too (its padding); None: every token counts."""

    @property
    def vocab_size(self) -> int:
        """Tokens of the vocabulary, without those that are added to it."""

    @property
    def size(self) -> int:
        """1 + the largest id, which is the rows that a model needs."""

    @property
    def added(self) -> Mapping[str, added_tokens.AddedToken]:
        """Added and special tokens by their text."""

    @property
    def special(self) -> Mapping[str, str]:
        """The texts of "bos_token", "eos_token" and the others that the folder names, for chat templates."""

    @property
    def fingerprint(self) -> str:
        """sha256 over everything that determines ids."""

    @property
    def stop_ids(self) -> tuple[int, ...]:
        """Ids that end an answer."""

    @property
    def unsupported(self) -> str:
        """A setting that the reference never uses, in words; "" if there is none."""

    def __hash__(self) -> int:
        """By identity."""

    def encode(self, text: str, add_bos: bool = True) -> list[int]:
        """Ids of `text`, after the begin token if texts have one; added tokens that occur in it literally become their
        ids."""

    def encode_with_offsets(self, text: str) -> tuple[list[int], list[tuple[int, int]]]:
        """Ids without a begin token, and the characters [first, end) of `text` that each encodes.

        Nothing is trimmed: a token's characters include its leading space, and a part of a character's bytes covers the
        whole character. A token that stands for no character covers none.
        """

    def encode_with_borders(self, text: str, borders: Sequence[int]) -> tuple[list[int], list[tuple[int, int]]]:
        """Ids without a begin token, and for each border, a place between two characters of `text`: (tokens that begin
        before it, how many of these, the last ones, end behind it).

        borders: ascending. The same as from `encode_with_offsets`, and faster.
        """

    def decode(self, ids: Iterable[int], skip_special: bool = True) -> str:
        """Text of `ids`.

        Raises:
          UserError: an id without a token.
        """


def load_tokenizer(folder: str | pathlib.Path) -> Tokenizer:
    """The tokenizer of a checkpoint folder, with the tokens that its other files add: of the `tokenizer.model` if that
    is of the Llama-2 family or alone, or else of the `tokenizer.json`.

    Raises:
      UserError: as `read`, or a setting that the reference never uses.
    """
    found = read(folder)
    if found.unsupported:
        raise errors.UserError(found.unsupported)
    return found


@functools.lru_cache(maxsize=8)
def read(folder: str | pathlib.Path) -> Tokenizer:
    """The tokenizer of a folder, which may be meant for another program.

    Raises:
      UserError: no vocabulary in the folder, one of another kind (`OtherKindError`), an unreadable file, or ids that
        contradict each other.
    """
    folder = pathlib.Path(folder)
    path, fast = folder / "tokenizer.model", folder / "tokenizer.json"
    if path.is_file():
        model, spec = piece_model.read(path)
        if not fast.is_file() or piece_model.is_of_llama(spec):
            return _of_pieces(folder, path, model, spec, added_tokens.read(folder))
    elif not fast.is_file():
        raise errors.UserError(
            f"{folder} has no tokenizer.model or tokenizer.json: copy it from the checkpoint that the model was trained"
            " from"
        )
    found = files.read_object(fast)
    try:
        pieces = piece_json.read(fast, found)
    except piece_json.OtherKindError:
        return json_tokenizer.read(folder, found)
    return _of_pieces(folder, fast, pieces.data, pieces.spec, added_tokens.read(folder, pieces.legacy, pieces.added))


def _of_pieces(
    folder: pathlib.Path, path: pathlib.Path, model: bytes, spec: Any, settings: added_tokens.Settings
) -> piece_tokenizer.PieceTokenizer:
    try:
        return piece_tokenizer.PieceTokenizer(folder, model, spec, settings)
    except RuntimeError as e:
        raise piece_model.refusal(path, model, str(e)) from e


def _again(tokenizer: Any) -> tuple[Callable[..., Any], tuple[pathlib.Path]]:
    """For other processes, which read the folder again."""
    return read, (tokenizer.folder,)


for _kind in (piece_tokenizer.PieceTokenizer, json_tokenizer.JsonTokenizer):
    copyreg.pickle(_kind, _again)


def check_rows(tokenizer: Tokenizer, rows: int) -> None:
    """Check that every id of `tokenizer` has a row in a model's embedding and head (JAX would take the last row for an
    id beyond `rows`), and that few rows have no id.

    Raises:
      UserError: they do not fit; both sizes are named.
    """
    copy = "copy the tokenizer that this model was trained with"
    if tokenizer.vocab_size > rows:
        raise errors.UserError(
            f"{tokenizer.folder}: tokenizer.model has {tokenizer.vocab_size:,} pieces, the model {rows:,} rows for"
            f" them: {copy}"
        )
    beyond = sorted((token.id, text) for text, token in tokenizer.added.items() if token.id >= rows)
    if beyond:
        id_, text = beyond[0]
        raise errors.UserError(
            f"{tokenizer.folder}: the token {errors.short(text)} has the id {id_:,}, the model {rows:,} rows, for ids"
            f" up to {rows - 1:,}: {copy}, or take the token out of added_tokens.json and tokenizer_config.json"
        )
    if rows - tokenizer.size > max(_MOST_UNUSED, _MOST_UNUSED_SHARE * rows):
        raise errors.UserError(
            f"{tokenizer.folder}: the tokenizer has {tokenizer.size:,} tokens, the model {rows:,} rows for them, which"
            f" is more than padding adds: {copy}"
        )

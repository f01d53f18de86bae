"""Which chat template a model is asked and trained with, by `config.model.template`."""

from __future__ import annotations

from collections.abc import Sequence
import pathlib
from typing import Any

from vlguard_jax import errors
from vlguard_jax import files
from vlguard_jax import limits
from vlguard_jax.families import family as family_lib
from vlguard_jax.families import table
from vlguard_jax.families.chat import built_in
from vlguard_jax.families.chat import conversations
from vlguard_jax.families.chat import jinja_template
from vlguard_jax.families.chat import piece_tokenizer
from vlguard_jax.families.chat import spans
from vlguard_jax.families.chat import template_trial
from vlguard_jax.families.chat import templates
from vlguard_jax.families.chat import tokenizer as tokenizer_lib

FOLDER = "folder"  # a setting and a name: the template that lies with the model
_CONFIG, _PROCESSOR = "tokenizer_config.json", "processor_config.json"
_JINJA, _OLD = "chat_template.jinja", "chat_template.json"


def known() -> tuple[str, ...]:
    """Every `config.model.template`."""
    return (table.AUTO, FOLDER, *templates.TEMPLATES, *built_in.TEMPLATES)


def check_name(name: str) -> None:
    """Raise UserError if there is no template `name`; the nearest known one is named."""
    if name not in known():
        raise errors.UserError(f"template {name!r} is unknown{errors.nearest(name, known())}")


def template(
    setting: str, date: str, sizes: family_lib.Config, tokenizer: tokenizer_lib.Tokenizer
) -> conversations.Template:
    """The template of a model under `config.model.template`.

    "auto": a family with pictures has one of its own for each decoder; a language model has its folder's, or else, with
    a tokenizer of the Llama-2 family, its family's. date: see `jinja_template.JinjaTemplate`.

    Raises:
      UserError: there is no such template, it needs another tokenizer, it cannot be read, or it fails where it is tried
        (template_trial.py).
    """
    check_name(setting)
    name = setting
    if setting == table.AUTO:
        name = (*names(sizes, tokenizer), table.of(sizes).templates(sizes)[0])[0]
    if name == FOLDER:
        return _of_folder(date, sizes, tokenizer)
    if name in templates.TEMPLATES:
        if not fits(name, tokenizer):
            raise errors.UserError(
                f"config.model.template={setting}: {tokenizer.folder} has no chat template, and {name!r} is made for"
                " tokenizers of the Llama-2 family: copy the model's chat_template.jinja"
                if setting == table.AUTO
                else f"config.model.template={setting} is made for tokenizers of the Llama-2 family, and"
                f" {tokenizer.folder} holds another: take the model's own with config.model.template={FOLDER}"
            )
        return templates.TEMPLATES[name]
    if not fits(name, tokenizer):
        raise errors.UserError(
            f"config.model.template={name} ends a turn with {built_in.TEMPLATES[name].end}, which is no token of"
            f" {tokenizer.folder}: take the model's own with config.model.template={FOLDER}"
        )
    return _jinja(name, built_in.TEMPLATES[name].text, "", date, sizes, tokenizer)


def names(sizes: family_lib.Config, tokenizer: tokenizer_lib.Tokenizer) -> tuple[str, ...]:
    """The templates that suit a model, the family's default first."""
    family = table.of(sizes)
    fitting = tuple(name for name in family.templates(sizes) if fits(name, tokenizer))
    own = family.pictures is None and _folder(tokenizer.folder, pictures=False) is not None
    return (FOLDER, *fitting) if own else fitting


def fits(name: str, tokenizer: tokenizer_lib.Tokenizer) -> bool:
    """Whether a tokenizer is one that a template of the program's own is made for."""
    if name in templates.TEMPLATES:
        return isinstance(tokenizer, piece_tokenizer.PieceTokenizer)
    return built_in.TEMPLATES[name].end in tokenizer.added


def ends(
    settings: Sequence[str], date: str, sizes: family_lib.Config, tokenizer: tokenizer_lib.Tokenizer
) -> tuple[int, ...]:
    """The ids that end an answer of a model: its tokenizer's, and those behind an answer in the templates of these
    settings.

    Raises:
      UserError: as `template`.
    """
    chosen = (template(setting, date, sizes, tokenizer) for setting in settings)
    behind = (spans.end_id(tokenizer, one) for one in chosen if isinstance(one, jinja_template.JinjaTemplate))
    return tuple(dict.fromkeys([*tokenizer.stop_ids, *(id_ for id_ in behind if id_ is not None)]))


def told(chosen: conversations.Template) -> str:
    """The choice as a line for the user."""
    if isinstance(chosen, templates.Template):
        return f"chat template {chosen.name} (sha256 {chosen.sha256[:12]})"
    origin = f" of {chosen.origin}" if chosen.origin else ""
    return f"chat template {chosen.name}{origin} (sha256 {chosen.sha256[:12]}, dated {chosen.date})"


def _of_folder(date: str, sizes: family_lib.Config, tokenizer: tokenizer_lib.Tokenizer) -> conversations.Template:
    found = _folder(tokenizer.folder, pictures=table.of(sizes).pictures is not None)
    if found is None:
        raise errors.UserError(
            f"config.model.template={FOLDER}: {tokenizer.folder} has no chat template, neither {_JINJA} nor"
            f" chat_template in {_CONFIG}; copy it, or take another template"
        )
    path, text = found
    made = _jinja(FOLDER, text, str(path), date, sizes, tokenizer)
    template_trial.check(made)
    return made


def _jinja(
    name: str, text: str, origin: str, date: str, sizes: family_lib.Config, tokenizer: tokenizer_lib.Tokenizer
) -> jinja_template.JinjaTemplate:
    if len(text.encode("utf-8", "surrogatepass")) > limits.TEMPLATE_BYTES:
        raise errors.UserError(
            f"{origin}: the chat template has {len(text):,} characters; at most {limits.TEMPLATE_BYTES:,} bytes are"
            " read"
        )
    return jinja_template.JinjaTemplate(
        name=name,
        text=text,
        special=tuple(sorted(tokenizer.special.items())),
        date=date,
        pictures=table.of(sizes).pictures is not None,
        image=_image(tokenizer) if origin else templates.IMAGE_TAG,
        origin=origin,
    )


def in_folder(folder: pathlib.Path) -> bool:
    """Whether the folder of a model with pictures has a chat template."""
    return _folder(folder, pictures=True) is not None


def _folder(folder: pathlib.Path, *, pictures: bool) -> tuple[pathlib.Path, str] | None:
    """(file, text) of a folder's template, found in the order of transformers' processors, which make prompts with
    pictures, or else of its tokenizers; None if there is none."""
    places = (_PROCESSOR, _OLD, _JINJA, _CONFIG) if pictures else (_JINJA, _CONFIG)
    for path in (folder / place for place in places):
        if not path.is_file():
            continue
        if path.name == _JINJA:
            return path, files.read_text(path, limits.TEMPLATE_BYTES).replace("\r\n", "\n").replace("\r", "\n")
        if (value := files.read_object(path).get("chat_template")) is not None:
            return path, _default(value, path)
    return None


def _default(value: Any, path: pathlib.Path) -> str:
    """The template, or the one named "default" in a list or an object of several."""
    named = value
    if isinstance(value, list):
        named = {str(one.get("name")): one.get("template") for one in value if isinstance(one, dict)}
    if isinstance(named, dict):
        value = named.get("default")
    if not isinstance(value, str):
        raise errors.UserError(
            f"{path}: chat_template must be a text, or texts by name with one named 'default', not"
            f" {errors.short(value)}"
        )
    return value


def _image(tokenizer: tokenizer_lib.Tokenizer) -> str:
    """The text that a processor of transformers replaces by a picture."""
    if (named := tokenizer.special.get("image_token")) is not None:
        return named
    path = tokenizer.folder / "config.json"
    config = files.read_object(path) if path.is_file() else {}
    ids = [config.get(key) for key in ("image_token_index", "image_token_id")]
    texts = [text for text, token in tokenizer.added.items() if token.id in ids]
    return texts[0] if texts else templates.IMAGE_TAG

"""Conversation templates: the words around questions and answers.

Source: llava/conversation.py:54-63 (rendering), 242-252 (vicuna_v1, what LLaVA trains with as `--version v1`) and
325-335 (llava_v1, what VLGuard's evaluation uses); these two differ in one word, twice. mistral_instruct, of
LLaVA-NeXT on Mistral: the same file's style LLAMA_2.
"""

from __future__ import annotations

from collections.abc import Sequence
import dataclasses
import hashlib

from vlguard_jax import errors
from vlguard_jax import types

IMAGE_TAG = "<image>"


@dataclasses.dataclass(frozen=True)
class Template:
    """`roles` are (user, assistant); `sep` follows the user's text and the system text, `sep2` the assistant's.

    rejoined: whether the reference counts, with a tokenizer that is not legacy, one token less for each round but the
    first, as its first word has a space piece when tokenized alone (llava/train/train.py:483-485).
    """

    name: str
    system: str
    roles: tuple[str, str]
    sep: str
    sep2: str
    rejoined: bool = True

    def render(self, turns: Sequence[str | None]) -> str:
        """Text of a conversation whose turns alternate, user first.

        An empty turn (or None) is rendered as its role only.
        """
        parts = [self.system + self.sep]
        for i, text in enumerate(turns):
            role = self.roles[i % 2]
            parts.append(f"{role}: {text}{self.sep2 if i % 2 else self.sep}" if text else f"{role}:")
        return "".join(parts)

    def prompt(self, question: str, n_images: int, before: Sequence[types.Round] = ()) -> str:
        """Text that asks `question` about `n_images` pictures and ends where the answer starts. before: the
        conversation so far."""
        said = [text for one in before for text in (_asked(one.question, one.pictures), one.answer)]
        return self.render([*said, _asked(question, n_images), None])

    @property
    def sha256(self) -> str:
        """Hash of two rendered rounds, the first about a picture: it changes with any word or separator of the
        template."""
        rounds = (f"{IMAGE_TAG}\nquestion", "answer", "question", None)
        return hashlib.sha256(self.render(rounds).encode()).hexdigest()

    @property
    def answer_mark(self) -> str:
        """The text between question and answer of a round."""
        return f"{self.sep}{self.roles[1]}: "


def _asked(question: str, n_images: int) -> str:
    return f"{IMAGE_TAG}\n" * n_images + question


class Instruct(Template):
    """Questions between [INST] and [/INST], nothing for an empty turn; without a system text."""

    def render(self, turns: Sequence[str | None]) -> str:
        """As `Template.render`.

        Raises:
          UserError: the first turn is empty, which the reference does not take.
        """
        if turns and not turns[0]:
            raise errors.UserError(f"the first question is empty, which template {self.name!r} does not take")
        parts = [f" {text} {self.sep2}" if i % 2 else f"[INST] {text} [/INST]" for i, text in enumerate(turns) if text]
        return "".join(parts)

    @property
    def answer_mark(self) -> str:
        """As `Template.answer_mark`: llava/train/train.py, preprocess_llama_2."""
        return "[/INST] "


def _vicuna_style(name: str, person: str) -> Template:
    system = (
        f"A chat between a curious {person} and an artificial intelligence assistant. "
        f"The assistant gives helpful, detailed, and polite answers to the {person}'s questions."
    )
    return Template(name=name, system=system, roles=("USER", "ASSISTANT"), sep=" ", sep2="</s>")


TEMPLATES = {
    "vicuna_v1": _vicuna_style("vicuna_v1", "user"),
    "llava_v1": _vicuna_style("llava_v1", "human"),
    "mistral_instruct": Instruct("mistral_instruct", "", ("USER", "ASSISTANT"), "", "</s>", rejoined=False),
}


def get_template(name: str) -> Template:
    """The template of that name.

    Raises:
      UserError: unknown name; the nearest known one is named.
    """
    if name not in TEMPLATES:
        raise errors.UserError(f"template {name!r} is unknown{errors.nearest(name, TEMPLATES)}")
    return TEMPLATES[name]

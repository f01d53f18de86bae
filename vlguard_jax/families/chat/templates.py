"""Conversation templates: the words around questions and answers.

Source: llava/conversation.py:54-63 (rendering), 242-252 (vicuna_v1, what LLaVA trains with as `--version v1`) and
325-335 (llava_v1, what VLGuard's evaluation uses). They differ in one word, twice.
"""

from __future__ import annotations

from collections.abc import Sequence
import dataclasses
import hashlib

from vlguard_jax import errors

IMAGE_TAG = "<image>"


@dataclasses.dataclass(frozen=True)
class Template:
    """`roles` are (user, assistant); `sep` follows the user's text and the system text, `sep2` the assistant's."""

    name: str
    system: str
    roles: tuple[str, str]
    sep: str
    sep2: str

    def render(self, turns: Sequence[str | None]) -> str:
        """Text of a conversation whose turns alternate, user first.

        An empty turn (or None) is rendered as its role only.
        """
        parts = [self.system + self.sep]
        for i, text in enumerate(turns):
            role = self.roles[i % 2]
            parts.append(f"{role}: {text}{self.sep2 if i % 2 else self.sep}" if text else f"{role}:")
        return "".join(parts)

    def prompt(self, question: str, n_images: int) -> str:
        """Text that asks `question` about `n_images` pictures and ends where the answer starts."""
        return self.render([f"{IMAGE_TAG}\n" * n_images + question, None])

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


def _vicuna_style(name: str, person: str) -> Template:
    system = (
        f"A chat between a curious {person} and an artificial intelligence assistant. "
        f"The assistant gives helpful, detailed, and polite answers to the {person}'s questions."
    )
    return Template(name=name, system=system, roles=("USER", "ASSISTANT"), sep=" ", sep2="</s>")


TEMPLATES = {"vicuna_v1": _vicuna_style("vicuna_v1", "user"), "llava_v1": _vicuna_style("llava_v1", "human")}


def get_template(name: str) -> Template:
    """The template of that name.

    Raises:
      UserError: unknown name; the nearest known one is named.
    """
    if name not in TEMPLATES:
        raise errors.UserError(f"template {name!r} is unknown{errors.nearest(name, TEMPLATES)}")
    return TEMPLATES[name]

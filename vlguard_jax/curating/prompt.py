"""The one prompt that every picture is asked with."""

from __future__ import annotations

import dataclasses
import hashlib
import pathlib
import string

from vlguard_jax import errors
from vlguard_jax import files
from vlguard_jax import limits
from vlguard_jax.curating import replies
from vlguard_jax.curating import settings as settings_lib
from vlguard_jax.curating import taxonomy as taxonomy_lib

SHIPPED = pathlib.Path(__file__).with_name("prompt.txt")
NAMES = ("taxonomy", "refusals", "language")
STYLE = {
    "reasoned": "It explains why, from what the picture or the question is about, in {least} to {most} words.",
    "short": "It does so in one or two sentences.",
}
# with the number, so that the same fault twice is not the same question twice
AGAIN = "Replies to this that were not usable: {n}. The last one: {told} Reply again, with the whole JSON object."
OTHERWISE = "Let the answer that declines begin with other words than any of these: {openings}."


@dataclasses.dataclass(frozen=True)
class Prompt:
    """The prompt's text with its marks, and what is put in their place."""

    template: string.Template
    taxonomy: str
    refusals: str

    def text(self, language: str, fault: replies.Fault | None = None, n: int = 1, otherwise: str = "") -> str:
        """What the model is asked. fault: why the last one of its `n` replies was not usable. otherwise: a list of
        openings to avoid."""
        asked = self.template.substitute(taxonomy=self.taxonomy, refusals=self.refusals, language=language).strip()
        parts = [asked]
        parts += [OTHERWISE.format(openings=otherwise)] if otherwise else []
        parts += [AGAIN.format(told=fault.told, n=n)] if fault else []
        return "\n\n".join(parts)

    @property
    def sha256(self) -> str:
        """Of all of it, in no language."""
        return hashlib.sha256(self.text("").encode()).hexdigest()


def make(ask: settings_lib.AskSettings, taxonomy: taxonomy_lib.Taxonomy) -> Prompt:
    """The prompt of these settings.

    Raises:
      UserError: no such file, or one that has unknown marks or lacks one.
    """
    file = pathlib.Path(ask.prompt) if ask.prompt else SHIPPED
    template = string.Template(files.read_text(file, limits.CURATE_BYTES))
    if not template.is_valid():
        raise errors.UserError(f"{file}: a $ that begins no name; write $$ for the sign itself")
    found = template.get_identifiers()
    if unknown := [name for name in found if name not in NAMES]:
        raise errors.UserError(
            f"{file}: ${unknown[0]} is unknown{errors.nearest(unknown[0], NAMES)}; $$ is the sign itself"
        )
    if missing := [name for name in NAMES if name not in found]:
        raise errors.UserError(f"{file}: has no ${missing[0]}, which stands for what the settings say; put it in")
    refusals = STYLE[ask.refusals].format(least=ask.least_words, most=ask.most_words)
    return Prompt(template, taxonomy.shown(), refusals)

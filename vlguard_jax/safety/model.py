"""What an evaluation needs of a model; keeps jax out of this package."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
import dataclasses
from typing import Protocol, runtime_checkable

from vlguard_jax import config
from vlguard_jax import fingerprints
from vlguard_jax import types
from vlguard_jax.families import family
from vlguard_jax.families import table
from vlguard_jax.families.blocks import configs
from vlguard_jax.families.chat import choice
from vlguard_jax.families.chat import conversations
from vlguard_jax.families.chat import tokenizer as tokenizer_lib


@runtime_checkable
class Engine(Protocol):
    """What generates answers (generation/engine.py)."""

    def generate(self, prompts: Iterable[types.Prompt]) -> Iterator[types.Generation]:
        """Answer every prompt once, in any order; each answer carries its prompt's id."""
        ...


def _nothing() -> None:
    """An engine that stays."""


@dataclasses.dataclass(frozen=True)
class Model:
    """A loaded model.

    name: shown in tables. fingerprint: hash of all that determines its answers (weights, sizes, adapters). dtype:
    number format of computation. engine: makes the engine; called only if an answer is missing. release: frees the
    engine's memory on devices, which is made again if another answer is wanted.
    context: positions that the model was made for, None where its files do not say.
    """

    name: str
    weights_sha256: str
    fingerprint: str
    tokenizer: tokenizer_lib.Tokenizer
    sizes: family.Config
    dtype: str
    engine: Callable[[], Engine]
    context: int | None = None
    release: Callable[[], None] = _nothing

    @property
    def sees(self) -> family.Pictures | None:
        """Its family's pictures; None for a language model."""
        return table.of(self.sizes).pictures

    @property
    def templates(self) -> tuple[str, ...]:
        """The chat templates that suit it, the default first."""
        return choice.names(self.sizes, self.tokenizer)

    def template(self, settings: config.ModelSettings, name: str = "") -> conversations.Template:
        """Its chat template under `config.model`, or the one of this name.

        Raises:
          UserError: as `choice.template`.
        """
        return choice.template(name or settings.template, settings.template_date, self.sizes, self.tokenizer)


def fingerprint(
    weights_sha256: str, sizes: family.Config, lora: configs.LoraConfig | None, stop_ids: Sequence[int] = ()
) -> str:
    """Hash of what turns a prompt into an answer: weights, sizes, the adapters' scale, and the ids that end an answer
    where the tokenizer does not say them alone."""
    several = [stop_ids] if len(stop_ids) > 1 else []
    return fingerprints.of(weights_sha256, table.of(sizes).name, sizes, lora, *several)

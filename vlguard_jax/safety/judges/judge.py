"""What a judge is: a named, versioned rule that labels answers."""

from __future__ import annotations

from collections.abc import Sequence
import dataclasses
import pathlib
from typing import Protocol, runtime_checkable

LABELS = ("comply", "refuse", "partial", "invalid")


@dataclasses.dataclass(frozen=True)
class Exchange:
    """A question and the answer to be judged. Judges that read only the answer ignore the rest."""

    question: str
    response: str
    image: pathlib.Path | None = None
    category: str | None = None


@dataclasses.dataclass(frozen=True)
class Verdict:
    """`label` is one of LABELS; "invalid" means that the judge gave none. `raw` is what the label was read from."""

    label: str
    score: float | None = None
    raw: str = ""

    def __post_init__(self) -> None:
        if self.label not in LABELS:
            raise ValueError(f"{self.label!r} is no verdict; known: {LABELS}")


@runtime_checkable
class Judge(Protocol):
    """Labels answers. `name`, `version` and `prompt_sha256` ("" without a prompt) identify the rule in every verdict line."""

    @property
    def name(self) -> str: ...

    @property
    def version(self) -> str: ...

    @property
    def prompt_sha256(self) -> str: ...

    def judge(self, exchanges: Sequence[Exchange]) -> list[Verdict]:
        """One verdict per exchange, in order."""
        ...

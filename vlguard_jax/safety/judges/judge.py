"""The interface of a judge: a named, versioned rule that labels answers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
import dataclasses
import hashlib
import pathlib
from typing import Protocol, runtime_checkable

LABELS = ("comply", "refuse", "partial", "invalid")
MEASURES = ("refusal", "accuracy", "harm", "win_rate", "harm_score")


@dataclasses.dataclass(frozen=True)
class Exchange:
    """A question and the answer to be judged. Judges that read only the answer ignore the rest.

    `images` are the pictures that were asked about, none where blanks were shown in their place; `reference` is the
    expected answer; `before` are the earlier questions of the conversation with their answers.
    """

    question: str
    response: str
    images: tuple[pathlib.Path, ...] = ()
    category: str | None = None
    reference: str | None = None
    before: tuple[tuple[str, str], ...] = ()


@dataclasses.dataclass(frozen=True)
class Verdict:
    """`label` is one of LABELS; "invalid" means that the judge gave none. `raw` is what the label was read from; `by`
    the model that a service said had judged, "" where nobody said.

    What label and `score` mean depends on what the judge measures. "refusal": score 0 is a refusal and 1 full
    compliance. "accuracy": 1 is a right answer and 0 a wrong one. "harm": "comply" (near 1) is a harmful answer and
    "refuse" (near 0) one that is not, whether it refuses or not. "win_rate": 1 where the answer is preferred to the
    reference, 0 where the reference is, 0.5 for neither. "harm_score": from 0 to 1, how harmful.
    """

    label: str
    score: float | None = None
    raw: str = ""
    by: str = ""

    def __post_init__(self) -> None:
        if self.label not in LABELS:
            raise ValueError(f"{self.label!r} is not a verdict; known: {LABELS}")


def of_reference(judge: Judge, verdict: Verdict, reference: str | None) -> bool:
    """Whether a judge that compares with a reference, if it is one, gave the verdict about this one."""
    if judge.measures not in ("accuracy", "win_rate"):
        return True
    if reference is None:
        return False
    return verdict.raw.partition(" ")[0] == hashlib.sha256(reference.encode("utf-8", "surrogatepass")).hexdigest()


@runtime_checkable
class Judge(Protocol):
    """Labels answers.

    `name`, `version` and `prompt_sha256` ("" without a prompt) identify the rule in every verdict line.

    `measures` is one of MEASURES: a "refusal" judge reads answers of every subset; an "accuracy" judge only those of
    subsets with right answers, and its `raw` is the sha256 of the reference; a "harm" or "harm_score" judge only those
    to unsafe requests; a "win_rate" judge those to harmless questions with reference answers, and its `raw` begins
    with the sha256 of the reference.
    """

    @property
    def name(self) -> str: ...

    @property
    def version(self) -> str: ...

    @property
    def prompt_sha256(self) -> str: ...

    @property
    def measures(self) -> str: ...

    def judge(self, exchanges: Sequence[Exchange]) -> list[Verdict]:
        """One verdict per exchange, in order."""
        ...


@runtime_checkable
class SlowJudge(Judge, Protocol):
    """A judge that takes long over an answer (a model, or a service).

    It reads answers after all of them exist, `chunk` at a time, and its verdicts on these are on disk before it reads
    more: a stopped run loses the verdicts on one chunk at most.

    `together`: all processes judge the same answers at the same time, on the devices of all; else the first one does.
    """

    @property
    def chunk(self) -> int: ...

    @property
    def together(self) -> bool: ...

    def close(self) -> None:
        """Free what judging took, a model's memory on devices for one. It may judge again later."""
        ...


@runtime_checkable
class RemoteJudge(SlowJudge, Protocol):
    """A judge behind a service that may leave answers without a verdict, and keeps in a folder what it was told."""

    def check_ready(self) -> None:
        """Raise UserError where it cannot be asked: no key, no client. Sends nothing."""
        ...

    def keep_in(self, folder: pathlib.Path, say: Callable[[str], None]) -> None:
        """Work below this folder; `say` receives what was asked and spent."""
        ...

    def judge_some(self, exchanges: Sequence[Exchange]) -> list[Verdict | None]:
        """As `judge`; None where there is no verdict now, though there may be one later."""
        ...

    def check_complete(self) -> None:
        """Raise UserError where `judge_some` left answers without a verdict."""
        ...

"""What a model was asked, and how: what has to be alike before answers or rates of several runs are paired, averaged or
compared."""

from __future__ import annotations

from collections.abc import Mapping
import dataclasses
import json
from typing import Any

from vlguard_jax.safety import results


@dataclasses.dataclass(frozen=True)
class Asked:
    """One question, as every model can be asked it.

    question: sha256 of its text, with its suffix, without template and picture tag. picture: sha256 of the picture's
    file, or what was shown in its place ("white", "black", "none"): one colour is the same question at any size.
    """

    question: str
    picture: str

    def difference(self, other: Asked) -> str:
        """What differs, in words; "" if nothing does."""
        if self.question != other.question:
            return "another text or suffix"
        return "another picture" if self.picture != other.picture else ""


@dataclasses.dataclass(frozen=True)
class How:
    """How a question is asked. `preprocessing` is "pad" or "crop", "" where no picture of the benchmark is shown."""

    template: str
    preprocessing: str
    min_new: int
    max_new: int

    def difference(self, other: How) -> str:
        """The first difference as "name ours, not theirs"; "" if there is none."""
        if self.template != other.template:
            return f"template {self.template}, not {other.template}"
        if self.preprocessing and other.preprocessing and self.preprocessing != other.preprocessing:
            return f"image mode {self.preprocessing}, not {other.preprocessing}"
        if (self.min_new, self.max_new) != (other.min_new, other.max_new):
            return f"{self.limits}, not {other.limits}"
        return ""

    @property
    def limits(self) -> str:
        """The limits of an answer in words."""
        return f"{self.min_new} to {self.max_new} new tokens"


def asked(question_sha256: str, image_mode: str, image_sha256: str) -> Asked:
    """From the fields of a question or of a result line."""
    return Asked(question_sha256, image_sha256 if image_mode == "real" else image_mode)


def of_line(line: results.GenerationLine) -> Asked:
    """What the answer of a result line is about."""
    return asked(line.question_sha256, line.image_mode, line.image_sha256)


def how_of_line(line: results.GenerationLine) -> How:
    """How the question of a result line was asked."""
    preprocessing = line.preprocessing if line.image_mode == "real" else ""
    return How(line.template, preprocessing, line.decode.min_new, line.decode.max_new)


def how_of_row(row: Mapping[str, Any]) -> How:
    """How the questions behind a row of summary.json were asked."""
    decode = row["decode"]
    return How(
        row["template"],
        row["preprocessing"] if row["image_mode"] == "real" else "",
        decode["min_new"],
        decode["max_new"],
    )


def digests(found: Mapping[str, Asked]) -> dict[str, str]:
    """The fields of a row of summary.json that tell whether two rows are about the same questions, from id -> what was
    asked."""
    items = sorted(found.items())
    return {
        "questions_sha256": results.sha256(json.dumps([(id_, one.question) for id_, one in items])),
        "pictures_sha256": results.sha256(json.dumps([(id_, one.picture) for id_, one in items])),
    }

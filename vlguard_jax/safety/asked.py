"""What a model was asked, and how. Both must be the same before answers or rates of several runs are paired, averaged
or compared."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
import dataclasses
import json

from vlguard_jax.safety import results
from vlguard_jax.safety import summary


@dataclasses.dataclass(frozen=True)
class Asked:
    """One question, independent of the model that is asked.

    Attributes:
      question: sha256 of its text, with its suffix, without template and picture tags.
      pictures: for each picture the sha256 of its file, or what was shown in its place ("white", "black", "none"); a
        blank of one colour counts as the same at any size.
    """

    question: str
    pictures: tuple[str, ...]

    def difference(self, other: Asked) -> str:
        """What differs, in words; "" if nothing does."""
        if self.question != other.question:
            return "another text or suffix"
        return "another picture" if self.pictures != other.pictures else ""


@dataclasses.dataclass(frozen=True)
class How:
    """How a question is asked.

    Attributes:
      template, template_sha256: name and hash of the conversation template; "" for a hash that may be any.
      preprocessing: "pad" or "crop"; "" where no picture of the benchmark is shown.
      min_new, max_new: limits of the answer's tokens.
      decoding: `results.Decode.choice`. Its seed may be any, and so may number formats: what they change is noise.
    """

    template: str
    template_sha256: str
    preprocessing: str
    min_new: int
    max_new: int
    decoding: str

    def difference(self, other: How) -> str:
        """The first difference as "name ours, not theirs"; "" if there is none."""
        if self.template != other.template:
            return f"template {self.template}, not {other.template}"
        if self.template_sha256 and other.template_sha256 and self.template_sha256 != other.template_sha256:
            return f"another wording of the template {self.template}"
        if self.preprocessing and other.preprocessing and self.preprocessing != other.preprocessing:
            return f"image mode {self.preprocessing}, not {other.preprocessing}"
        if (self.min_new, self.max_new) != (other.min_new, other.max_new):
            return f"{self.limits}, not {other.limits}"
        if self.decoding != other.decoding:
            return f"decoding {self.decoding}, not {other.decoding}"
        return ""

    @property
    def limits(self) -> str:
        """The limits of an answer in words."""
        return f"{self.min_new} to {self.max_new} new tokens"


def asked(question_sha256: str, image_mode: str, pictures_sha256: Iterable[str]) -> Asked:
    """Built from the fields of a question or of a result line, with one hash per picture."""
    return Asked(question_sha256, tuple(sha256 if image_mode == "real" else image_mode for sha256 in pictures_sha256))


def of_line(line: results.GenerationLine) -> Asked:
    """The question that a result line answers."""
    return asked(line.question_sha256, line.image_mode, (picture.sha256 for picture in line.pictures))


def how_of(record: results.GenerationLine | summary.Row) -> How:
    """How the question of a result line, or the questions behind a row of summary.json, were asked."""
    preprocessing = record.preprocessing if record.image_mode == "real" else ""
    decode = record.decode
    return How(record.template, record.template_sha256, preprocessing, decode.min_new, decode.max_new, decode.choice)


def digests(found: Mapping[str, Asked]) -> dict[str, str]:
    """The fields of a summary.json row that identify its questions, from id -> what was asked: rows with equal digests
    were asked the same."""
    items = sorted(found.items())
    return {
        "questions_sha256": results.sha256(json.dumps([(id_, one.question) for id_, one in items])),
        "pictures_sha256": results.sha256(json.dumps([(id_, one.pictures) for id_, one in items])),
    }

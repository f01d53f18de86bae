"""Answers with a person's label: XSTest's annotated completions as published, any CSV, or what raters saved from the
page that `label` writes, by the keys of the answers."""

from __future__ import annotations

import dataclasses
import pathlib
import re

from vlguard_jax import errors
from vlguard_jax import files
from vlguard_jax import limits
from vlguard_jax.data import csv_records
from vlguard_jax.safety import results

# Columns, the first that a file has: XSTest's names, common ones, PyRIT's.
ANSWERS = ("completion", "response", "answer", "assistant_response")
LABELS = ("final_label", "label", "human_score")
MEANINGS = {
    "1_full_compliance": "comply",
    "2_full_refusal": "refuse",
    "3_partial_refusal": "partial",
    "comply": "comply",
    "refuse": "refuse",
    "partial": "partial",
}
SCORES = {"0": "comply", "1": "refuse"}  # of human_score: 1 is a refusal
OPTIONAL = ("model", "key", "rater", "response_sha256", "asks", "rows")  # further columns
REFUSAL, HARM, BETTER = "refusal", "harm", "better"
# What people were asked; for harm, "comply" is a harmful answer and "refuse" a harmless one; "better": which of two
# answers is.
ASKS = (REFUSAL, HARM, BETTER)
PREFERENCES = ("first", "second", "even")
XSTEST = "xstest_v2_completions_"  # the beginning of XSTest's file names, before the model


@dataclasses.dataclass(frozen=True)
class Labelled:
    """An answer and what a person says of it.

    Attributes:
      response: the answer, None where the file names it by its key alone.
      label: "refuse", "partial" or "comply"; one of PREFERENCES where `asks` is BETTER.
      key: of the answer in generations.jsonl, "" where the file has no column `key`.
      model: the column `model`, "" where there is none.
      origin: file and line, for messages.
      rater: who says it, "" where the file does not say.
      digest: sha256 of the answer, "" where the file does not say.
      asks: one of ASKS.
    """

    response: str | None
    label: str
    key: str
    model: str
    origin: str
    rater: str = ""
    digest: str = ""
    asks: str = REFUSAL

    def fits(self, response: str) -> bool:
        """Whether the label is of this answer, as far as the file says; `response` is its text or, where that is
        withheld, its sha256."""
        known = results.sha256(self.response) if self.response is not None else self.digest
        return not known or known in (response, results.sha256(response))


@dataclasses.dataclass(frozen=True)
class Labels:
    """The labelled answers of one model.

    Attributes:
      model: who answered: the column `model`, else the file's name.
      path: the file.
      sha256: of the file.
      answers: in the file's order.
      told: who says so, where it is not the file as it stands.
    """

    model: str
    path: pathlib.Path
    sha256: str
    answers: tuple[Labelled, ...]
    told: str = ""

    @property
    def asks(self) -> str:
        """What people were asked, one of ASKS."""
        return self.answers[0].asks

    @property
    def origin(self) -> str:
        """The file by name and hash."""
        return f"{self.path.name} ({self.sha256[:12]})"


def read(path: pathlib.Path) -> list[Labels]:
    """The labelled answers of a CSV file, by the model that gave them.

    The file has one of the columns `LABELS`, and one of `ANSWERS` or `key`, or both. Labels are those of XSTest,
    "comply", "refuse" and "partial", or in a column `human_score` 1 for a refusal and 0 for none. `model`, `rater`,
    `response_sha256`, `asks` (one of ASKS) and `rows` (how many the file has, by which a cut one is known)
    may be there.

    Raises:
      UserError: as `csv_records.read`; a column is missing, a label is unknown, the number of rows is another one, or
        there is no answer.
    """
    first = next(csv_records.read(path, ()), None)
    if first is None:
        raise errors.UserError(f"{path}: no labelled answer; name a file with rows below its heading")
    label = _column(path, first, LABELS)
    answer = "" if "key" in first.cells and not set(ANSWERS) & first.cells.keys() else _column(path, first, ANSWERS)
    found: dict[str, list[Labelled]] = {}
    optional = [name for name in OPTIONAL if name in first.cells]
    count, rows = 0, ""
    for row in csv_records.read(path, (*filter(None, (answer, label)), *optional)):
        count, rows = count + 1, row.cells.get("rows", "").strip()
        labelled = _labelled(row, answer, label)
        model = labelled.model or path.stem.removeprefix(XSTEST)
        if len(model) > limits.NAME:
            raise errors.UserError(
                f"{row.origin}: model={errors.short(model)} has more than {limits.NAME:,} characters; shorten it"
            )
        found.setdefault(model, []).append(labelled)
    if rows and rows != str(count):
        raise errors.UserError(
            f"{path}: {count} rows, and the column rows says {errors.short(rows)}: the file was cut, or joined with"
            " another; save it again, name each file by itself, or leave that column out"
        )
    digest = results.sha256(files.read_bytes(path))
    return [Labels(model, path, digest, tuple(answers)) for model, answers in found.items()]


def _labelled(row: csv_records.Row, answer: str, label: str) -> Labelled:
    """A row; `answer` and `label` are columns, the first "" where there is none."""
    model, key, rater, digest, asks = (row.cells.get(name, "").strip() for name in OPTIONAL[:-1])
    meanings = SCORES if label == "human_score" else MEANINGS
    if asks == BETTER:
        meanings = {name: name for name in PREFERENCES}
    value = row.cells[label].strip()
    if value not in meanings:
        raise errors.UserError(
            f"{row.origin}: {label}={errors.short(value)} is no label{errors.nearest(value, meanings)}"
        )
    if not answer and not key:
        raise errors.UserError(f"{row.origin}: 'key' is empty, so nothing says which answer the label is of")
    if digest and not re.fullmatch("[0-9a-f]{64}", digest):
        raise errors.UserError(
            f"{row.origin}: response_sha256={errors.short(digest)} is no sha256: was the file cut? save it again"
        )
    if asks and asks not in ASKS:
        raise errors.UserError(f"{row.origin}: asks={errors.short(asks)} is unknown{errors.nearest(asks, ASKS)}")
    response = row.cells[answer] if answer else None
    return Labelled(response, meanings[value], key, model, row.origin, rater, digest, asks or REFUSAL)


def _column(path: pathlib.Path, row: csv_records.Row, names: tuple[str, ...]) -> str:
    """The first of `names` that the file has."""
    found = next((name for name in names if name in row.cells), None)
    if found is None:
        what = "answers" if names is ANSWERS else "labels"
        raise errors.UserError(
            f"{path}: no column of {what}, it has {', '.join(map(errors.short, row.cells))}; call it {names[0]!r} or"
            f" {', '.join(map(repr, names[1:]))}"
        )
    return found

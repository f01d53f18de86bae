"""Answers with a person's label, for calibrating judges: XSTest's annotated completions as published, or any CSV."""

from __future__ import annotations

import dataclasses
import pathlib

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
XSTEST = "xstest_v2_completions_"  # the beginning of XSTest's file names, before the model


@dataclasses.dataclass(frozen=True)
class Labelled:
    """An answer and what a person says of it.

    Attributes:
      response: the answer.
      label: "refuse", "partial" or "comply".
      key: of the answer in generations.jsonl, "" where the file has no column `key`.
      model: the column `model`, "" where there is none.
      origin: file and line, for messages.
    """

    response: str
    label: str
    key: str
    model: str
    origin: str


@dataclasses.dataclass(frozen=True)
class Labels:
    """The labelled answers of one model.

    Attributes:
      model: who answered: the column `model`, else the file's name.
      path: the file.
      sha256: of the file.
      answers: in the file's order.
    """

    model: str
    path: pathlib.Path
    sha256: str
    answers: tuple[Labelled, ...]


def read(path: pathlib.Path) -> list[Labels]:
    """The labelled answers of a CSV file, by the model that gave them.

    The file has one of the columns `ANSWERS` and one of `LABELS`; `model` and `key` may be there, too. Labels are those
    of XSTest, "comply", "refuse" and "partial", or in a column `human_score` 1 for a refusal and 0 for none.

    Raises:
      UserError: as `csv_records.read`; a column is missing, a label is unknown, or there is no answer.
    """
    first = next(csv_records.read(path, ()), None)
    if first is None:
        raise errors.UserError(f"{path}: no labelled answer; name a file with rows below its heading")
    answer, label = (_column(path, first, names) for names in (ANSWERS, LABELS))
    meanings = SCORES if label == "human_score" else MEANINGS
    found: dict[str, list[Labelled]] = {}
    optional = [name for name in ("model", "key") if name in first.cells]
    for row in csv_records.read(path, (answer, label, *optional)):
        value = row.cells[label].strip()
        if value not in meanings:
            raise errors.UserError(
                f"{row.origin}: {label}={errors.short(value)} is no label{errors.nearest(value, meanings)}"
            )
        named, key = (row.cells.get(column, "").strip() for column in ("model", "key"))
        model = named or path.stem.removeprefix(XSTEST)
        if len(model) > limits.NAME:
            raise errors.UserError(
                f"{row.origin}: model={errors.short(model)} has more than {limits.NAME:,} characters; shorten it"
            )
        labelled = Labelled(row.cells[answer], meanings[value], key, named, row.origin)
        found.setdefault(model, []).append(labelled)
    digest = results.sha256(files.read_bytes(path))
    return [Labels(model, path, digest, tuple(answers)) for model, answers in found.items()]


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

"""Agreement as tables for terminal, page and paper, and as files: agreement.json, pairs.csv, disagreements.csv."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
import csv
import io
import json
from pathlib import Path
from typing import Any

from vlguard_jax import terminal
from vlguard_jax.reporting import agreed as agreed_lib
from vlguard_jax.reporting import answers
from vlguard_jax.reporting import grid as grid_lib
from vlguard_jax.reporting import page
from vlguard_jax.reporting import provenance
from vlguard_jax.reporting import tables
from vlguard_jax.safety import agreement
from vlguard_jax.safety import labels as labels_lib
from vlguard_jax.safety import statistics

SCHEMA = 1  # of agreement.json
SHOWN = 40  # disagreements of a page; disagreements.csv has all
WORDS = {"refuse": "refusal", "partial": "partial refusal", "comply": "answer"}
HARM = {"refuse": "harmless", "partial": "partly harmful", "comply": "harmful"}

RATERS = "Who labelled, and how often what. An answer without a verdict is missing for that judge."
PAIRS = (
    "Every two raters on the answers that both labelled: the share with one label (95 % interval: Wilson) and Cohen's"
    " kappa, which is 0 for agreement by chance and 1 for full agreement (Fleiss, Cohen and Everitt's interval, as if"
    " answers were independent)."
)
ALPHAS = (
    "Krippendorff's alpha of all raters at once, whose labels may be missing: 1 is full agreement, 0 that of labels"
    " given at random (nominal labels; the interval resamples answers, as if they were independent)."
)


def section(found: agreed_lib.Agreed) -> provenance.Section:
    """The tables that fit a paper."""
    made = ((RATERS, _raters(found)), (PAIRS, _pairs(found)), (ALPHAS, _alphas(found)))
    return provenance.Section(made, _notes(found))


def shown(found: agreed_lib.Agreed) -> agreed_lib.Shown:
    """All of it; of the disagreements those whose keys have the smallest hashes."""
    few = answers.choose(found.disagreements, SHOWN)
    return agreed_lib.Shown(
        section(found), confusions(found), tuple(_disagreement(found, key) for key in few), len(found.disagreements)
    )


def show(found: provenance.Section, more: Sequence[tuple[str, provenance.Table]] = ()) -> None:
    """Print a section, and further tables with their captions."""
    console = terminal.console()
    for caption, table in (*found.tables, *more):
        console.print(tables.table(table.headings, table.lines))
        console.print(caption)
    for note in found.notes:
        console.print(note)


def confusions(found: agreed_lib.Agreed) -> tuple[tuple[str, provenance.Table], ...]:
    """A table of counts for every two raters."""
    words = _words(found)
    made = []
    for pair in found.pairs:
        lines = [
            (words[label], *map(str, counts), str(sum(counts)))
            for label, counts in zip(pair.labels, pair.table, strict=True)
        ]
        table = provenance.Table((f"{pair.a} says", *(words[label] for label in pair.labels), "in all"), tuple(lines))
        made.append((f"{pair.a} (lines) and {pair.b} (columns): answers", table))
    return tuple(made)


def save(found: agreed_lib.Agreed, folder: Path, corrected: Sequence[Mapping[str, Any]] = ()) -> None:
    """Write the files; majority.csv only where two people or more labelled an answer, corrected.csv only with rates.

    `corrected`: the figures of `calibrated.calibrate`.

    Raises:
      UserError: they cannot be written.
    """
    page.save(folder / "agreement.json", json.dumps(values(found) | {"corrected": corrected}, indent=1) + "\n")
    heading = ("a", "b", "answers", "same", "kappa", "kappa_low", "kappa_high")
    cells = ([p.a, p.b, p.n, p.same, *(p.kappa or ("", "", ""))] for p in found.pairs)
    page.save(folder / "pairs.csv", _csv(heading, list(cells)))
    titles = [rater.title for rater in found.raters]
    columns = ("key", "model", "benchmark", "subset", "item_id", *titles, "response")
    page.save(folder / "disagreements.csv", _csv(columns, (_line(found, key, titles) for key in found.disagreements)))
    most = [(key, label) for key, label in found.majority.items() if label]
    rows = [(key, label, "majority", found.asks, len(most)) for key, label in most]
    _save(folder / "majority.csv", ("key", "label", "rater", "asks", "rows"), rows)
    _save(folder / "corrected.csv", tuple(corrected[0]) if corrected else (), [tuple(c.values()) for c in corrected])


def _save(path: Path, heading: Sequence[str], lines: Sequence[Sequence[object]]) -> None:
    """Write a table, or remove that of an earlier report where there is no line."""
    if lines:
        page.save(path, _csv(heading, lines))
    else:
        path.unlink(missing_ok=True)


def values(found: agreed_lib.Agreed) -> dict[str, Any]:
    """Agreement as JSON values, without the answers' texts."""
    return {
        "schema": SCHEMA,
        "asks": found.asks,
        "raters": [
            {"name": r.name, "kind": r.kind, "detail": r.detail, "labelled": len(r.labels), "invalid": r.invalid}
            for r in found.raters
        ],
        "pairs": [
            {
                "a": p.a,
                "b": p.b,
                "answers": p.n,
                "same": p.same,
                "kappa": _interval(p.kappa),
                "kappa_partial_is_answer": _interval(p.merged("partial", "comply").kappa),
                "confusion": {"labels": p.labels, "counts": p.table},
            }
            for p in found.pairs
        ],
        "alphas": [
            {"raters": who, "subset": where, "answers": a.answers, "labels": a.labels, "same": a.same}
            | {"alpha": _interval(a.interval)}
            for who, where, a in found.alphas
        ],
        "disagreements": [
            {name: getattr(found.answers[key], name) for name in ("key", "model", "benchmark", "subset", "item_id")}
            | {"labels": found.labels(key)}
            for key in found.disagreements
        ],
        "even": [key for key, label in found.majority.items() if label is None],
    }


def _interval(found: agreement.Interval | None) -> dict[str, float] | None:
    return found._asdict() if found else None


def _csv(heading: Sequence[str], lines: Iterable[Sequence[object]]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([heading, *lines])
    return text.getvalue()


def _line(found: agreed_lib.Agreed, key: str, titles: Sequence[str]) -> list[str]:
    answer, labels = found.answers[key], found.labels(key)
    own = [answer.key, answer.model, answer.benchmark, answer.subset, answer.item_id]
    return [*own, *(labels.get(title, "") for title in titles), answer.text or ""]


def _words(found: agreed_lib.Agreed) -> dict[str, str]:
    return HARM if found.asks == labels_lib.HARM else WORDS


def _raters(found: agreed_lib.Agreed) -> provenance.Table:
    words = _words(found)
    lines = [
        (
            rater.title,
            rater.detail,
            str(len(rater.labels)),
            *(str(list(rater.labels.values()).count(label)) for label in agreement.LABELS),
            str(rater.invalid) if rater.invalid else grid_lib.NONE,
        )
        for rater in found.raters
    ]
    headings = ("rater", "which", "labels", *(f"{words[label]}" for label in agreement.LABELS), "without a verdict")
    return provenance.Table(headings, tuple(lines))


def _pairs(found: agreed_lib.Agreed) -> provenance.Table:
    partial = any("partial" in pair.labels for pair in found.pairs)
    headings = ["rater", "and", "answers", "same, %", "kappa"]
    lines = []
    for pair in found.pairs:
        low, high = statistics.wilson(pair.same, pair.n)
        share = f"{grid_lib.percent(pair.same / pair.n)} [{grid_lib.percent(low)}, {grid_lib.percent(high)}]"
        line = [pair.a, pair.b, str(pair.n), share, _told(pair.kappa)]
        lines.append((*line, *([_told(pair.merged("partial", "comply").kappa)] if partial else [])))
    return provenance.Table((*headings, *(["kappa, partial refusals as answers"] if partial else [])), tuple(lines))


def _alphas(found: agreed_lib.Agreed) -> provenance.Table:
    lines = [
        (who, where, str(a.answers), str(a.labels), grid_lib.percent(a.same / a.answers), _told(a.interval))
        for who, where, a in found.alphas
    ]
    return provenance.Table(("raters", "answers to", "answers", "labels", "all the same, %", "alpha"), tuple(lines))


def _told(found: agreement.Interval | None) -> str:
    return f"{found.value:.2f} [{found.low:.2f}, {found.high:.2f}]" if found else grid_lib.NONE


def _notes(found: agreed_lib.Agreed) -> tuple[str, ...]:
    notes = [
        f"{len(found.disagreements)} of {len(found.answers)} answers with two labels or more have different ones.",
        f"{grid_lib.NONE}: not defined. Kappa is not where one of the two says the same of all answers, and alpha where"
        " all labels are the same: nothing says what chance would do.",
    ]
    if found.majority:
        even = sum(label is None for label in found.majority.values())
        notes.append(
            f"Most people agree on {len(found.majority) - even} of {len(found.majority)} answers that two or more"
            f" labelled (majority.csv); on {even} they are even."
        )
    if found.asks == labels_lib.HARM:
        notes.append("People were asked whether an answer is harmful, not whether it refuses.")
    return tuple(notes)


def _disagreement(found: agreed_lib.Agreed, key: str) -> agreed_lib.Disagreement:
    answer, words = found.answers[key], _words(found)
    labels = "; ".join(f"{title}: {words[label]}" for title, label in found.labels(key).items())
    text = answer.text
    if text is not None and len(text) > answers.LETTERS:
        text = f"{text[: answers.LETTERS]} … ({len(text) - answers.LETTERS:,} more letters)"
    return agreed_lib.Disagreement(f"{answer.model}, {answer.subset} {answer.item_id}", labels, text)

"""The report: one self-contained page about any number of training and evaluation runs."""

from __future__ import annotations

from collections.abc import Sequence
import datetime
from pathlib import Path
from typing import Any

from vlguard_jax import errors
from vlguard_jax import files
from vlguard_jax.reporting import agreed
from vlguard_jax.reporting import alike
from vlguard_jax.reporting import answers
from vlguard_jax.reporting import charts
from vlguard_jax.reporting import grid as grid_lib
from vlguard_jax.reporting import probed
from vlguard_jax.reporting import provenance
from vlguard_jax.reporting import runs as runs_lib
from vlguard_jax.reporting import tables
from vlguard_jax.reporting import template
from vlguard_jax.reporting import tradeoff

TEMPLATE = "page.html"


def write(
    folders: Sequence[Path],
    out: Path,
    *,
    title: str,
    introduction: str = "",
    notes: Sequence[str] = (),
    claims: provenance.Table | None = None,
    fold_unsafe: bool = True,
) -> None:
    """Write the page about all runs in `folders` and below to `out`.

    Args:
      folders: working directories of train and evaluate, or folders above them, in the order of the page.
      out: the file to write; it loads no other file and nothing from the network.
      title: heading of the page.
      introduction: a paragraph that says what was asked; made from the rows if empty.
      notes: sentences for the end of the page.
      claims: a separate table below the rates: what the runs are to show.
      fold_unsafe: fold and blur questions, pictures and answers of unsafe subsets. False only for a benchmark that is
        known to contain nothing harmful.

    Raises:
      UserError: see `runs.find` and `alike.check`; or `out` cannot be written.
    """
    found = runs_lib.find(folders)
    text = render(found, title=title, introduction=introduction, notes=notes, claims=claims, fold_unsafe=fold_unsafe)
    save(out, text)


def save(path: Path, text: str) -> None:
    """Write a text file, and make its folder.

    Raises:
      UserError: it cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        files.write_text(path, text)
    except OSError as e:
        raise errors.UserError(f"{path} cannot be written: {e.strerror}; choose another file") from e


def render(
    found: runs_lib.Runs,
    *,
    title: str,
    introduction: str = "",
    notes: Sequence[str] = (),
    claims: provenance.Table | None = None,
    calibration: provenance.Section | None = None,
    agreement: agreed.Shown | None = None,
    preferences: provenance.Section | None = None,
    fold_unsafe: bool = True,
) -> str:
    """The page as text; see `write`. `calibration`, `agreement` and `preferences` are sections of their own."""
    alike.check(found.evaluations)
    grid = grid_lib.arrange(found.evaluations)
    styles = styles_of(found, grid)
    balance = tradeoff.find(grid)
    return template.render(
        TEMPLATE,
        title=title,
        introduction=introduction or _introduction(found, grid),
        result=tradeoff.sentence(grid) if found.evaluations else "",
        notes=(*notes, *found.notices),
        claims=claims,
        calibration=calibration,
        agreement=agreement,
        preferences=preferences,
        grid=grid,
        arrows=grid_lib.ARROWS,
        marks=grid_lib.marks,
        stand_in=any(row.stand_in for e in found.evaluations for row in e.rows),
        invalid=any(row.n_invalid for e in found.evaluations for row in e.rows),
        cut=any(tables.mostly_cut(row.n_cut, row.n) for e in found.evaluations for row in e.rows),
        comparisons=provenance.comparisons(grid, found.evaluations),
        categories=provenance.categories(grid),
        captions={"comparisons": provenance.COMPARISONS, "categories": provenance.CATEGORIES},
        balance=balance,
        scatters=_scatters(balance, styles),
        curves=_curves(found, styles),
        probed=probed.show(found.trainings),
        trainings=found.trainings,
        styles=styles,
        subsets=answers.show(found.evaluations, grid),
        fold_unsafe=fold_unsafe,
        training_table=provenance.trainings(found.trainings),
        evaluation_table=provenance.evaluations(found.evaluations),
        versions=provenance.versions(found.evaluations),
        settings=provenance.settings(found),
        command=provenance.command(),
        written=datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC"),
    )


def styles_of(found: runs_lib.Runs, grid: grid_lib.Grid) -> dict[str, int]:
    """A number for every model and training run; a run and the model of the same name share it."""
    names = dict.fromkeys([*(line.label for line in grid.lines), *(t.name for t in found.trainings)])
    return {name: i for i, name in enumerate(names)}


def _introduction(found: runs_lib.Runs, grid: grid_lib.Grid) -> str:
    models = len(grid.lines)
    asked = sum(c.n for c in grid.columns if c.n)
    if not asked:
        return f"{len(found.trainings)} training run{'s' * (len(found.trainings) != 1)}, not evaluated yet."
    benchmarks = ", ".join(dict.fromkeys(c.benchmark for c in grid.columns))
    who = "one model was" if models == 1 else f"{models} models were"
    return (
        f"How safe is a model that answers questions about pictures, and what does its safety cost? Here {who} asked"
        f" harmful and harmless questions ({benchmarks}). A safe and useful model refuses the harmful ones and answers"
        " the others."
    )


def _scatters(balance: tradeoff.Tradeoff | None, styles: dict[str, int]) -> list[charts.Scatter]:
    if balance is None:
        return []
    return [charts.scatter(balance.points, [styles[p.label] for p in balance.points], size) for size in charts.SIZES]


def _curves(found: runs_lib.Runs, styles: dict[str, int]) -> list[Any]:
    series = [[(m["step"], m["loss"]) for m in t.metrics] for t in found.trainings]
    drawn = [charts.curves(series, [styles[t.name] for t in found.trainings], size) for size in charts.SIZES]
    return [d for d in drawn if d is not None]

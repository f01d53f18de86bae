"""Puts the results of a sweep into one table: a line per arm, each rate the mean of the finished seeds.

  python -m vlguard_jax.gather --root results --out sweep.html --markdown sweep.md JOB=LABEL [JOB=LABEL ...]

render.py writes this command into gather.sh. A job's folder below --root holds the results of train and evaluate; jobs
with the same LABEL are seeds of one arm. Unfinished jobs are named and left out, so the table can be made at any time.
--out is the report of all runs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
import pathlib
import sys
from typing import TYPE_CHECKING

from absl import flags

if __name__ == "__main__":
    sys.path[0] = str(pathlib.Path(__file__).resolve().parent.parent)  # the package beside this program

if TYPE_CHECKING:
    from vlguard_jax.reporting import alike
    from vlguard_jax.reporting import runs as runs_lib
    from vlguard_jax.reporting import seeds as seeds_lib
    from vlguard_jax.safety import summary

_ROOT = flags.DEFINE_string("root", "results", "folder with one folder per job")
_OUT = flags.DEFINE_string("out", "", "also write the report of all runs to this page")
_MARKDOWN = flags.DEFINE_string("markdown", "", "also write the table to this file")

CAPTION = (
    "Percent: mean of the seeds, with the 95 % interval of the recipe's mean over seeds and items in brackets"
    " (Student's t of the seeds' rates and Wilson's of the items, which all seeds share; of one seed Wilson's, which is"
    " silent about other seeds). Where seeds of a line were trained on several draws of their data, it is the mean over"
    " draws. ↓ lower is better, ↑ higher is better."
)


def cells(texts: Sequence[str]) -> dict[str, str]:
    """JOB=LABEL arguments as job -> label.

    Raises:
      UserError: none, one without "=", or a job twice.
    """
    from vlguard_jax import errors

    found: dict[str, str] = {}
    for text in texts:
        job, equals, label = text.partition("=")
        if not (job and equals and label) or job in found:
            raise errors.UserError(f"{text!r}: give every job once, as JOB=LABEL; gather.sh has them")
        found[job] = label
    if not found:
        raise errors.UserError("name the jobs as JOB=LABEL; gather.sh, which render.py writes for a sweep, has them")
    return found


def read(root: pathlib.Path, jobs: Mapping[str, str]) -> tuple[dict[str, runs_lib.Runs], list[str]]:
    """(runs of the jobs with a finished evaluation, by job; names of the other jobs)."""
    from vlguard_jax import errors
    from vlguard_jax.reporting import runs as runs_lib

    found: dict[str, runs_lib.Runs] = {}
    for job in jobs:
        if not (root / job).is_dir() or not any((root / job).rglob("summary.json")):
            continue
        found[job] = runs_lib.find([root / job])
    if not found:
        raise errors.UserError(
            f"{root}: none of the {len(jobs)} jobs has a finished evaluation; is --root the folder above theirs?"
        )
    return found, [job for job in jobs if job not in found]


def table(found: Mapping[str, runs_lib.Runs], jobs: Mapping[str, str]) -> tuple[list[str], list[list[str]]]:
    """(headings, lines) as text.

    Raises:
      UserError: a job has two evaluations of the same questions, or runs to be averaged or in one column were not asked
        alike.
    """
    from vlguard_jax.reporting import alike
    from vlguard_jax.reporting import grid as grid_lib
    from vlguard_jax.reporting import runs as runs_lib
    from vlguard_jax.reporting import seeds as seeds_lib

    alike.check(evaluation for runs in found.values() for evaluation in runs.evaluations)
    by_label: dict[str, dict[tuple[str, ...], list[tuple[str, alike.Rated]]]] = {}
    for job, runs in found.items():
        for key, one in _rows(job, runs).items():
            by_label.setdefault(jobs[job], {}).setdefault(key, []).append((job, one))
    keys = list(dict.fromkeys(key for measures in by_label.values() for key in measures))
    names, pictures = {}, {}
    for benchmark, subset, _, judge, shown in keys:
        several = [
            part
            for part, i in ((benchmark, 0), (f"judge {judge}", 3))
            if len({k[i] for k in keys if k[1] == subset}) > 1
        ]
        name = "/".join((benchmark, subset, judge, shown))
        names[name] = ", ".join([grid_lib.SUBSETS.get(subset, subset), *several])
        pictures[name] = shown
    rates: dict[str, dict[str, dict[str, seeds_lib.Mean]]] = {}
    for label, measures in by_label.items():
        finished = len({job for job in found if jobs[job] == label})
        line = f"{label} ({finished} of {sum(other == label for other in jobs.values())} seeds)"
        for (benchmark, subset, metric, judge, shown), rated in measures.items():
            alike.check_seeds(label, subset, rated)
            some = f"{len(rated)} of {finished} seeds" if len(rated) < finished else ""
            draws = [runs_lib.draw(found[job].trainings) for job, _ in rated]
            mean = _mean(label, subset, [seed.row for _, seed in rated], draws, some)
            rates.setdefault(line, {}).setdefault("/".join((benchmark, subset, judge, shown)), {})[metric] = mean
    return grid_lib.texts(seeds_lib.arrange(rates, names, pictures))


def _rows(job: str, runs: runs_lib.Runs) -> dict[tuple[str, ...], alike.Rated]:
    """A job's result rows by (benchmark, subset, metric, judge, pictures)."""
    from vlguard_jax import errors
    from vlguard_jax.reporting import alike

    rows: dict[tuple[str, ...], alike.Rated] = {}
    for evaluation in runs.evaluations:
        for row in evaluation.rows:
            key = row.benchmark, row.subset, row.metric, row.judge, row.pictures
            if key in rows:
                raise errors.UserError(
                    f"{job} has two evaluations of {row.subset} by {row.judge}; give one of them another job"
                )
            rows[key] = alike.Rated(evaluation, row)
    return rows


def _mean(label: str, subset: str, rows: Sequence[summary.Row], draws: Sequence[str], seeds: str) -> seeds_lib.Mean:
    """The mean over seeds or draws of the training data with its interval; all seeds answer the same items."""
    from vlguard_jax import errors
    from vlguard_jax.reporting import seeds as seeds_lib
    from vlguard_jax.safety import asr

    sizes = [asr.asked(row) for row in rows]
    if len(set(sizes)) > 1:
        raise errors.UserError(
            f"the seeds of {label!r} asked different numbers of {subset} ({sizes}); evaluate them alike"
        )
    return seeds_lib.over(rows, same_items=True, draws=draws, seeds=seeds)


def markdown(headings: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    """The table as Markdown, with its caption."""
    from vlguard_jax.reporting import tables

    return f"{tables.markdown_table(headings, lines, right=True)}\n{CAPTION}\n"


def main(positional: list[str]) -> int:
    """Print the table, and write what the flags ask for."""
    from vlguard_jax import errors
    from vlguard_jax import escape
    from vlguard_jax import terminal
    from vlguard_jax.reporting import page
    from vlguard_jax.reporting import runs as runs_lib

    jobs = cells(positional)
    root = pathlib.Path(_ROOT.value)
    found, missing = read(root, jobs)
    text = markdown(*table(found, jobs))
    print(escape.page(text))
    terminal.say(
        f"{len(found)} of {len(jobs)} jobs have finished" + (f"; not yet: {', '.join(missing)}" if missing else "")
    )
    if _MARKDOWN.value:
        page.save(pathlib.Path(_MARKDOWN.value), text)
        terminal.say(f"wrote {_MARKDOWN.value}")
    if _OUT.value:
        everything = runs_lib.find([root / job for job in found])
        page.save(
            pathlib.Path(_OUT.value), page.render(everything, title=f"Sweep of {len(jobs)} jobs", fold_unsafe=True)
        )
        terminal.say(f"wrote {_OUT.value}")
    return errors.EXIT_OK


if __name__ == "__main__":
    from vlguard_jax import cli

    cli.run(main, doc=__doc__)

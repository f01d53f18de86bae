"""Result tables for the terminal and for Markdown. Rates are shown in percent here and nowhere else."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from rich import table as rich_table

from vlguard_jax import escape
from vlguard_jax import terminal
from vlguard_jax.safety import asr
from vlguard_jax.safety import paper as paper_lib
from vlguard_jax.safety import statistics
from vlguard_jax.safety import summary

MISSING = "-"


def cells(rows: Sequence[summary.Row]) -> tuple[list[str], list[list[str]]]:
    """(headings, lines) of rows of summary.json; columns that no row fills are left out."""
    versus, papers = adjusted(rows)
    columns = {
        "model": [r.model for r in rows],
        "asked as": [r.preset for r in rows],
        "subset": [r.subset for r in rows],
        "measure": [r.metric.replace("_", " ") for r in rows],
        "n": [_n(r) for r in rows],
        "%": [f"{100 * r.rate:.2f}" for r in rows],
        "95 % interval": [f"{100 * r.ci_low:.2f} to {100 * r.ci_high:.2f}" for r in rows],
        "invalid": [str(r.n_invalid) if r.n_invalid else MISSING for r in rows],
        "cut": [str(r.n_cut) if r.n_cut else MISSING for r in rows],
        "pictures": [_pictures(r) for r in rows],
        "judge": [r.judge if len(_judges(rows)) > 1 else MISSING for r in rows],
        "vs baseline": [_versus(r.vs_baseline, p) for r, p in zip(rows, versus, strict=True)],
        "paper %": [_paper_value(r.paper) for r in rows],
        "reproduced?": [_reproduced(r, p) for r, p in zip(rows, papers, strict=True)],
    }
    return _filled(columns)


def categories(rows: Sequence[summary.Row]) -> tuple[list[str], list[list[str]]]:
    """(headings, lines) of the rates by category of rows of summary.json; no lines where no row has categories."""
    found = [(row, part) for row in rows for part in row.by_category]
    return _filled(
        {
            "subset": [r.subset for r, _ in found],
            "measure": [r.metric.replace("_", " ") for r, _ in found],
            "judge": [r.judge if len(_judges(rows)) > 1 else MISSING for r, _ in found],
            "category": [" / ".join(filter(None, (c.category, c.subcategory))) for _, c in found],
            "n": [str(c.n) for _, c in found],
            "%": [f"{100 * c.rate:.2f}" for _, c in found],
            "95 % interval": [f"{100 * c.ci_low:.2f} to {100 * c.ci_high:.2f}" for _, c in found],
        }
    )


def _filled(columns: Mapping[str, Sequence[str]]) -> tuple[list[str], list[list[str]]]:
    """(headings, lines) of the columns that hold anything."""
    shown = {name: column for name, column in columns.items() if any(cell != MISSING for cell in column)}
    return list(shown), [list(line) for line in zip(*shown.values(), strict=True)]


def adjusted(rows: Sequence[summary.Row]) -> tuple[list[float | None], list[float | None]]:
    """(p-values against the baseline, those against the paper) of the rows of one table, each kind adjusted by Holm.

    None where a row has no such test.
    """
    return (
        statistics.holm([row.vs_baseline.p if row.vs_baseline else None for row in rows]),
        statistics.holm([row.paper.p if row.paper else None for row in rows]),
    )


def _judges(rows: Sequence[summary.Row]) -> list[str]:
    return sorted({r.judge for r in rows})


def _n(row: summary.Row) -> str:
    left_out = f" of {row.n + row.n_left_out}" if row.n_left_out else ""
    return f"{f'{row.part} ' if row.first_n else ''}{row.n}{left_out}"


def _pictures(row: summary.Row) -> str:
    marks = [row.image_mode] * (row.image_mode != "real") + ["STAND-IN"] * row.stand_in
    return ", ".join(marks) or MISSING


def _versus(versus: summary.Difference | None, adjusted_p: float | None) -> str:
    if versus is None or adjusted_p is None:
        return MISSING
    template = f", with template {versus.template} there" if versus.template else ""
    return f"{points(versus.diff, versus.ci, 2)}, {tested(versus.p, adjusted_p)}{template}"


def points(diff: float, interval: tuple[float, float], digits: int) -> str:
    """A difference of fractions with its interval, in percentage points."""
    low, high = (f"{100 * end:+.{digits}f}" for end in interval)
    return f"{100 * diff:+.{digits}f} ({low} to {high})"


def tested(p: float, adjusted_p: float) -> str:
    """A p-value in two digits, followed by the adjusted one where that is another."""
    raw, holm = _p_value(p), _p_value(adjusted_p)
    return f"p {raw}" + (f", Holm {holm.removeprefix('= ')}" if holm != raw else "")


def _p_value(p: float) -> str:
    return f"= {p:.2g}" if p >= 1e-4 else "< 0.0001"


def _paper_value(paper: paper_lib.Comparison | None) -> str:
    if paper is None:
        return MISSING
    mark = "*" if paper.note.startswith("impossible") else ""
    return f"{paper.percent:.2f}{mark} (n = {paper.n})"


def _reproduced(row: summary.Row, adjusted_p: float | None) -> str:
    if row.paper is None:
        return MISSING
    if row.paper.p is None or adjusted_p is None:
        return f"not comparable: {row.paper.note}"
    verdict = "yes" if paper_lib.reproduced(adjusted_p) else "no"
    diff, *interval = row.paper.difference(row.count, row.n)
    return f"{verdict}: {points(diff, (interval[0], interval[1]), 2)}, {tested(row.paper.p, adjusted_p)}"


def notes(rows: Sequence[summary.Row]) -> list[str]:
    """What a reader must know beside the table: what was run, and on what."""
    runs = {
        f"{r.preset}: template {r.template}, pictures {r.preprocessing}, {r.decode.told}, {r.decode.min_new} to"
        f" {r.decode.max_new} new tokens, {r.decode.dtype}; weights {r.weights_sha256[:12]}"
        for r in rows
    }
    found = sorted(runs)
    if len(_judges(rows)) == 1:
        found.append(f"judge: {rows[0].judge}")
    modes = {r.image_mode for r in rows}
    for colour in sorted(modes & {"white", "black"}):
        found.append(f"pictures {colour}: a control, all pictures were replaced by a {colour} one.")
    if "none" in modes:
        found.append("pictures none: the questions were asked without a picture.")
    if any(r.stand_in for r in rows):
        found.append(
            "STAND-IN: questions or pictures, of test or training, were made by a program; this is a rehearsal, not a"
            " measurement."
        )
    if any(r.first_n for r in rows):
        which = " or ".join(sorted({r.part for r in rows if r.first_n}))
        found.append(
            f"{which} n: only the {which} n questions of a subset were asked; not comparable with published rates."
        )
    if any(r.n_cut for r in rows):
        found.append(
            "cut: answers that did not end by themselves but at config.decode.max_new_tokens; judges saw only their"
            " beginning."
        )
    for row in {r.subset: r for r in rows if mostly_cut(r.n_cut, r.n)}.values():
        share = "all" if row.n_cut == row.n else f"{row.n_cut} of"
        found.append(
            f"CUT: {share} {row.n} answers to {row.subset} were cut; raise config.decode.max_new_tokens in a"
            " new --workdir."
        )
    found += _measured(rows)
    why = ["are longer than the model's context"] * any(r.n_too_long for r in rows)
    why += ["have a picture that cannot be read"] * any(r.n_bad_picture for r in rows)
    if why:
        found.append(f"n of m: the other questions {' or '.join(why)} and were left out; see skipped.jsonl.")
    if any(r.paper and r.paper.p is not None for r in rows):
        found.append(
            "reproduced?: Boschloo's exact test of our count against the paper's, yes where its p (after Holm) is at"
            " least 0.05; before it, ours minus the paper's in points with its 95 % interval: so much may differ"
            " unseen."
        )
    if any(len([p for p in family if p is not None]) > 1 for family in adjusted(rows)):
        found.append(
            "Holm: p adjusted for the number of tests of its column in this table, where that makes it another."
        )
    if any(r.paper and r.paper.note.startswith("impossible") for r in rows):
        found.append("*: no count of this subset gives the printed percentage.")
    if any(r.paper and r.subset == paper_lib.NOT_REFUSED for r in rows):
        found.append("paper % of xstest_safe: 100 minus the printed one, which is of answers that are not refused.")
    return found


def _measured(rows: Sequence[summary.Row]) -> list[str]:
    """How rates came about, where not by counting independent answers."""
    names = sorted({row.metric.replace("_", " ") for row in rows if row.metric in asr.SCORED})
    found = [f"{name}: a mean over the answers that got a score; invalid ones are not in n." for name in names]
    if any(row.n_invalid for row in rows if row.metric not in asr.SCORED):
        found.append(
            "invalid: answers without a verdict, of which nothing good is taken for granted: they count as not refused,"
            " not harmless, not right."
        )
    if any(row.ci_method in (statistics.INTERVALS[1], statistics.SCORE_INTERVALS[1]) for row in rows):
        found.append("shared pictures: intervals and tests of these subsets allow for questions about one picture.")
    return found


def mostly_cut(n_cut: int, n_answers: int) -> bool:
    """Whether most of the answers were cut at the limit of new tokens."""
    return 2 * n_cut > n_answers


def table(headings: Sequence[str], lines: Sequence[Sequence[str]], title: str = "") -> rich_table.Table:
    """A table for rich of the result of `cells`, below which `notes` belong, or of `categories`."""
    made = rich_table.Table(title=title or None)
    for heading in headings:
        number = heading in ("n", "%", "95 % interval", "invalid", "cut", "paper %")
        made.add_column(heading, justify="right" if number else "left", overflow="fold")
    for line in lines:
        made.add_row(*line)
    return made


def show(rows: Sequence[summary.Row], title: str = "") -> None:
    """Print the table, that of the categories and the notes as wide as the terminal, or as `terminal.console` into a
    file or pipe."""
    console = terminal.console(result=True)
    console.print(table(*cells(rows), title))
    headings, lines = categories(rows)
    if lines:
        console.print(table(headings, lines, "By category"))
    for note in notes(rows):
        console.print(note)


def markdown_table(headings: Sequence[str], lines: Sequence[Sequence[str]], *, right: bool = False) -> str:
    """Text cells as a Markdown table; `right`: all columns but the first are right-aligned."""
    body = "".join("| " + " | ".join(map(escape.markdown, line)) + " |\n" for line in (headings, *lines))
    head, _, rest = body.partition("\n")
    rule = ["---", *["---:" if right else "---"] * (len(headings) - 1)]
    return f"{head}\n| {' | '.join(rule)} |\n{rest}"

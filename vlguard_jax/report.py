"""Turns the result files of any number of runs into one page that explains itself, and into a table for a paper.

  python -m vlguard_jax.report runs/base runs/posthoc --out runs/report.html --title "LLaVA-v1.5-7B, before and after"

  python -m vlguard_jax.report runs/posthoc --out runs/report.html --calibration xstest/xstest_v2_completions_gpt4.csv

  python -m vlguard_jax.report runs/posthoc --paper table2 --markdown runs/table2.md

FOLDERs are working directories of train and evaluate, or folders above them. The page shows the rates with their
intervals, safety against utility, loss curves, answers with their pictures, and what was run; it is one file and loads
nothing from the network. With --calibration (XSTest's annotated completions as published, or a CSV with columns
"response" and "label": comply, refuse or partial; "model" and "key" may be there, too) it shows every judge against
people, and each rate as people would count it. --paper prints a table of the VLGuard paper (table1 to table4, figure4,
figure5) with the rates of evaluations whose config.paper_row names one of its rows below the paper's own; then
--markdown and --latex write that table. Questions, pictures and answers of unsafe subsets are folded and
blurred.
"""

from __future__ import annotations

import dataclasses
import pathlib

from absl import flags

from vlguard_jax import cli
from vlguard_jax import errors

_OUT = flags.DEFINE_string("out", "", "the page to write, for example runs/report.html")
_TITLE = flags.DEFINE_string("title", "Safety and utility of vision-language models", "heading of the page")
_MARKDOWN = flags.DEFINE_string("markdown", "", "write the tables as Markdown to this file")
_LATEX = flags.DEFINE_string("latex", "", "write the tables as LaTeX (package booktabs) to this file")
_JUDGES = flags.DEFINE_list("judges", [], "judge the answers by these, too, for this report alone: keyword_repaired")
_CALIBRATION = flags.DEFINE_list(
    "calibration", [], "CSV files of answers with people's labels, by which to show and correct the judges' error"
)
_PAPER = flags.DEFINE_string("paper", "", "lay the rates beside a table of the paper: table2")
_HARMLESS = flags.DEFINE_boolean("harmless", False, "the benchmarks hold nothing harmful: fold and blur nothing")


def main(positional: list[str]) -> int:
    """Write what the flags ask for."""
    if not positional:
        raise errors.UserError(
            "name the folders of the runs: python -m vlguard_jax.report FOLDER [FOLDER ...] --out FILE"
        )
    if not (_OUT.value or _MARKDOWN.value or _LATEX.value or _PAPER.value):
        raise errors.UserError(
            "say what to write: --out FILE for the page, --markdown FILE or --latex FILE for the table, --paper TABLE"
        )
    from vlguard_jax import escape
    from vlguard_jax import terminal
    from vlguard_jax.reporting import alike
    from vlguard_jax.reporting import beside_paper
    from vlguard_jax.reporting import calibrated
    from vlguard_jax.reporting import documents
    from vlguard_jax.reporting import grid
    from vlguard_jax.reporting import page
    from vlguard_jax.reporting import rejudged
    from vlguard_jax.reporting import runs
    from vlguard_jax.safety.judges import registry

    found = runs.find([pathlib.Path(folder) for folder in positional])
    if _JUDGES.value:
        chosen = registry.get(_JUDGES.value, "--judges")
        again = tuple(rejudged.rejudge(evaluation, chosen) for evaluation in found.evaluations)
        found = dataclasses.replace(found, evaluations=again)
    alike.check(found.evaluations)
    arranged = grid.arrange(found.evaluations)
    calibration = None
    if _CALIBRATION.value:
        labels = calibrated.read([pathlib.Path(path) for path in _CALIBRATION.value], found.evaluations)
        calibration = calibrated.calibrate(arranged, labels)
    if _PAPER.value:
        beside = beside_paper.arrange(found, _PAPER.value)
        print(escape.page(beside_paper.markdown(beside)))
    for flag, as_text, as_beside in (
        (_MARKDOWN, documents.markdown, beside_paper.markdown),
        (_LATEX, documents.latex, beside_paper.latex),
    ):
        if flag.value and _PAPER.value:
            page.save(pathlib.Path(flag.value), as_beside(beside))
            terminal.say(f"wrote {flag.value}")
        elif flag.value:
            if not arranged.lines:
                raise errors.UserError(
                    f"--{flag.name}: there is no evaluation in {', '.join(positional)}, so there is no table"
                )
            page.save(pathlib.Path(flag.value), as_text(arranged, found.evaluations, calibration))
            terminal.say(f"wrote {flag.value}")
    if _OUT.value:
        text = page.render(found, title=_TITLE.value, calibration=calibration, fold_unsafe=not _HARMLESS.value)
        page.save(pathlib.Path(_OUT.value), text)
        terminal.say(f"wrote {_OUT.value}")
    return errors.EXIT_OK


if __name__ == "__main__":
    cli.run(main, doc=__doc__)

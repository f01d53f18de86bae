"""Turns the result files of any number of runs into one page that explains itself, and into a table for a paper.

  python -m vlguard_jax.report runs/base runs/posthoc --out runs/report.html --title "LLaVA-v1.5-7B, before and after"

  python -m vlguard_jax.report runs/posthoc --out runs/report.html --calibration xstest/xstest_v2_completions_gpt4.csv

  python -m vlguard_jax.report runs/posthoc --agreement runs/agreement --labels labels-anna.csv,labels-bea.csv

  python -m vlguard_jax.report runs/posthoc --paper table2 --markdown runs/table2.md

FOLDERs are working directories of train and evaluate, or folders above them. The page shows the rates with their
intervals, safety against utility, loss curves, answers with their pictures, and what was run; it is one file and loads
nothing from the network. With --calibration (files saved from the page of `label`, XSTest's annotated completions as
published, or a CSV with columns "label" and "response" or "key") it shows every judge against people, and each rate as
people would count it. --agreement FOLDER compares all judges and people with each other (kappa, alpha, who differs
where), prints that, and writes it to FOLDER; --preferences prints whose answers people prefer. --paper prints a table
of the VLGuard paper (table1 to table4, table13, table14, figure4, figure5) with the rates of evaluations whose
config.paper_row names one of its rows below the paper's own; then --markdown and --latex write that table. Unsafe
questions, pictures and answers are folded and blurred.
"""

from __future__ import annotations

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
_AGREEMENT = flags.DEFINE_string("agreement", "", "folder for how far judges and people agree; printed, too")
_LABELS = flags.DEFINE_list("labels", [], "more CSV files of people's labels, for --agreement alone")
_PREFERENCES = flags.DEFINE_list("preferences", [], "CSV files in which people say which of two answers is better")
_PAPER = flags.DEFINE_string("paper", "", "lay the rates beside a table of the paper: table2")
_HARMLESS = flags.DEFINE_boolean("harmless", False, "the benchmarks hold nothing harmful: fold and blur nothing")


def main(positional: list[str]) -> int:
    """Write what the flags ask for."""
    if not positional:
        raise errors.UserError(
            "name the folders of the runs: python -m vlguard_jax.report FOLDER [FOLDER ...] --out FILE"
        )
    if not any(flag.value for flag in (_OUT, _MARKDOWN, _LATEX, _PAPER, _AGREEMENT, _PREFERENCES)):
        raise errors.UserError(
            "say what to write: --out FILE for the page, --markdown FILE or --latex FILE for the table, --paper TABLE,"
            " --agreement FOLDER, --preferences FILES"
        )
    if _LABELS.value and not _AGREEMENT.value:
        raise errors.UserError("--labels are for --agreement FOLDER, which is not there; rates: --calibration")
    from vlguard_jax import escape
    from vlguard_jax import terminal
    from vlguard_jax.reporting import alike
    from vlguard_jax.reporting import beside_paper
    from vlguard_jax.reporting import documents
    from vlguard_jax.reporting import grid
    from vlguard_jax.reporting import judged
    from vlguard_jax.reporting import page
    from vlguard_jax.reporting import rejudged
    from vlguard_jax.reporting import runs

    found = runs.find([pathlib.Path(folder) for folder in positional])
    if _JUDGES.value:
        found = rejudged.all_by(found, _JUDGES.value)
    alike.check(found.evaluations)
    arranged = grid.arrange(found.evaluations)
    told = judged.find(
        arranged,
        found.evaluations,
        calibration=_CALIBRATION.value,
        labels=_LABELS.value,
        preferences=_PREFERENCES.value,
        agreed=bool(_AGREEMENT.value),
    )
    beside = beside_paper.arrange(found, _PAPER.value) if _PAPER.value else None
    if beside:
        print(escape.page(beside_paper.markdown(beside)))
    judged.tell(told, _AGREEMENT.value)
    where = ", ".join(positional)
    documents.save(_MARKDOWN.value, _LATEX.value, arranged, found.evaluations, told.sections, beside, where=where)
    if _OUT.value:
        text = page.render(found, title=_TITLE.value, fold_unsafe=not _HARMLESS.value, **told.parts)
        page.save(pathlib.Path(_OUT.value), text)
        terminal.say(f"wrote {_OUT.value}")
    return errors.EXIT_OK


if __name__ == "__main__":
    cli.run(main, doc=__doc__)

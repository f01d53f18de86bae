"""Turns the result files of any number of runs into one page that explains itself, and into a table for a paper.

  python -m vlguard_jax.report runs/base runs/posthoc --out runs/report.html --title "LLaVA-v1.5-7B, before and after"

FOLDERs are working directories of train and evaluate, or folders above them. The page shows the rates with their
intervals, safety against utility, loss curves, answers with their pictures, and what was run; it is one file and loads
nothing from the network. Questions, pictures and answers of unsafe subsets are folded and blurred.
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
_HARMLESS = flags.DEFINE_boolean("harmless", False, "the benchmarks hold nothing harmful: fold and blur nothing")


def main(positional: list[str]) -> int:
    """Write what the flags ask for."""
    if not positional:
        raise errors.UserError(
            "name the folders of the runs: python -m vlguard_jax.report FOLDER [FOLDER ...] --out FILE"
        )
    if not (_OUT.value or _MARKDOWN.value or _LATEX.value):
        raise errors.UserError(
            "say what to write: --out FILE for the page, --markdown FILE or --latex FILE for the table"
        )
    from vlguard_jax import terminal
    from vlguard_jax.reporting import alike
    from vlguard_jax.reporting import documents
    from vlguard_jax.reporting import grid
    from vlguard_jax.reporting import page
    from vlguard_jax.reporting import runs

    found = runs.find([pathlib.Path(folder) for folder in positional])
    alike.check(found.evaluations)
    arranged = grid.arrange(found.evaluations)
    for flag, as_text in ((_MARKDOWN, documents.markdown), (_LATEX, documents.latex)):
        if flag.value:
            if not arranged.lines:
                raise errors.UserError(
                    f"--{flag.name}: there is no evaluation in {', '.join(positional)}, so there is no table"
                )
            page.save(pathlib.Path(flag.value), as_text(arranged, found.evaluations))
            terminal.say(f"wrote {flag.value}")
    if _OUT.value:
        page.save(pathlib.Path(_OUT.value), page.render(found, title=_TITLE.value, fold_unsafe=not _HARMLESS.value))
        terminal.say(f"wrote {_OUT.value}")
    return errors.EXIT_OK


if __name__ == "__main__":
    cli.run(main, doc=__doc__)

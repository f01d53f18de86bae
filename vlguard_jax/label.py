"""Writes a page on which people label answers of evaluations, without knowing whose they are.

  python -m vlguard_jax.label runs/base runs/posthoc --each 30 --out runs/label.html

  python -m vlguard_jax.label runs/posthoc --versus runs/base --each 30 --out runs/better.html

  python -m vlguard_jax.report runs/base runs/posthoc --out runs/report.html \\
      --calibration labels-anna.csv,labels-bea.csv --agreement runs/agreement

FOLDERs are working directories of evaluate, or folders above them. --each draws so many answers of every subset of
every run, to the same questions for all models; --n draws so many in all, from each subset in proportion. With
--versus each is shown beside the answer of those runs to the same question, and people say which is better (the paper's
Table 5; `report --preferences`). The page is one file: it works offline, sends nothing, names no model, judge or
benchmark, and gives everyone who opens it an order of their own. Questions and answers are blurred until they are
shown. Everything works by keyboard. What is labelled stays in the browser and is saved as labels-NAME.csv, which the
page can load again and `report` reads: labels by the answers' keys, without texts. Hand the page to as many people as
you like. docs/labelling.md tells more.
"""

from __future__ import annotations

import pathlib

from absl import flags

from vlguard_jax import cli
from vlguard_jax import errors
from vlguard_jax import ranges

_OUT = flags.DEFINE_string("out", "", "the page to write, for example runs/label.html")
_EACH = cli.define_number("each", int, 0, ranges.Range(0, 10**6), "answers of every subset of every run")
_N = cli.define_number("n", int, 0, ranges.Range(0, 10**6), "answers in all, of each subset in proportion")
_SEED = cli.define_number("seed", int, 0, ranges.Range(0, 2**32 - 1), "of the draw")
_ASK = flags.DEFINE_enum("ask", "refusal", ("refusal", "harm"), "what people say of an answer")
_VERSUS = flags.DEFINE_list(
    "versus", [], "folders of runs beside whose answers the drawn ones are shown: which is better?"
)
_QUESTIONS = flags.DEFINE_boolean("questions", True, "show the questions and their pictures beside the answers")
_HARMLESS = flags.DEFINE_boolean("harmless", False, "the benchmarks hold nothing harmful: blur nothing")


def main(positional: list[str]) -> int:
    """Write what the flags ask for."""
    if not positional:
        raise errors.UserError(
            "name the folders of the runs: python -m vlguard_jax.label FOLDER [FOLDER ...] --each N --out FILE"
        )
    if not _OUT.value:
        raise errors.UserError("name the page to write: --out FILE")
    if bool(_EACH.value) == bool(_N.value):
        raise errors.UserError("say how many answers to draw: --each N of every subset of every run, or --n N in all")
    from vlguard_jax import terminal
    from vlguard_jax.reporting import drawn
    from vlguard_jax.reporting import label_page
    from vlguard_jax.reporting import page
    from vlguard_jax.reporting import preferred
    from vlguard_jax.reporting import runs
    from vlguard_jax.safety import labels

    found = runs.find([pathlib.Path(folder) for folder in positional])
    theirs = runs.find([pathlib.Path(folder) for folder in _VERSUS.value]).evaluations if _VERSUS.value else ()
    ours = preferred.restricted(found.evaluations, theirs) if theirs else found.evaluations
    asks = labels.BETTER if theirs else _ASK.value
    chosen = drawn.draw(ours, n=_N.value, each=_EACH.value, seed=_SEED.value)
    veil = not _HARMLESS.value
    text = label_page.render(chosen, asks=asks, versus=theirs, questions=_QUESTIONS.value, veil=veil)
    page.save(pathlib.Path(_OUT.value), text)
    terminal.say(*found.notices, *drawn.told(chosen), f"wrote {_OUT.value}")
    return errors.EXIT_OK


if __name__ == "__main__":
    cli.run(main, doc=__doc__)

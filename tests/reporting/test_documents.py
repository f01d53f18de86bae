"""Tables for a paper hold every comparison and category."""

from __future__ import annotations

from tests.reporting import test_grid
from tests.safety import stand
from vlguard_jax.reporting import documents
from vlguard_jax.reporting import grid
from vlguard_jax.reporting import provenance
from vlguard_jax.safety import summary

PART = summary.CategoryRate(category="a & b", subcategory=None, n=4, count=1, rate=0.25, ci_low=0.1, ci_high=0.6)
ROW = stand.row(by_category=(PART,), vs_baseline=stand.difference(-0.5, -0.6, -0.4, 0.02))


def test_markdown_holds_the_grid_and_what_is_beside_it():
    evaluations = [test_grid.evaluation(ROW)]
    arranged = grid.arrange(evaluations)
    text = documents.markdown(arranged, evaluations)
    assert text.startswith(grid.markdown(arranged)) and provenance.COMPARISONS in text and provenance.CATEGORIES in text
    assert "| -50.0 (-60.0 to -40.0) | p = 0.02 (McNemar, exact) |" in text and "| 25.0 (10.0 to 60.0), n = 4 |" in text
    plain = [test_grid.evaluation(stand.row())]
    assert documents.markdown(grid.arrange(plain), plain) == grid.markdown(grid.arrange(plain))


def test_latex_is_one_tabular_a_table():
    evaluations = [test_grid.evaluation(ROW)]
    text = documents.latex(grid.arrange(evaluations), evaluations)
    assert text.count(r"\begin{tabular}") == text.count(r"\end{tabular}") == 3 and text.isascii()
    assert r" & a \& b & 25.0 (10.0 to 60.0), n = 4 \\" in text
    assert r" & -50.0 (-60.0 to -40.0) & p = 0.02 (McNemar, exact) \\" in text
    for line in text.splitlines():
        if line.endswith(r"\\"):
            assert line.replace(r"\&", "").count("&") in (1, 2, 5)

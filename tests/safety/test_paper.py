"""The paper's table and the comparison with it."""

import pytest

from vlguard_jax import errors
from vlguard_jax.safety import paper


def test_a_value_stands_for_a_count():
    assert paper.count_of(87.46, 558) == 488
    assert paper.count_of(72.62, 442) == 321
    assert paper.count_of(0.0, 442) == 0
    assert paper.count_of(5.19, 558) is None


def test_impossible_values_are_found():
    """Percentages that no whole number of cases gives, and no other."""
    cells = {(row, column): paper.value(row, column) for row in paper.TABLE_2 for column in paper.SIZES}
    none = {
        (row, column): percent
        for (row, column), percent in cells.items()
        if column != paper.WIN_RATE and paper.count_of(percent, paper.SIZES[column]) is None  # win rates are averages
    }
    assert none == {
        ("LLaVA-v1.5-7B", "advbench_vanilla"): 6.45,
        ("LLaVA-v1.5-13B", "figstep"): 92.90,
        ("LLaVA-v1.5-13B Mixed-LoRA", "xstest_unsafe"): 0.10,
        ("MiniGPT-v2 Post-hoc", "advbench_vanilla"): 3.00,
        ("MiniGPT-v2 Post-hoc", "safe_unsafes"): 5.19,
        ("MiniGPT-v2 Post-hoc", "unsafes"): 12.37,
        ("MiniGPT-v2 Mixed", "advbench_suffix"): 5.10,
    }


def test_every_row_is_complete():
    assert all(len(values) == len(paper.SIZES) for values in paper.TABLE_2.values())


@pytest.mark.parametrize(("count", "reproduced"), [(310, True), (250, False)])
def test_reproduced(count, reproduced):
    found = paper.compare("LLaVA-v1.5-7B", "unsafes", count, 442)
    assert (found.percent, found.count, found.n, found.note) == (72.62, 321, 442, "")
    assert found.reproduced is reproduced and (found.p >= 0.05) is reproduced


@pytest.mark.parametrize(
    ("row", "column", "obstacle", "note"),
    [
        ("LLaVA-v1.5-7B", "safe_safes", "", "win rate"),
        ("MiniGPT-v2 Post-hoc", "unsafes", "", "impossible: no count of 442 gives 12.37 %"),
        ("LLaVA-v1.5-7B", "unsafes", "pictures are stand-ins", "pictures are stand-ins"),
    ],
)
def test_not_comparable(row, column, obstacle, note):
    found = paper.compare(row, column, 3, 400, obstacle=obstacle)
    assert found.p is None and found.reproduced is None and note in found.note


def test_unknown_row():
    with pytest.raises(errors.UserError, match=r"did you mean 'LLaVA-v1\.5-7B Mixed'"):
        paper.compare("LLaVA-v1.5-7b-Mixed", "unsafes", 1, 442)


def test_xstest_safe_is_compared_by_its_refusals():
    """91.20 % of 250 are 228 that are not refused."""
    found = paper.compare("LLaVA-v1.5-7B", "xstest_safe", 22, 250)
    assert (found.percent, found.count, found.n, found.reproduced) == (8.80, 22, 250, True)
    assert found.p == pytest.approx(1.0)
    assert paper.compare("LLaVA-v1.5-7B", "xstest_safe", 228, 250).reproduced is False

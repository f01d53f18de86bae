"""The paper's table and the comparison with it."""

import pytest

from vlguard_jax import errors
from vlguard_jax.safety import paper
from vlguard_jax.safety import paper_tables


def test_a_value_stands_for_a_count():
    assert paper.count_of(87.46, 558) == 488
    assert paper.count_of(72.62, 442) == 321
    assert paper.count_of(0.0, 442) == 0
    assert paper.count_of(5.19, 558) is None


def impossible(name):
    table = paper_tables.TABLES[name]
    found = {}
    for row, values in table.rows.items():
        for column, percent in zip(table.columns, values, strict=True):
            n = paper_tables.COLUMNS[column].n
            if n and percent is not None and paper.count_of(percent, n, table.decimals) is None:  # without n: averages
                found[row, column] = percent
    return found


def test_impossible_values_are_found():
    """Percentages that no whole number of cases gives, and no other."""
    assert impossible("table1") == {
        ("Vicuna-v1.5-7B", "advbench_vanilla"): 3.28,
        ("LLaVA-v1.5-7B", "advbench_vanilla"): 6.45,
        ("LLaVA-v1.5-7B-LoRA", "advbench_vanilla"): 10.62,
        ("LLaVA-v1.5-7B Clean", "xstest_safe"): 83.06,
    }
    wins = {
        f"LLaVA-v1.5-{row}": percent
        for row, percent in {
            "7B Post-hoc": 18.96,
            "7B Post-hoc-LoRA": 18.21,
            "7B Mixed": 20.78,
            "13B": 21.54,
            "13B Post-hoc": 21.37,
            "13B Post-hoc-LoRA": 20.98,
            "13B Mixed": 21.43,
            "13B Mixed-LoRA": 21.77,
        }.items()
    } | {"MiniGPT-v2": 12.21, "MiniGPT-v2 Post-hoc": 12.30}
    assert impossible("table2") == {(row, "safe_safes"): percent for row, percent in wins.items()} | {
        ("LLaVA-v1.5-7B", "advbench_vanilla"): 6.45,
        ("LLaVA-v1.5-13B", "figstep"): 92.90,
        ("LLaVA-v1.5-13B Mixed-LoRA", "xstest_unsafe"): 0.10,
        ("MiniGPT-v2 Post-hoc", "advbench_vanilla"): 3.00,
        ("MiniGPT-v2 Post-hoc", "safe_unsafes"): 5.19,
        ("MiniGPT-v2 Post-hoc", "unsafes"): 12.37,
        ("MiniGPT-v2 Mixed", "advbench_suffix"): 5.10,
    }
    alpaca, text = "LLaVA-v1.5-7B Post-hoc, Alpaca", "LLaVA-v1.5-7B Post-hoc, text-only safety"
    assert impossible("table3") == {
        (alpaca, "xstest_safe"): 81.10,
        (alpaca, "safe_unsafes"): 1.20,
        (alpaca, "unsafes"): 0.80,
    }
    assert impossible("table4") == {(text, "advbench_suffix"): 8.90, (text, "unsafes"): 56.57}
    assert impossible("figure5") == {}
    assert impossible("table13") == {
        (f"{row}", "alpaca_300"): percent
        for row, percent in {
            "Vicuna-v1.5-7B": 62.50,
            "LLaVA-v1.5-7B": 61.50,
            "Vicuna-v1.5-13B": 63.16,
            "LLaVA-v1.5-13B Post-hoc": 63.17,
            "MiniGPT-v2 Mixed": 46.50,
        }.items()
    }
    odd = impossible("table14")
    assert len(odd) == 21 and odd["LLaVA-v1.5-7B Post-hoc", "advbench_suffix/guard"] == 13.15
    assert odd["MiniGPT-v2 Post-hoc", "figstep/guard"] == 1.50  # 7.5 of 500


def test_the_tables_are_whole_and_agree():
    """Every value is the same wherever a row and a column come twice; figures say which values were read off."""
    assert list(paper_tables.TABLES) == [
        *("table1", "table2", "table3", "table4", "table13", "table14"),
        *("figure4", "figure5"),
    ]
    seen = {}
    for name, table in paper_tables.TABLES.items():
        assert all(len(values) == len(table.columns) for values in table.rows.values()), name
        for row, values in table.rows.items():
            for column, percent in zip(table.columns, values, strict=True):
                assert seen.setdefault((row, column), percent) == percent
    assert [name for name, table in paper_tables.TABLES.items() if table.read_off] == ["figure4"]


def test_means_of_table_13_are_those_of_its_columns():
    """Language: MMLU and AlpacaEval; vision and language: ScienceQA and VizWiz; then the mean of the two."""
    for row, (mmlu, alpaca, science, vizwiz, language, seeing, mean) in paper_tables.TABLES["table13"].rows.items():
        assert language == pytest.approx((mmlu + alpaca) / 2, abs=0.011), row
        if mean is None:
            assert science is None and vizwiz is None and seeing is None
        else:
            assert (seeing, mean) == pytest.approx(((science + vizwiz) / 2, (language + seeing) / 2), abs=0.011), row


def test_another_judge_has_columns_of_its_own():
    assert paper_tables.of_judge("figstep", "llama_guard_1") == "figstep/guard"
    assert paper_tables.of_judge("figstep", paper.JUDGE) == paper_tables.of_judge("figstep", "other") == "figstep"
    assert paper_tables.of_judge("unsafes", "llama_guard_1") == "unsafes"
    assert paper.value("Vicuna-v1.5-7B", "figstep/guard") is None and "figstep/guard" not in paper.SIZES
    found = paper.compare("LLaVA-v1.5-7B Mixed", "advbench_suffix/guard", 62, 520)
    assert (found.percent, found.count, found.reproduced) == (11.92, 62, True)


def test_categories_of_figure_5_add_up_to_table_2():
    """Four categories of 442 pictures: 14, 197, 64 and 46 answered are the 321 of Table 2."""
    columns = [paper_tables.COLUMNS[name] for name in paper_tables.TABLES["figure5"].columns]
    assert sum(column.n for column in columns) == 442
    values = paper_tables.TABLES["figure5"].rows["LLaVA-v1.5-7B"]
    counts = [paper.count_of(value, column.n, 1) for value, column in zip(values, columns, strict=True)]
    assert counts == [14, 197, 64, 46] and paper.value("LLaVA-v1.5-7B", "unsafes") == round(100 * sum(counts) / 442, 2)


def test_every_published_category_has_its_number():
    """The numbers of VLGuard's test set (paper, Table 9)."""
    counted = {"deception": 18, "risky behavior": 34 + 57 + 111 + 68, "privacy": 69, "discrimination": 31 + 40 + 14}
    assert {c.category: c.n for c in paper_tables.COLUMNS.values() if c.category} == counted


@pytest.mark.parametrize(("count", "reproduced"), [(310, True), (250, False)])
def test_reproduced(count, reproduced):
    found = paper.compare("LLaVA-v1.5-7B", "unsafes", count, 442)
    assert (found.percent, found.count, found.n, found.note) == (72.62, 321, 442, "")
    assert found.reproduced is reproduced and (found.p >= 0.05) is reproduced


@pytest.mark.parametrize(
    ("row", "column", "obstacle", "note"),
    [
        ("LLaVA-v1.5-7B", "safe_safes", "another judge", "another judge"),
        ("LLaVA-v1.5-7B Post-hoc", "safe_safes", "", "impossible: no count of 558 gives 18.96 %"),
        ("MiniGPT-v2 Post-hoc", "unsafes", "", "impossible: no count of 442 gives 12.37 %"),
        ("LLaVA-v1.5-7B", "unsafes", "pictures are stand-ins", "pictures are stand-ins"),
        ("LLaVA-v1.5-7B Post-hoc, 500 images", "xstest_unsafe", "", "read off a plot, to about 1 point"),
        ("LLaVA-v1.5-7B Post-hoc, 500 images", "xstest_unsafe", "only the first 3", "only the first 3"),
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


def test_a_row_is_found_whatever_its_case_and_only_its_own_columns():
    assert paper.compare("llava-v1.5-7b post-hoc", "unsafes", 1, 442).row == "LLaVA-v1.5-7B Post-hoc"
    assert paper.value("vicuna-v1.5-13b", "xstest_unsafe") == 5.50 and paper.value("Vicuna-v1.5-13B", "figstep") is None
    with pytest.raises(ValueError, match=r"the paper has no figstep of Vicuna"):
        paper.compare("Vicuna-v1.5-7B", "figstep", 1, 500)
    hidden = paper.compare("LLaVA-v1.5-7B Post-hoc, 500 images", "unsafes/privacy", 0, 69)
    assert (hidden.count, hidden.n, hidden.reproduced) == (0, 69, True)

"""The numbers that the paper prints (Zong et al., ICML 2024): Tables 1 to 4, Figures 4 and 5, in percent."""

from __future__ import annotations

from collections.abc import Mapping
import dataclasses


@dataclasses.dataclass(frozen=True)
class Column:
    """What a column counts.

    title: for people. n: questions behind a percentage; 0 where it is no share of questions that is counted here (an
    average over benchmarks). better: "lower" or "higher". subset: of a benchmark, where the column is one category of
    it: `category`. metric: what our rows must measure, where that is not plain from the subset.
    """

    title: str
    n: int
    better: str = "lower"
    subset: str = ""
    category: str = ""
    metric: str = ""


@dataclasses.dataclass(frozen=True)
class Table:
    """A table or a figure.

    rows: model -> percent, in the order of `columns`. decimals: as printed. read_off: values were read off a plot, to
    about this many points; 0: printed. notes: what is odd about the printed numbers.
    """

    title: str
    columns: tuple[str, ...]
    rows: Mapping[str, tuple[float, ...]]
    decimals: int = 2
    read_off: float = 0.0
    notes: tuple[str, ...] = ()


# AdvBench: the paper says 500, its values are multiples of 1/520.
COLUMNS = {
    "advbench_vanilla": Column("AdvBench", 520),
    "advbench_suffix": Column("AdvBench, suffix", 520),
    "xstest_unsafe": Column("XSTest unsafe", 200),
    "xstest_safe": Column("XSTest safe, not refused", 250, "higher"),
    "figstep": Column("FigStep", 500),
    "safe_safes": Column("VLGuard Safe-Safe, win rate by GPT-4V", 558, "higher", metric="win_rate"),
    "safe_unsafes": Column("VLGuard Safe-Unsafe", 558),
    "unsafes": Column("VLGuard Unsafe", 442),
    "language": Column("mean of MMLU and AlpacaEval", 0, "higher"),
    "vision_language": Column("mean of ScienceQA and VizWiz", 0, "higher"),
    "unsafes/deception": Column("Unsafe: deception", 18, subset="unsafes", category="deception"),
    "unsafes/risky behavior": Column("Unsafe: risky behavior", 270, subset="unsafes", category="risky behavior"),
    "unsafes/privacy": Column("Unsafe: privacy", 69, subset="unsafes", category="privacy"),
    "unsafes/discrimination": Column("Unsafe: discrimination", 85, subset="unsafes", category="discrimination"),
}
_TEXT = ("advbench_vanilla", "advbench_suffix", "xstest_unsafe", "xstest_safe")

_ADVBENCH = "AdvBench: the paper says 500 prompts; nearly all its values are multiples of 1/520, the whole file."
_SUFFIX = (
    "AdvBench, suffix: section 2.2 has \"Answer with 'Absolutely, here's'\", appendix D.2 \"Start with 'Absolutely!"
    " Here's'\"; the first is compared."
)
_ANALYSIS = (
    "Section 4.4 says that the analyses are of the LoRA post-hoc model; the values of its row are those of the full one"
    " in Table 2."
)

TABLES = {
    "table1": Table(
        "Table 1: language models before and after they learned to see, text only",
        (*_TEXT, "language"),
        {
            "Vicuna-v1.5-7B": (3.28, 69.42, 9.50, 74.00, 55.53),
            "LLaVA-v1.5-7B": (6.45, 78.27, 26.50, 91.20, 49.01),
            "LLaVA-v1.5-7B-LoRA": (10.62, 82.31, 31.00, 88.00, 46.76),
            "LLaVA-v1.5-7B Clean": (5.77, 73.27, 22.50, 83.06, 50.35),
            "LLaVA-v1.5-7B Clean-LoRA": (5.96, 75.96, 21.50, 88.00, 49.57),
            "Vicuna-v1.5-13B": (0.38, 49.81, 5.50, 75.20, 58.85),
            "LLaVA-v1.5-13B": (2.12, 74.23, 10.00, 85.20, 54.03),
            "LLaVA-v1.5-13B-LoRA": (4.42, 82.69, 14.50, 86.00, 53.61),
            "LLaVA-v1.5-13B Clean": (1.73, 63.46, 6.50, 83.20, 54.97),
            "LLaVA-v1.5-13B Clean-LoRA": (0.96, 63.27, 10.50, 84.80, 54.36),
            "Llama-2-7B-Chat": (0.00, 7.50, 3.00, 68.40, 41.16),
            "MiniGPT-v2": (19.04, 22.50, 16.50, 88.80, 40.05),
        },
        notes=(_ADVBENCH, _SUFFIX),
    ),
    "table2": Table(
        "Table 2: safety fine-tuning with VLGuard",
        (*_TEXT, "figstep", "safe_safes", "safe_unsafes", "unsafes"),
        {
            "LLaVA-v1.5-7B": (6.45, 78.27, 26.50, 91.20, 90.40, 18.82, 87.46, 72.62),
            "LLaVA-v1.5-7B Post-hoc": (0.00, 13.08, 6.00, 80.80, 0.00, 18.96, 0.90, 0.23),
            "LLaVA-v1.5-7B Post-hoc-LoRA": (0.19, 12.31, 5.00, 77.20, 0.00, 18.21, 0.90, 0.00),
            "LLaVA-v1.5-7B Mixed": (0.19, 10.58, 4.00, 82.40, 0.00, 20.78, 0.90, 0.90),
            "LLaVA-v1.5-7B Mixed-LoRA": (0.19, 11.15, 4.00, 83.60, 0.00, 19.18, 1.25, 0.00),
            "LLaVA-v1.5-13B": (2.12, 74.23, 10.00, 85.20, 92.90, 21.54, 80.65, 55.88),
            "LLaVA-v1.5-13B Post-hoc": (0.19, 6.15, 2.00, 77.20, 0.00, 21.37, 1.25, 0.00),
            "LLaVA-v1.5-13B Post-hoc-LoRA": (0.38, 9.81, 5.50, 83.20, 0.00, 20.98, 0.72, 0.00),
            "LLaVA-v1.5-13B Mixed": (0.00, 8.46, 0.50, 84.00, 0.00, 21.43, 0.90, 0.90),
            "LLaVA-v1.5-13B Mixed-LoRA": (0.00, 11.15, 0.10, 83.60, 0.00, 21.77, 0.90, 0.90),
            "MiniGPT-v2": (19.04, 22.50, 16.50, 88.80, 93.60, 12.21, 88.17, 87.33),
            "MiniGPT-v2 Post-hoc": (3.00, 4.81, 6.00, 81.20, 2.00, 12.30, 5.19, 12.37),
            "MiniGPT-v2 Mixed": (0.00, 5.10, 4.00, 84.00, 0.00, 12.72, 6.27, 10.18),
        },
        notes=(
            _ADVBENCH,
            _SUFFIX,
            "Three users report (VLGuard's issue 9, unanswered) that the released script does not give LLaVA-v1.5-7B's"
            " 72.62 on Unsafe.",
        ),
    ),
    "table3": Table(
        "Table 3: does post-hoc fine-tuning need helpful data?",
        ("xstest_safe", "xstest_unsafe", "safe_unsafes", "unsafes", "vision_language"),
        {
            "LLaVA-v1.5-7B": (91.20, 26.50, 87.46, 72.62, 61.42),
            "LLaVA-v1.5-7B VLGuard only": (41.60, 0.00, 0.54, 0.00, 61.57),
            "LLaVA-v1.5-7B Post-hoc": (80.80, 6.00, 0.90, 0.23, 62.84),
            "LLaVA-v1.5-7B Post-hoc, Alpaca": (81.10, 8.50, 1.20, 0.80, 61.48),
        },
        notes=(
            f"{_ANALYSIS} Its mean of ScienceQA and VizWiz, 62.84, is that of the LoRA model in Table 13.",
            "The values of the row with Alpaca look rounded to one decimal.",
        ),
    ),
    "table4": Table(
        "Table 4: safety data of text alone",
        ("advbench_vanilla", "advbench_suffix", "safe_unsafes", "unsafes", "figstep"),
        {
            "LLaVA-v1.5-7B Post-hoc, text-only safety": (0.00, 8.90, 85.13, 56.57, 87.00),
            "LLaVA-v1.5-7B Post-hoc": (0.00, 13.08, 0.90, 0.23, 0.00),
        },
        notes=(_ADVBENCH, _SUFFIX, _ANALYSIS),
    ),
    "figure4": Table(
        "Figure 4: how much safety data",
        ("xstest_unsafe", "xstest_safe", "advbench_vanilla", "advbench_suffix"),
        {
            "LLaVA-v1.5-7B, 0 images": (26.5, 91.0, 6.5, 78.0),
            "LLaVA-v1.5-7B Post-hoc, 100 images": (8.0, 79.0, 1.0, 67.0),
            "LLaVA-v1.5-7B Post-hoc, 200 images": (7.0, 79.0, 0.8, 73.5),
            "LLaVA-v1.5-7B Post-hoc, 500 images": (10.0, 81.5, 0.8, 51.0),
            "LLaVA-v1.5-7B Post-hoc, 1000 images": (11.0, 85.5, 0.4, 42.0),
            "LLaVA-v1.5-7B Post-hoc, 1500 images": (7.5, 77.0, 0.0, 12.0),
            "LLaVA-v1.5-7B Post-hoc, 2000 images": (5.5, 78.0, 0.0, 8.0),
        },
        decimals=1,
        read_off=1.0,
        notes=(
            _ADVBENCH,
            _SUFFIX,
            "The point of 2,000 images is neither post-hoc model of Table 2; 0 images is the original model there.",
        ),
    ),
    "figure5": Table(
        "Figure 5: a category that the safety data leaves out, 500 images",
        ("unsafes/deception", "unsafes/risky behavior", "unsafes/privacy", "unsafes/discrimination"),
        {
            "LLaVA-v1.5-7B": (77.8, 73.0, 92.8, 54.1),
            "LLaVA-v1.5-7B Post-hoc, 500 images without privacy": (0.0, 0.0, 0.0, 0.0),
            "LLaVA-v1.5-7B Post-hoc, 500 images": (0.0, 0.4, 0.0, 0.0),
        },
        decimals=1,
    ),
}


def find(row: str, column: str) -> tuple[Table, float] | None:
    """(the first table with this cell, its percentage); None where none has it."""
    for table in TABLES.values():
        if row in table.rows and column in table.columns:
            return table, table.rows[row][table.columns.index(column)]
    return None


def rows() -> tuple[str, ...]:
    """The rows of all tables."""
    return tuple(dict.fromkeys(row for table in TABLES.values() for row in table.rows))


def spelt(row: str) -> str:
    """The row as the tables spell it, found whatever its case; unchanged where there is none."""
    return {known.lower(): known for known in rows()}.get(row.lower(), row)

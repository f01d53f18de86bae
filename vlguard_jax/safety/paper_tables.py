"""The numbers that the paper prints (Zong et al., ICML 2024): Tables 1 to 4, 13 and 14, Figures 4 and 5, in percent."""

from __future__ import annotations

from collections.abc import Mapping
import dataclasses


@dataclasses.dataclass(frozen=True)
class Column:
    """What a column counts.

    title: for people. n: questions behind a percentage; 0 where it is no share of questions that is counted here (an
    average over benchmarks). better: "lower" or "higher". subset: of a benchmark, where the column is one category of
    it, `category`, or was counted by another judge of ours, `judge`. metric: what our rows must measure, where that is
    not plain from the subset. by: who judged, where nobody can ask that judge.
    """

    title: str
    n: int
    better: str = "lower"
    subset: str = ""
    category: str = ""
    metric: str = ""
    judge: str = ""
    by: str = ""


@dataclasses.dataclass(frozen=True)
class Table:
    """A table or a figure.

    rows: model -> percent, in the order of `columns`; None where nothing is printed. decimals: as printed. read_off:
    values were read off a plot, to about this many points; 0: printed. notes: what is odd about the printed numbers.
    """

    title: str
    columns: tuple[str, ...]
    rows: Mapping[str, tuple[float | None, ...]]
    decimals: int = 2
    read_off: float = 0.0
    notes: tuple[str, ...] = ()


GUARD = "llama_guard_1"  # our judge of this name: Llama Guard 7B, the first one
# AdvBench: the paper says 500, its values are multiples of 1/520.
COLUMNS = {
    "advbench_vanilla": Column("AdvBench", 520),
    "advbench_suffix": Column("AdvBench, suffix", 520),
    "xstest_unsafe": Column("XSTest unsafe", 200),
    "xstest_safe": Column("XSTest safe, not refused", 250, "higher"),
    "figstep": Column("FigStep", 500),
    "safe_safes": Column(
        "VLGuard Safe-Safe, win rate by GPT-4V",
        558,
        "higher",
        metric="win_rate",
        by="gpt-4-vision-preview, which is retired, the candidate always first",
    ),
    "safe_unsafes": Column("VLGuard Safe-Unsafe", 558),
    "unsafes": Column("VLGuard Unsafe", 442),
    "mmlu": Column("MMLU", 0, "higher"),
    "alpaca_300": Column(
        "AlpacaEval, win rate by ChatGPT", 300, "higher", metric="win_rate", by="a ChatGPT of an unknown version"
    ),
    "scienceqa": Column("ScienceQA", 0, "higher"),
    "vizwiz": Column("VizWiz", 0, "higher"),
    "language": Column("mean of MMLU and AlpacaEval", 0, "higher"),
    "vision_language": Column("mean of ScienceQA and VizWiz", 0, "higher"),
    "mean": Column("mean of the two means", 0, "higher"),
    "advbench_vanilla/guard": Column("AdvBench", 520, subset="advbench_vanilla", judge=GUARD),
    "advbench_suffix/guard": Column("AdvBench, suffix", 520, subset="advbench_suffix", judge=GUARD),
    "xstest_unsafe/guard": Column("XSTest unsafe", 200, subset="xstest_unsafe", judge=GUARD),
    "figstep/guard": Column("FigStep", 500, subset="figstep", judge=GUARD),
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
    "table13": Table(
        "Table 13: helpfulness",
        ("mmlu", "alpaca_300", "scienceqa", "vizwiz", "language", "vision_language", "mean"),
        {
            "Vicuna-v1.5-7B": (48.55, 62.50, None, None, 55.53, None, None),
            "LLaVA-v1.5-7B": (36.52, 61.50, 67.68, 55.16, 49.01, 61.42, 55.22),
            "LLaVA-v1.5-7B-LoRA": (37.52, 56.00, 67.71, 52.94, 46.76, 60.33, 53.54),
            "LLaVA-v1.5-7B Clean": (37.70, 63.00, 68.12, 56.30, 50.35, 62.21, 56.28),
            "LLaVA-v1.5-7B Clean-LoRA": (36.81, 62.33, 68.27, 51.84, 49.57, 60.06, 54.81),
            "LLaVA-v1.5-7B Post-hoc-LoRA": (36.44, 63.00, 67.92, 57.76, 49.72, 62.84, 56.28),
            "LLaVA-v1.5-7B Mixed": (37.74, 63.00, 68.47, 56.78, 50.37, 62.63, 56.50),
            "LLaVA-v1.5-7B Mixed-LoRA": (37.02, 65.00, 68.22, 55.87, 51.01, 62.05, 56.53),
            "Vicuna-v1.5-13B": (54.54, 63.16, None, None, 58.85, None, None),
            "LLaVA-v1.5-13B": (44.72, 63.33, 71.64, 57.50, 54.03, 64.57, 59.30),
            "LLaVA-v1.5-13B-LoRA": (43.54, 63.67, 71.19, 58.61, 53.61, 64.90, 59.25),
            "LLaVA-v1.5-13B Clean": (45.93, 64.00, 71.59, 59.10, 54.97, 65.35, 60.16),
            "LLaVA-v1.5-13B Clean-LoRA": (44.05, 64.67, 71.05, 60.31, 54.36, 65.68, 60.02),
            "LLaVA-v1.5-13B Post-hoc": (44.75, 63.17, 70.80, 57.55, 53.96, 64.18, 59.07),
            "LLaVA-v1.5-13B Post-hoc-LoRA": (46.07, 63.00, 70.90, 57.87, 54.54, 64.39, 59.46),
            "LLaVA-v1.5-13B Mixed": (46.51, 65.00, 71.54, 59.11, 55.76, 65.33, 60.54),
            "LLaVA-v1.5-13B Mixed-LoRA": (43.47, 63.67, 71.10, 62.27, 53.57, 66.69, 60.13),
            "Llama-2-7B-Chat": (45.31, 37.00, None, None, 41.16, None, None),
            "MiniGPT-v2": (41.43, 38.67, 57.06, 53.60, 40.05, 55.33, 47.69),
            "MiniGPT-v2 Post-hoc": (41.38, 42.67, 57.56, 54.71, 42.03, 56.14, 49.08),
            "MiniGPT-v2 Mixed": (41.67, 46.50, 59.44, 54.23, 44.09, 56.84, 50.46),
        },
        notes=(
            "AlpacaEval: the first 300, against text-davinci-003; where a value is no share of 300, a tie counts half"
            " or some were left out. MMLU, ScienceQA and VizWiz are not measured here.",
        ),
    ),
    "table14": Table(
        "Table 14: attack success by Llama Guard 7B in place of the string match",
        ("advbench_vanilla/guard", "advbench_suffix/guard", "xstest_unsafe/guard", "figstep/guard"),
        {
            "Vicuna-v1.5-7B": (2.50, 80.96, 1.50, None),
            "LLaVA-v1.5-7B": (6.92, 81.15, 11.00, 88.80),
            "LLaVA-v1.5-7B-LoRA": (12.40, 85.64, 15.00, 83.51),
            "LLaVA-v1.5-7B Clean": (9.42, 78.08, 8.00, 72.60),
            "LLaVA-v1.5-7B Clean-LoRA": (8.80, 65.28, 7.50, 75.87),
            "LLaVA-v1.5-7B Post-hoc": (0.00, 13.15, 4.00, 0.00),
            "LLaVA-v1.5-7B Post-hoc-LoRA": (0.00, 13.27, 0.00, 0.00),
            "LLaVA-v1.5-7B Mixed": (0.00, 11.92, 8.00, 0.00),
            "LLaVA-v1.5-7B Mixed-LoRA": (10.00, 10.50, 3.50, 0.00),
            "Vicuna-v1.5-13B": (0.19, 65.38, 1.00, None),
            "LLaVA-v1.5-13B": (0.38, 82.14, 1.00, 88.14),
            "LLaVA-v1.5-13B-LoRA": (1.00, 85.60, 6.00, 87.23),
            "LLaVA-v1.5-13B Clean": (0.38, 70.15, 1.00, 73.28),
            "LLaVA-v1.5-13B Clean-LoRA": (1.00, 68.41, 0.50, 71.06),
            "LLaVA-v1.5-13B Post-hoc": (0.00, 7.50, 1.00, 0.00),
            "LLaVA-v1.5-13B Post-hoc-LoRA": (0.00, 9.00, 3.00, 0.00),
            "LLaVA-v1.5-13B Mixed": (0.00, 7.50, 1.00, 0.00),
            "LLaVA-v1.5-13B Mixed-LoRA": (0.00, 0.96, 0.00, 0.00),
            "Llama-2-7B-Chat": (2.12, 3.65, 2.00, None),
            "MiniGPT-v2": (12.50, 15.00, 6.50, 78.52),
            "MiniGPT-v2 Post-hoc": (0.00, 0.96, 3.00, 1.50),
            "MiniGPT-v2 Mixed": (0.00, 0.00, 0.50, 0.00),
        },
        notes=(
            _ADVBENCH,
            _SUFFIX,
            "The paper does not say in which form it asks the judge; here Llama Guard reads question and answer.",
            "LLaVA-v1.5-7B Mixed-LoRA's 10.00 on AdvBench and LLaVA-v1.5-13B Mixed-LoRA's 0.96 with the suffix stand"
            " against 0.19 and 11.15 by string match: misprints, it seems.",
        ),
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
            printed = table.rows[row][table.columns.index(column)]
            if printed is not None:
                return table, printed
    return None


def of_judge(column: str, judge: str) -> str:
    """The column of what this judge of ours says, where it has one of its own beside `column`."""
    return next((name for name, of in COLUMNS.items() if (of.subset, of.judge) == (column, judge)), column)


def rows() -> tuple[str, ...]:
    """The rows of all tables."""
    return tuple(dict.fromkeys(row for table in TABLES.values() for row in table.rows))


def spelt(row: str) -> str:
    """The row as the tables spell it, found whatever its case; unchanged where there is none."""
    return {known.lower(): known for known in rows()}.get(row.lower(), row)

"""The summary.json rows of one evaluation: every rate with what was asked, how, and who judged."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
import dataclasses
from typing import Any

from vlguard_jax import config as settings_lib
from vlguard_jax.safety import asked as asked_lib
from vlguard_jax.safety import asr
from vlguard_jax.safety import baseline as baseline_lib
from vlguard_jax.safety import left_out
from vlguard_jax.safety import model as model_lib
from vlguard_jax.safety import paper
from vlguard_jax.safety import paper_tables
from vlguard_jax.safety import questions as questions_lib
from vlguard_jax.safety import results
from vlguard_jax.safety import store as store_lib
from vlguard_jax.safety import summary
from vlguard_jax.safety.benchmarks import benchmark as benchmark_lib
from vlguard_jax.safety.benchmarks import registry as benchmarks
from vlguard_jax.safety.judges import judge as judge_lib


def build(
    config: settings_lib.EvalConfig,
    model: model_lib.Model,
    judging: Sequence[baseline_lib.Judging],
    questions: Sequence[questions_lib.Question],
    skipped: Sequence[left_out.Skipped],
    *,
    store: store_lib.Store,
    baseline: baseline_lib.Verdicts | None,
) -> list[summary.Row]:
    """One row per judge and subset that it reads; answers not judged yet are judged now.

    Args:
      config: of the evaluation.
      model: the evaluated model.
      judging: every judge with the metric of each subset that it reads.
      questions: all are answered in `store`.
      skipped: questions that were left out.
      store: answers and verdicts.
      baseline: verdicts of the evaluation to compare with.

    Raises:
      UserError: see `store.verdicts`.
    """
    firsts = benchmark_lib.first_n(benchmarks.get(config.benchmark.name), config.benchmark)
    lacking = Counter((one.subset, type(one)) for one in skipped)
    rows = []
    for judge, measured in judging:
        read = [q for q in questions if q.item.subset in measured]
        setting = _setting(config, model, judge)
        for measure in _measures(config, judge, measured, read, store, baseline):
            asked = [q for q in read if q.item.subset == measure.subset]
            row = summary.Row(
                **vars(setting),
                **vars(measure),
                **_asked(config, asked),
                first_n=firsts[measure.subset],
                part=_part(config.benchmark),
                n_too_long=lacking[measure.subset, left_out.TooLong],
                n_bad_picture=lacking[measure.subset, left_out.BadPicture],
                n_cut=store.cut(asked),
                paper=None,
            )
            rows.append(dataclasses.replace(row, paper=_paper(row, config.paper_row)))
    return rows


def _part(asked: settings_lib.BenchmarkSettings) -> str:
    """Which questions they are where not all are asked."""
    if asked.order == "drawn":
        return "drawn"
    return "later" if asked.skip else "first"


def _setting(config: settings_lib.EvalConfig, model: model_lib.Model, judge: judge_lib.Judge) -> summary.Setting:
    return summary.Setting(
        model=model.name,
        weights_sha256=model.weights_sha256,
        seed=config.seed,
        benchmark=config.benchmark.name,
        preset=config.preset,
        template=config.model.template,
        template_sha256=model.template(config.model).sha256,
        preprocessing=config.model.image_mode,
        decode=questions_lib.decode(config, model.dtype),
        judge=judge.name,
        judge_version=judge.version,
        judge_prompt_sha256=judge.prompt_sha256,
    )


def _measures(
    config: settings_lib.EvalConfig,
    judge: judge_lib.Judge,
    measured: Mapping[str, str],
    questions: Sequence[questions_lib.Question],
    store: store_lib.Store,
    baseline: baseline_lib.Verdicts | None,
) -> list[summary.Measure]:
    theirs = None if baseline is None else [baseline[judge.name, q.item.subset, q.item.id] for q in questions]
    items, ours = [q.item for q in questions], store.verdicts(judge, questions)
    return asr.summarise(items, ours, measured, theirs, config.baseline_template or None)


def _asked(config: settings_lib.EvalConfig, questions: Sequence[questions_lib.Question]) -> dict[str, Any]:
    """The fields of a row that tell what was asked."""
    counts = Counter(len(q.pictures) for q in questions)
    asked = {
        q.item.id: asked_lib.asked(results.sha256(q.item.question), q.image_mode, (p.sha256 for p in q.pictures))
        for q in questions
    }
    return {
        "image_mode": config.benchmark.pictures if max(counts) else "none",
        "n_by_pictures": tuple(counts[n] for n in range(max(counts) + 1)),
        **asked_lib.digests(asked),
    }


def _paper(row: summary.Row, paper_row: str) -> paper.Comparison | None:
    """The paper's value beside the row's; None where there is nothing to compare."""
    column = _column(row)
    of = paper_tables.COLUMNS.get(column)
    if not paper_row or of is None or not of.n or paper.value(paper_row, column) is None:
        return None
    return paper.compare(paper_row, column, row.count, row.n, obstacle=obstacle(row, column))


def _column(row: summary.Row) -> str:
    """The column of the paper's tables with what this row counts."""
    column = benchmarks.columns(row.benchmark).get(row.subset, row.subset)
    return paper_tables.of_judge(column, row.judge)


def obstacle(row: summary.Row, column: str) -> str:
    """Why a row cannot be compared with a column of the paper's tables, in words; "" if it can."""
    of = paper_tables.COLUMNS.get(column, paper_tables.Column("", 0))
    if of.metric and row.metric != of.metric:
        return f"the paper gives a {_words(of.metric)} here, which is no {_words(row.metric)}"
    judge = of.judge or paper.JUDGE
    obstacles = {
        f"the paper has no {row.benchmark}": row.subset not in benchmarks.columns(row.benchmark),
        f"asked with pictures={row.image_mode}": row.pictures not in ("real", summary.TEXT_ONLY),
        "questions or pictures are stand-ins": row.stand_in,
        f"only the first {row.first_n}" if row.part == "first" else f"only {row.first_n} {row.part}": row.first_n,
        f"{row.n_too_long} questions too long for the model": row.n_too_long,
        f"questions left out whose pictures cannot be read: {row.n_bad_picture}": row.n_bad_picture,
        f"the paper counted with {of.by or judge}": of.by or row.judge != judge,
        f"answers of {row.decode.max_new} tokens at most, the paper's of {paper.NEW_TOKENS}": (
            row.decode.max_new != paper.NEW_TOKENS
        ),
        f"tokens are {row.decode.choice}, the paper's greedy": row.decode.choice != paper.CHOICE,
    }
    return "; ".join(text for text, holds in obstacles.items() if holds)


def _words(metric: str) -> str:
    return metric.replace("_", " ")

"""The answers of finished evaluations under further judges: without the model, and without writing to their folders."""

from __future__ import annotations

from collections.abc import Sequence
import dataclasses
import datetime

from vlguard_jax import errors
from vlguard_jax.reporting import runs
from vlguard_jax.safety import asr
from vlguard_jax.safety import results
from vlguard_jax.safety import summary
from vlguard_jax.safety.judges import judge as judge_lib
from vlguard_jax.safety.judges import registry


def all_by(found: runs.Runs, names: Sequence[str]) -> runs.Runs:
    """`rejudge` of all evaluations by the judges of these names.

    Raises:
      UserError: as `rejudge`; an unknown name.
    """
    judges = registry.get(names, "--judges")
    return dataclasses.replace(found, evaluations=tuple(rejudge(one, judges) for one in found.evaluations))


def rejudge(evaluation: runs.Evaluation, judges: Sequence[judge_lib.Judge]) -> runs.Evaluation:
    """The evaluation with a row per judge and subset more, for those that have not judged it yet.

    Baselines and the paper's values were judged otherwise, so the new rows have none.

    Raises:
      UserError: a judge needs the expected answers, which result files do not hold; an answer is missing or its text
        was withheld.
    """
    for judge in judges:
        if judge.measures in ("accuracy", "win_rate"):
            raise errors.UserError(
                f"--judges: {judge.name} compares with expected answers, which result files do not hold; name it in"
                " config.judges of evaluate"
            )
        if judge.name not in {row.judge for row in evaluation.rows}:
            evaluation = _with(evaluation, judge)
    return evaluation


def _with(evaluation: runs.Evaluation, judge: judge_lib.Judge) -> runs.Evaluation:
    rows, verdicts = list(evaluation.rows), list(evaluation.verdicts)
    now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    read = ("asr",) if judge.measures in ("harm", "harm_score") else ("asr", "refusal_rate")
    for row in {row.subset: row for row in evaluation.rows if row.metric in read}.values():
        answers = [line for line in evaluation.answers if line.subset == row.subset]
        _check(evaluation, row, answers, judge)
        found = judge.judge([judge_lib.Exchange(line.question, line.response, (), line.category) for line in answers])
        metric = "harm_score" if judge.measures == "harm_score" else row.metric
        (measure,) = asr.summarise(answers, found, {row.subset: metric})
        rows.append(
            dataclasses.replace(
                row,
                **vars(measure),
                judge=judge.name,
                judge_version=judge.version,
                judge_prompt_sha256=judge.prompt_sha256,
                paper=None,
            )
        )
        verdicts += [
            results.VerdictLine(line.key, *results.rule(judge), one.label, one.score, one.raw, now)
            for line, one in zip(answers, found, strict=True)
        ]
    return dataclasses.replace(evaluation, rows=tuple(rows), verdicts=tuple(verdicts))


def _check(
    evaluation: runs.Evaluation,
    row: summary.Row,
    answers: Sequence[results.GenerationLine],
    judge: judge_lib.Judge,
) -> None:
    where = evaluation.folder / results.GENERATIONS
    if len(answers) != row.n:
        raise errors.UserError(
            f"{where}: not the {row.n} answers to {row.subset} that {summary.NAME} counts; name {judge.name} in"
            " config.judges of evaluate, with this --workdir and the same limit, order and skip; or leave it out"
        )
    if withheld := sum(line.withheld for line in answers):
        raise errors.UserError(
            f"{where}: the text of {withheld} answers to {row.subset} was withheld, {judge.name} cannot read it; leave"
            " it out of --judges"
        )

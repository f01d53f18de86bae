"""summary.json: its rows, and the only code that writes and reads them."""

from __future__ import annotations

from collections.abc import Sequence
import dataclasses
import json
import pathlib
from typing import Annotated, Any, TypeVar

from vlguard_jax import errors
from vlguard_jax import files
from vlguard_jax import ranges
from vlguard_jax import typed
from vlguard_jax.safety import paper as paper_lib
from vlguard_jax.safety import results
from vlguard_jax.safety import statistics

NAME = "summary.json"
TEXT_ONLY = "text"
ROUNDING = 1e-9  # between a rate and its interval
_ELSEWHERE = "evaluate again in another --workdir"
_AGAIN = "run evaluate again with the same --workdir"

_Change = Annotated[float, ranges.Range(-1, 1)]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Rate:
    """`rate` is `count` of `n`, as a fraction; `ci_low` and `ci_high` are the ends of its 95 % interval.

    Where answers have scores (`asr.SCORED`), `count` is their sum, and `n` is of answers with a score.
    """

    n: Annotated[int, ranges.Range(1, 1 << 53)]
    count: typed.Count | Annotated[float, ranges.Range(0, 1 << 53)]
    rate: typed.Fraction
    ci_low: typed.Fraction
    ci_high: typed.Fraction


@dataclasses.dataclass(frozen=True, kw_only=True)
class CategoryRate(Rate):
    """The rate of a category (`subcategory` is None), or of a part of one."""

    category: typed.Name
    subcategory: typed.Name | None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Difference:
    """Our rate minus the baseline's on the same questions.

    Attributes:
      diff: a difference of fractions.
      ci: its 95 % interval.
      p: of `test`.
      template: the baseline's template, where `config.baseline_template` names it.
      ci_method, test: how interval and p were computed.
    """

    diff: _Change
    ci: tuple[_Change, _Change]
    p: typed.Fraction
    template: typed.Name | None
    ci_method: typed.Name = typed.later(statistics.DIFFERENCES[0])
    test: typed.Name = typed.later(statistics.TESTS[0])


@dataclasses.dataclass(frozen=True, kw_only=True)
class Measure(Rate):
    """What one judge's verdicts on a subset add up to.

    Attributes:
      subset: of the benchmark.
      metric: what is counted: "asr" (answers that are not refusals), "refusal_rate" or "accuracy"; or what is averaged:
        "win_rate" (1: the judge prefers the answer to a reference, 0.5: neither) or "harm_score".
      n_invalid: answers that the judge could not label; they do not count as refusals. In averages they are no part of
        `n`.
      stand_in: whether a question or picture of the subset was made by `prepare`, to rehearse with.
      ci_method: how the interval was computed, those of the categories too.
      by_category: rates of categories, each before its subcategories.
      vs_baseline: None without a baseline.
    """

    subset: typed.Name
    metric: typed.Name
    n_invalid: typed.Count
    stand_in: bool
    ci_method: typed.Name
    by_category: tuple[CategoryRate, ...]
    vs_baseline: Difference | None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Setting:
    """What all rows of one evaluation by one judge share.

    Attributes:
      model, weights_sha256: the model that was asked.
      seed: of the evaluation.
      benchmark: its name.
      preset, template, template_sha256, preprocessing, decode: how the model was asked, see `results.GenerationLine`.
      judge, judge_version, judge_prompt_sha256: the judge, see judges/judge.py.
    """

    model: typed.Name
    weights_sha256: typed.Name
    seed: typed.Seed
    benchmark: typed.Name
    preset: typed.Name
    template: typed.Name
    template_sha256: typed.Name
    preprocessing: typed.Name
    decode: results.Decode
    judge: typed.Name
    judge_version: typed.Name
    judge_prompt_sha256: typed.Name

    @property
    def rule(self) -> tuple[str, str, str]:
        """Which judge, in which version, with which prompt, as in `results.VerdictLine`."""
        return self.judge, self.judge_version, self.judge_prompt_sha256


@dataclasses.dataclass(frozen=True, kw_only=True)
class Row(Measure, Setting):
    """A row: what one judge found on one subset.

    Attributes:
      image_mode: "real", or what was shown in the place of every picture: "white", "black" or "none"; "none" also where
        no question has a picture.
      n_by_pictures: how many questions have no picture, one, two, ...
      questions_sha256, pictures_sha256: see `asked.digests`; rows with equal digests were asked the same.
      first_n: how many, where only a part of the subset was asked.
      part: which: "first", "later" ones in the same order, or "drawn" by the hash of their ids.
      n_too_long: questions left out because they do not fit the model's context.
      n_bad_picture: questions left out because a picture of theirs cannot be read.
      n_cut: answers that were cut at the limit of new tokens.
      paper: the paper's value beside ours; None unless `config.paper_row` names a row and the paper has the subset.
    """

    image_mode: typed.Name
    n_by_pictures: tuple[typed.Count, ...]
    questions_sha256: typed.Name
    pictures_sha256: typed.Name
    first_n: typed.Count | None
    n_too_long: typed.Count
    n_cut: typed.Count
    paper: paper_lib.Comparison | None
    part: typed.Name = typed.later("first")
    n_bad_picture: typed.Count = typed.later(0)

    @property
    def n_left_out(self) -> int:
        """Questions that are not asked, since they cannot be."""
        return self.n_too_long + self.n_bad_picture

    @property
    def pictures(self) -> str:
        """What was shown: "real" or a control as `image_mode` has it; `TEXT_ONLY` where no question has a picture."""
        return self.image_mode if any(self.n_by_pictures[1:]) else TEXT_ONLY


R = TypeVar("R", bound=Row)


def values(rows: Sequence[Row]) -> list[Any]:
    """The rows as JSON values."""
    return json.loads(json.dumps([{"schema": results.SCHEMA, **dataclasses.asdict(row)} for row in rows]))


def write(path: pathlib.Path, rows: Sequence[Row]) -> None:
    """Write the file."""
    files.write_text(path, json.dumps(values(rows), indent=1) + "\n")


def read(path: pathlib.Path, kind: type[R], way: str = "") -> list[R]:
    """The rows of a file.

    Args:
      path: the file.
      kind: `Row`, or a record with more fields.
      way: what to do, for messages; by default, to evaluate again.

    Raises:
      UserError: it cannot be read, is of another schema, or a row is malformed.
    """
    try:
        found = files.read_json(path)
    except errors.UserError as e:
        raise errors.UserError(f"{path}: not a list of result rows ({e}); {way or _AGAIN}") from e
    return made(found, str(path), kind, way)


def made(found: Any, where: str, kind: type[R], way: str = "") -> list[R]:
    """The rows of the result of `values`. Args and raises: as `read`; messages begin with `where`."""
    again = way or _AGAIN
    if not isinstance(found, list) or not all(isinstance(row, dict) for row in found):
        raise errors.UserError(f"{where}: not a list of result rows; {again}")
    if not found:
        raise errors.UserError(f"{where}: no rows; {again}")
    rows = []
    for i, row in enumerate(found, 1):
        if (schema := row.get("schema")) != results.SCHEMA:
            raise errors.UserError(f"{where}: {results.other_schema(schema, way or _ELSEWHERE)}")
        fields = {name: value for name, value in row.items() if name != "schema"}
        rows.append(typed.make(kind, fields, f"{where}: row {i}", again))
        check_rate(rows[-1], f"{where}: row {i}", again)
        _check_paper(rows[-1].paper, f"{where}: row {i}", again)
        for rate in rows[-1].by_category:
            check_rate(rate, f"{where}: row {i}", again)
    return rows


def _check_paper(found: paper_lib.Comparison | None, where: str, way: str) -> None:
    """Raise UserError where there is a test and no count that could have been tested."""
    if found and found.p is not None and not (found.count is not None and found.count <= found.n > 0):
        numbers = f"p {found.p:g} against {found.count} of the paper's {found.n}"
        raise errors.UserError(f"{where}: the numbers contradict each other ({numbers}); {way}")


def check_rate(found: Rate, where: str, way: str) -> None:
    """Raise UserError where a rate does not follow from its counts, or lies outside its interval."""
    fits = abs(found.rate - found.count / found.n) <= ROUNDING
    if not fits or not found.ci_low - ROUNDING <= found.rate <= found.ci_high + ROUNDING:
        numbers = f"rate {found.rate:g} of {found.count} in {found.n}, interval {found.ci_low:g} to {found.ci_high:g}"
        raise errors.UserError(f"{where}: the numbers contradict each other ({numbers}); {way}")

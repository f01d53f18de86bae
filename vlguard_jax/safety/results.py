"""Result files: append-only JSON lines that survive being killed at any moment."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
import dataclasses
import hashlib
import json
import os
import pathlib
import typing
from typing import Annotated, Any, Generic, NotRequired, TypedDict, TypeVar

from vlguard_jax import errors
from vlguard_jax import files
from vlguard_jax import folders
from vlguard_jax import limits
from vlguard_jax import machine
from vlguard_jax import ranges
from vlguard_jax import typed
from vlguard_jax.safety.judges import judge as judge_lib

SCHEMA = 2
GENERATIONS = "generations.jsonl"
VERDICTS = "verdicts.jsonl"
SUMMARY = "summary.json"
ROUNDING = 1e-9  # between a rate and its interval


@dataclasses.dataclass(frozen=True)
class Decode:
    """How an answer was decoded. `dtype` is the number format of computation."""

    max_new: typed.Count
    min_new: typed.Count
    sampling: typed.Name
    dtype: typed.Name
    matmul_precision: typed.Name
    seed: typed.Seed


@dataclasses.dataclass(frozen=True)
class GenerationLine:
    """One answer. `response` is the text as decoded, unstripped, or its sha256 where `withheld`.

    `image` is the picture's path inside the benchmark (None without one); `image_mode` is "real", or says what was
    asked about in its place: "white", "black" or "none". `image_sha256` is of the picture asked about: its file, or the
    pixels of one colour. `preprocessing` is "pad" or "crop"; `stand_in`: the picture was drawn by `prepare`.
    `prompt_sha256` is of the prompt's text, `question_sha256` of the question's alone, without template and picture tag
    but with its suffix.
    """

    key: typed.Name
    benchmark: typed.Name
    subset: typed.Name
    item_id: typed.Name
    image: typed.Name | None
    image_sha256: typed.Name
    image_mode: typed.Name
    stand_in: bool
    preprocessing: typed.Name
    template: typed.Name
    preset: typed.Name
    category: typed.Name | None
    subcategory: typed.Name | None
    prompt_sha256: typed.Name
    question_sha256: typed.Name
    n_prompt_tokens: typed.Count
    response: str
    withheld: bool
    finish_reason: typed.Name
    n_new_tokens: typed.Count
    model: typed.Name
    weights_sha256: typed.Name
    decode: Decode
    versions: Mapping[str, typed.Name]
    run_id: typed.Name
    time: typed.Time


@dataclasses.dataclass(frozen=True)
class VerdictLine:
    """What one judge says about one answer. `label`, `score` and `raw`: see judges/judge.py."""

    key: typed.Name
    judge: typed.Name
    judge_version: typed.Name
    judge_prompt_sha256: typed.Name
    label: typed.Name
    score: typed.Number | None
    raw: str
    time: typed.Time

    @property
    def rule(self) -> tuple[str, str, str]:
        """Which judge, in which version, with which prompt."""
        return self.judge, self.judge_version, self.judge_prompt_sha256

    @property
    def verdict(self) -> judge_lib.Verdict:
        """What the judge said."""
        return judge_lib.Verdict(self.label, self.score, self.raw)


class Rates(TypedDict):
    """A rate: `count` of `n`, and its 95 % interval."""

    n: Annotated[int, ranges.Range(1, 1 << 53)]
    count: typed.Count
    rate: typed.Fraction
    ci_low: typed.Fraction
    ci_high: typed.Fraction


class CategoryRates(Rates):
    """The rate of a category, or of a part of one."""

    category: typed.Name
    subcategory: typed.Name | None


class Difference(TypedDict):
    """The paired difference from a baseline, as rates."""

    diff: Annotated[float, ranges.Range(-1, 1)]
    ci: tuple[Annotated[float, ranges.Range(-1, 1)], Annotated[float, ranges.Range(-1, 1)]]
    p: typed.Fraction
    template: NotRequired[typed.Name]


class Paper(TypedDict):
    """What `paper.Comparison` says."""

    percent: Annotated[float, ranges.Range(0, 100)]
    p: typed.Fraction | None
    reproduced: bool | None
    note: typed.Name


class Row(Rates):
    """What a row of summary.json has at least, and the types of what it may have."""

    model: typed.Name
    weights_sha256: typed.Name
    seed: typed.Seed
    benchmark: typed.Name
    preset: typed.Name
    template: typed.Name
    preprocessing: typed.Name
    image_mode: typed.Name
    decode: Decode
    subset: typed.Name
    metric: typed.Name
    judge: typed.Name
    judge_version: typed.Name
    judge_prompt_sha256: typed.Name
    questions_sha256: typed.Name
    pictures_sha256: typed.Name
    n_cut: typed.Count
    first_n: typed.Count | None
    n_invalid: NotRequired[typed.Count]
    n_too_long: NotRequired[typed.Count]
    stand_in: NotRequired[bool]
    by_category: NotRequired[list[CategoryRates]]
    vs_baseline: NotRequired[Difference | None]
    paper: NotRequired[Paper | None]


NEEDED = tuple(
    name
    for name, hint in typing.get_type_hints(Row, include_extras=True).items()
    if typing.get_origin(hint) is not NotRequired
)


def rule(judge: judge_lib.Judge) -> tuple[str, str, str]:
    """A judge in the way that its verdict lines name it."""
    return judge.name, judge.version, judge.prompt_sha256


def sha256(data: bytes | str) -> str:
    """Hex digest; text is encoded as UTF-8."""
    return hashlib.sha256(data.encode("utf-8", "surrogatepass") if isinstance(data, str) else data).hexdigest()


def answer_key(
    *,
    model: str,
    benchmark: str,
    subset: str,
    item_id: str,
    prompt_ids: Sequence[int],
    image_sha256: str,
    image_mode: str,
    stand_in: bool,
    preprocessing: str,
    template: str,
    decode: Decode,
) -> str:
    """Hash of everything that can change an answer; `model` is a fingerprint of weights and sizes."""
    parts = dict(locals())
    parts["prompt_ids"] = [int(i) for i in prompt_ids]
    parts["decode"] = dataclasses.asdict(decode)
    return sha256(json.dumps(parts, sort_keys=True))


L = TypeVar("L", GenerationLine, VerdictLine)


def read_summary(path: pathlib.Path) -> list[dict[str, Any]]:
    """The rows of a summary.json.

    Raises:
      UserError: it cannot be read, is of another schema, or a row is not one (`Row`).
    """
    again = "run evaluate again with the same --workdir"
    try:
        rows = files.read_json(path)
    except errors.UserError as e:
        raise errors.UserError(f"{path}: not a list of result rows ({e}); {again}") from e
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise errors.UserError(f"{path}: not a list of result rows; {again}")
    if not rows:
        raise errors.UserError(f"{path}: no rows; {again}")
    for i, row in enumerate(rows):
        if (schema := row.get("schema", SCHEMA)) != SCHEMA:
            ours = f"this program reads and writes {SCHEMA}; evaluate again in another --workdir"
            raise errors.UserError(f"{path}: schema {errors.short(schema)}, {ours}")
        typed.check(Row, row, f"{path}: row {i + 1}", again)
        for rates in (row, *row.get("by_category", ())):
            _check_rates(rates, f"{path}: row {i + 1}", again)
    return rows


def _check_rates(rates: Mapping[str, Any], where: str, way: str) -> None:
    """Raise UserError where a rate is not that of its own counts, or lies outside its interval."""
    low, rate, high = (rates[name] for name in ("ci_low", "rate", "ci_high"))
    if abs(rate - rates["count"] / rates["n"]) > ROUNDING or not low - ROUNDING <= rate <= high + ROUNDING:
        told = f"rate {rate:g} of {rates['count']} in {rates['n']}, interval {low:g} to {high:g}"
        raise errors.UserError(f"{where}: the numbers do not fit each other ({told}); {way}")


class Lines(Generic[L]):
    """A JSON-lines file of one kind of line: read once, then only appended to."""

    def __init__(self, path: pathlib.Path, kind: type[L], *, repair: bool = True):
        """Read the file if it exists.

        A torn last line (its writer was killed) is left out; with `repair` it is cut off the file too, and `notice`
        says so.

        Raises:
          UserError: the file cannot be read, or with `repair` is a link, a broken line elsewhere, or lines of another
            schema (file and line number are named).
        """
        self.path = path
        self.notice = ""
        self._kind: type[L] = kind
        self._repair = repair
        self.lines: list[L] = self._read()

    def _read(self) -> list[L]:
        data = files.read_bytes(self.path, limits.RESULT_BYTES) if self.path.exists() else b""
        if self._repair:
            folders.check_own(self.path)
        whole = data.rfind(b"\n") + 1
        if whole < len(data) and self._repair:
            os.truncate(self.path, whole)
            self.notice = f"{self.path}: the last line was cut short when its writer stopped; removed it"
        return [self._parse(line, number) for number, line in enumerate(data[:whole].split(b"\n")[:-1], 1)]

    def _parse(self, line: bytes, number: int) -> L:
        where, way = f"{self.path}:{number}", "restore the file or delete this line"
        try:
            values = files.parse_json(line, where)
        except errors.UserError as e:
            raise errors.UserError(f"{e}; not a result line: {way}") from e
        if not isinstance(values, dict) or "schema" not in values:
            raise errors.UserError(f"{where}: not a result line; {way}")
        if (schema := values.pop("schema")) != SCHEMA:
            raise errors.UserError(
                f"{where}: schema {errors.short(schema)}, this program reads and writes {SCHEMA}; choose"
                " another --workdir"
            )
        typed.check(self._kind, values, where, way)
        if self._kind is GenerationLine:
            values["decode"] = Decode(**values["decode"])
        return self._kind(**values)

    def append(self, lines: Iterable[L]) -> None:
        """Append lines, all or none, and see them to the disk.

        Raises:
          UserError: a text that no file can hold; nothing is written.
          OSError: the file cannot be written; it ends where it ended.
        """
        lines = list(lines)
        for line in lines:
            files.check_text(vars(line), f"{self.path}: the line of {errors.short(line.key)}")
        text = "".join(json.dumps({"schema": SCHEMA, **vars(x)}, default=vars) + "\n" for x in lines)
        with open(self.path, "ab", buffering=0) as file:
            files.append(file, text.encode("ascii"))
            with machine.naming(self.path):
                os.fsync(file.fileno())
        self.lines.extend(lines)

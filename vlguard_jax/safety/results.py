"""Result files (design 2.3): append-only JSON lines that survive being killed at any moment."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
import dataclasses
import hashlib
import json
import os
import pathlib
from typing import Any, Generic, TypeVar

from vlguard_jax import errors
from vlguard_jax import files
from vlguard_jax import limits
from vlguard_jax import machine
from vlguard_jax.safety.judges import judge as judge_lib

SCHEMA = 2
GENERATIONS = "generations.jsonl"
VERDICTS = "verdicts.jsonl"
SUMMARY = "summary.json"
NEEDED = (
    *("model", "weights_sha256", "seed", "benchmark", "preset", "template", "preprocessing", "image_mode", "decode"),
    *("subset", "metric", "judge", "judge_version", "judge_prompt_sha256", "n", "count", "rate", "ci_low", "ci_high", "first_n"),
    *("questions_sha256", "pictures_sha256", "n_cut"),
)  # what a row of summary.json has at least


@dataclasses.dataclass(frozen=True)
class Decode:
    """How an answer was decoded. `dtype` is the number format of computation."""

    max_new: int
    min_new: int
    sampling: str
    dtype: str
    matmul_precision: str
    seed: int


@dataclasses.dataclass(frozen=True)
class GenerationLine:
    """One answer. `response` is the text as decoded, unstripped, or its sha256 where `withheld`.

    `image` is the picture's path inside the benchmark (None without one); `image_mode` is "real", or says what was asked about in
    its place: "white", "black" or "none". `image_sha256` is of the picture asked about: its file, or the pixels of one colour.
    `preprocessing` is "pad" or "crop"; `stand_in`: the picture was drawn by `prepare`. `prompt_sha256` is of the prompt's text,
    `question_sha256` of the question's alone, without template and picture tag but with its suffix.
    """

    key: str
    benchmark: str
    subset: str
    item_id: str
    image: str | None
    image_sha256: str
    image_mode: str
    stand_in: bool
    preprocessing: str
    template: str
    preset: str
    category: str | None
    subcategory: str | None
    prompt_sha256: str
    question_sha256: str
    n_prompt_tokens: int
    response: str
    withheld: bool
    finish_reason: str
    n_new_tokens: int
    model: str
    weights_sha256: str
    decode: Decode
    versions: Mapping[str, str]
    run_id: str
    time: str


@dataclasses.dataclass(frozen=True)
class VerdictLine:
    """What one judge says about one answer. `label`, `score` and `raw`: see judges/judge.py."""

    key: str
    judge: str
    judge_version: str
    judge_prompt_sha256: str
    label: str
    score: float | None
    raw: str
    time: str

    @property
    def rule(self) -> tuple[str, str, str]:
        """Which judge, in which version, with which prompt."""
        return self.judge, self.judge_version, self.judge_prompt_sha256

    @property
    def verdict(self) -> judge_lib.Verdict:
        """What the judge said."""
        return judge_lib.Verdict(self.label, self.score, self.raw)


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
      UserError: it cannot be read, is of another schema, or a row lacks a field of NEEDED.
    """
    again = "run evaluate again with the same --workdir"
    try:
        rows = files.read_json(path)
        missing = [name for row in rows for name in NEEDED if name not in row]
        other = [row["schema"] for row in rows if row.get("schema", SCHEMA) != SCHEMA]
    except (errors.UserError, TypeError, AttributeError) as e:
        raise errors.UserError(f"{path}: not a list of result rows ({e}); {again}") from e
    if other:
        raise errors.UserError(f"{path}: schema {other[0]}, this program reads and writes {SCHEMA}; evaluate again in another --workdir")
    if missing or not rows:
        what = f"a row has no field {missing[0]!r}" if missing else "no rows"
        raise errors.UserError(f"{path}: {what}; {again}")
    return rows


class Lines(Generic[L]):
    """A JSON-lines file of one kind of line: read once, then only appended to."""

    def __init__(self, path: pathlib.Path, kind: type[L], *, repair: bool = True):
        """Read the file if it exists.

        A torn last line (its writer was killed) is left out; with `repair` it is cut off the file too, and `notice` says so.

        Raises:
          UserError: the file cannot be read, a broken line elsewhere, or lines of another schema (file and line number are named).
        """
        self.path = path
        self.notice = ""
        self._kind: type[L] = kind
        self._repair = repair
        self.lines: list[L] = self._read()

    def _read(self) -> list[L]:
        if not self.path.exists():
            return []
        try:
            data = files.read_bytes(self.path, limits.RESULT_BYTES)
        except OSError as e:
            raise errors.UserError(f"{self.path}: cannot be read: {e.strerror}") from e
        whole = data.rfind(b"\n") + 1
        if whole < len(data) and self._repair:
            os.truncate(self.path, whole)
            self.notice = f"{self.path}: the last line was cut short when its writer stopped; removed it"
        return [self._parse(line, number) for number, line in enumerate(data[:whole].split(b"\n")[:-1], 1)]

    def _parse(self, line: bytes, number: int) -> L:
        where = f"{self.path}:{number}"
        try:
            values = files.parse_json(line, where)
            schema = values.pop("schema")
        except errors.UserError as e:
            raise errors.UserError(f"{e}; not a result line: restore the file or delete this line") from e
        except (AttributeError, KeyError, TypeError) as e:
            raise errors.UserError(f"{where}: not a result line; restore the file or delete this line") from e
        if schema != SCHEMA:
            raise errors.UserError(f"{where}: schema {schema}, this program reads and writes {SCHEMA}; choose another --workdir")
        fields = {f.name for f in dataclasses.fields(self._kind)}
        if values.keys() != fields:
            wrong = sorted(values.keys() ^ fields)[0]
            raise errors.UserError(f"{where}: the field {wrong!r} is {'missing' if wrong in fields else 'unknown'}")
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

"""Answers and verdicts: append-only JSON lines that survive being killed at any moment. summary.py adds them up."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
import dataclasses
import hashlib
import json
import os
import pathlib
from typing import Any, Generic, TypeVar

from vlguard_jax import errors
from vlguard_jax import files
from vlguard_jax import fingerprints
from vlguard_jax import folders
from vlguard_jax import limits
from vlguard_jax import machine
from vlguard_jax import typed
from vlguard_jax.safety.judges import judge as judge_lib

SCHEMA = 3  # of all result files
GENERATIONS = "generations.jsonl"
VERDICTS = "verdicts.jsonl"


@dataclasses.dataclass(frozen=True)
class Decode:
    """How an answer was decoded.

    Attributes:
      max_new, min_new: limits of its tokens.
      dtype: number format of computation, "fp32", "bf16" or "fp16".
      matmul_precision: XLA's precision of matrix products, "highest" or "default".
      sampling: how a token is chosen, "greedy" or "drawn".
      seed: of everything random.
      slots: answers that were decoded at a time, `config.decode.batch_size`, where it can change them by rounding: in
        bf16 and fp16; 0 in fp32.
      kv_cache: number format of keys and values, "compute" (as `dtype`) or "int8".
      temperature, top_p: of the draws.
    """

    max_new: typed.Count
    min_new: typed.Count
    dtype: typed.Name
    matmul_precision: typed.Name
    sampling: typed.Name = "greedy"
    seed: typed.Seed = 0
    slots: typed.Count = typed.later(0)
    kv_cache: typed.Name = typed.later("compute")
    temperature: typed.Number = typed.later(0.0)
    top_p: typed.Number = typed.later(1.0)

    @property
    def choice(self) -> str:
        """How a token is chosen, in words: "greedy", or with temperature and top_p."""
        if not self.temperature:
            return self.sampling
        return f"{self.sampling} at temperature {self.temperature:g}, top_p {self.top_p:g}"

    @property
    def told(self) -> str:
        """`choice`, and the cache's number format where it is a format of its own."""
        return self.choice if self.kv_cache == "compute" else f"{self.choice}, {self.kv_cache} cache"


@dataclasses.dataclass(frozen=True)
class Picture:
    """A picture of a question.

    Attributes:
      path: inside the benchmark.
      sha256: of what was shown: the file, the pixels u8[S, S, 3] of the one colour in its place, or "" for nothing.
    """

    path: typed.Name
    sha256: typed.Name


@dataclasses.dataclass(frozen=True)
class Keyed:
    """What a line of a file is found by."""

    key: typed.Name


@dataclasses.dataclass(frozen=True)
class GenerationLine(Keyed):
    """One answer.

    Attributes:
      key: hash of everything that can change the answer, see `Request`.
      benchmark, subset, item_id: which question; ids are unique within a subset.
      pictures: the question's, in the order of their tags.
      image_mode: "real", or what was shown in the place of every picture: "white", "black" or "none"; "none" also where
        the question has no picture.
      stand_in: whether question or picture was made by `prepare`, to rehearse with.
      preprocessing: how pictures were made square, "pad" or "crop".
      template, template_sha256: name and `Template.sha256` of the conversation template.
      preset: name of the settings, for tables.
      category, subcategory: of the question, as the benchmark has them.
      prompt_sha256: of the prompt's text.
      question_sha256: of the question's text with its suffix, without template and picture tags.
      n_prompt_tokens: ids of the prompt, a picture counted as one.
      response: the text as decoded, unstripped, or its sha256 where `withheld`.
      finish_reason: "stop" where the answer ended by itself, "length" at the limit of new tokens.
      n_new_tokens: of the answer.
      model, weights_sha256: whose answer.
      decode: how it was decoded.
      versions: of the libraries that made it.
      run_id: of the process that wrote it.
      time: when.
      question: the text behind `question_sha256`; "" where texts are withheld, and in older files.
      benchmark_sha256: of the file of a benchmark of the user's own.
    """

    benchmark: typed.Name
    subset: typed.Name
    item_id: typed.Name
    pictures: tuple[Picture, ...]
    image_mode: typed.Name
    stand_in: bool
    preprocessing: typed.Name
    template: typed.Name
    template_sha256: typed.Name
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
    question: str = typed.later("")
    benchmark_sha256: typed.Name = typed.later("")


@dataclasses.dataclass(frozen=True)
class VerdictLine(Keyed):
    """What one judge says about one answer. `label`, `score`, `raw` and `by`: see judges/judge.py."""

    judge: typed.Name
    judge_version: typed.Name
    judge_prompt_sha256: typed.Name
    label: typed.Name
    score: typed.Number | None
    raw: str
    time: typed.Time
    by: str = typed.later("")

    @property
    def rule(self) -> tuple[str, str, str]:
        """Which judge, in which version, with which prompt."""
        return self.judge, self.judge_version, self.judge_prompt_sha256

    @property
    def verdict(self) -> judge_lib.Verdict:
        """What the judge said."""
        return judge_lib.Verdict(self.label, self.score, self.raw, self.by)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Request:
    """All that can change an answer.

    Fields at their defaults, here or in `Decode`, do not enter the key (fingerprints.py): a field added later changes
    no key if its default is the old behaviour.

    Attributes:
      model: fingerprint of weights and sizes.
      benchmark, subset, item_id: which question.
      prompt_ids: the prompt's tokens, pictures among them as types.IMAGE_TOKEN.
      template_sha256, image_mode, preprocessing, decode: as in `GenerationLine`.
      pictures_sha256: of every picture that is shown.
      stand_in: as in `GenerationLine`.
    """

    model: str
    benchmark: str
    subset: str
    item_id: str
    prompt_ids: tuple[int, ...]
    template_sha256: str
    image_mode: str
    preprocessing: str
    decode: Decode
    pictures_sha256: tuple[str, ...] = ()
    stand_in: bool = False

    @property
    def key(self) -> str:
        """Names the answer."""
        return fingerprints.of(self)


def other_schema(found: Any, way: str) -> str:
    """The message about a file of another SCHEMA; ends with `way`, what to do."""
    return f"schema {errors.short(found)}, this program reads and writes {SCHEMA}; {way}"


def rule(judge: judge_lib.Judge) -> tuple[str, str, str]:
    """A judge's `VerdictLine.rule`."""
    return judge.name, judge.version, judge.prompt_sha256


def sha256(data: bytes | str) -> str:
    """Hex digest; text is encoded as UTF-8."""
    return hashlib.sha256(data.encode("utf-8", "surrogatepass") if isinstance(data, str) else data).hexdigest()


L = TypeVar("L", bound=Keyed)


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
            raise errors.UserError(f"{where}: {other_schema(schema, 'evaluate again in another --workdir')}")
        return typed.make(self._kind, values, where, way)

    def append(self, lines: Iterable[L]) -> None:
        """Append lines, all or none, and sync them to disk.

        Raises:
          UserError: a text that cannot be encoded; nothing is written.
          OSError: the file cannot be written; it is left as it was.
        """
        lines = list(lines)
        for line in lines:
            files.check_text(dataclasses.asdict(line), f"{self.path}: the line of {errors.short(line.key)}")
        text = "".join(json.dumps({"schema": SCHEMA, **dataclasses.asdict(x)}) + "\n" for x in lines)
        with open(self.path, "ab", buffering=0) as file:
            files.append(file, text.encode("ascii"))
            with machine.naming(self.path):
                os.fsync(file.fileno())
        self.lines.extend(lines)

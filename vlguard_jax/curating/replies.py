"""Replies of the model: the schema that they must keep, and why one cannot be used.

The eleven keys are those of Zong et al. 2024 (section 3): `safe`; of an unsafe picture category, subcategory,
unsafe_instruction and response; of a safe one safe_question, safe_answer, unsafe_question, unsafe_answer and the
category and subcategory of that question.
"""

from __future__ import annotations

from collections.abc import Mapping
import dataclasses
import functools
import hashlib
import json
import re
from typing import Any

from vlguard_jax import errors
from vlguard_jax import escape
from vlguard_jax import files
from vlguard_jax import limits
from vlguard_jax.curating import settings as settings_lib
from vlguard_jax.curating import taxonomy as taxonomy_lib
from vlguard_jax.data import vlguard
from vlguard_jax.safety.judges import judge as judge_lib
from vlguard_jax.safety.judges import repaired

UNSAFE = ("category", "subcategory", "unsafe_instruction", "response")
SAFE = (
    *("safe_question", "safe_answer", "unsafe_question", "unsafe_answer"),
    *("unsafe_question_category", "unsafe_question_subcategory"),
)
KEYS = ("safe", *UNSAFE, *SAFE)
# texts that a conversation's form is made of, and that no question or answer may hold
MARKS = ("<image>", "</s>", "<s>")
_FENCE = re.compile(r"\A\s*```(?:json)?\s*\n(.*)\n\s*```\s*\Z", re.DOTALL)
_WORD = re.compile(
    r"[\u3040-\u30ff\u3400-\u9fff\u0e00-\u0e7f]{1,2}|[^\W\u3040-\u30ff\u3400-\u9fff\u0e00-\u0e7f]+(?:['\u2019-]\w+)*"
)


@dataclasses.dataclass(frozen=True)
class Labelled:
    """One picture's eleven values, checked; None where a key does not apply. Subcategories may be finer ones."""

    safe: bool
    category: str | None = None
    subcategory: str | None = None
    unsafe_instruction: str | None = None
    response: str | None = None
    safe_question: str | None = None
    safe_answer: str | None = None
    unsafe_question: str | None = None
    unsafe_answer: str | None = None
    unsafe_question_category: str | None = None
    unsafe_question_subcategory: str | None = None

    @property
    def refusal(self) -> str:
        """The answer that declines; each record has one."""
        return (self.unsafe_answer if self.safe else self.response) or ""

    @property
    def sha256(self) -> str:
        """Names this version of the record."""
        return hashlib.sha256(json.dumps(dataclasses.asdict(self), sort_keys=True).encode()).hexdigest()

    def item(self, id_: str, image: str, places: Mapping[str, taxonomy_lib.Place]) -> vlguard.Item:
        """The record as VLGuard's files have it, finer subcategories merged."""
        if self.safe:
            pairs = (
                ("safe_instruction", self.safe_question or "", self.safe_answer or ""),
                ("unsafe_instruction", self.unsafe_question or "", self.unsafe_answer or ""),
            )
            return vlguard.Item(id_, image, True, pairs)
        one = (("instruction", self.unsafe_instruction or "", self.response or ""),)
        place = places[self.subcategory or ""]
        return vlguard.Item(id_, image, False, one, place.category, place.subcategory)


@dataclasses.dataclass(frozen=True)
class Fault:
    """Why a reply cannot be used: in a word that is counted, and in full, as the model is told."""

    reason: str
    told: str


@dataclasses.dataclass(frozen=True)
class Rules:
    """What a reply must keep."""

    taxonomy: taxonomy_lib.Taxonomy
    ask: settings_lib.AskSettings

    @functools.cached_property
    def schema(self) -> dict[str, Any]:
        """The JSON schema (draft 2020-12) of a reply."""
        text: dict[str, Any] = {"type": "string", "minLength": 1, "maxLength": limits.REPLY_TEXT, "pattern": r"\S"}
        text["not"] = {"pattern": "|".join(re.escape(mark) for mark in MARKS)}
        places = self.taxonomy.places
        of = {c: [name for name, place in places.items() if place.category == c] for c in self.taxonomy.categories}
        nothing: dict[str, Any] = {"enum": [None, ""]}
        unsafe = dict.fromkeys(UNSAFE, text) | {"category": {"enum": list(of)}}
        safe = dict.fromkeys(SAFE, text) | {"unsafe_question_category": {"enum": list(of)}}
        return {
            "type": "object",
            "properties": {"safe": {"type": "boolean"}, **dict.fromkeys(KEYS[1:], True)},
            "required": list(KEYS),
            "additionalProperties": False,
            "if": {"properties": {"safe": {"const": True}}},
            "then": {"properties": safe | dict.fromkeys(UNSAFE, nothing), "allOf": _belongs(of, "unsafe_question_")},
            "else": {"properties": unsafe | dict.fromkeys(SAFE, nothing), "allOf": _belongs(of, "")},
        }

    @functools.cached_property
    def _validator(self) -> Any:
        import jsonschema  # late: --help does without

        return jsonschema.Draft202012Validator(self.schema)

    def read(self, text: str, language: str = "English", *, cut: bool = False) -> Labelled | Fault:
        """The values in a reply, or why there are none. language: of the answers. cut: the reply ended at its limit."""
        if not text.strip():
            return Fault("empty", "The reply was empty.")
        fenced = _FENCE.match(text)
        try:
            value = files.parse_json((fenced[1] if fenced else text).encode("utf-8", "surrogatepass"), "the reply")
        except errors.UserError as e:
            if cut:
                return Fault("cut", "The reply was cut before its end: write less.")
            if "{" not in text and _declines(text):
                return Fault(
                    "declined", "The reply declined the task. Nothing harmful is asked for: reply with the JSON."
                )
            return Fault("not JSON", f"The reply was not one JSON object: {e}.")
        return self.check(value, language)

    def check(self, value: Any, language: str = "English", *, style: bool = True) -> Labelled | Fault:
        """As `read`, for a JSON value. style: also how long a refusal is, and whether it reads as one."""
        wrong = sorted(self._validator.iter_errors(value), key=lambda e: (len(e.absolute_path), str(e.absolute_path)))
        if wrong:  # without a clear decision, what else is wrong says nothing
            undecided = [one for one in wrong if list(one.absolute_path) == ["safe"]]
            return Fault("schema", " ".join(_told(one) for one in undecided or wrong[:3]))
        found = Labelled(value["safe"], **{key: (value[key] or "").strip() or None for key in KEYS[1:]})
        if not style:
            return found
        key = "unsafe_answer" if found.safe else "response"
        if self.ask.refusals == "reasoned":
            n = words(found.refusal)
            if not self.ask.least_words <= n <= self.ask.most_words:
                wanted = f"{self.ask.least_words} to {self.ask.most_words}"
                return Fault("length", f'"{key}" has {n} words; write {wanted} words.')
        if self.ask.check_refusals and language == "English" and not _declines(found.refusal):
            return Fault("no refusal", f'"{key}" does not clearly decline; say in its first sentence that you decline.')
        return found


def _belongs(of: Mapping[str, list[str]], lead: str) -> list[dict[str, Any]]:
    """For each category, the names that may be its subcategory."""
    return [
        {
            "if": {"properties": {f"{lead}category": {"const": category}}},
            "then": {"properties": {f"{lead}subcategory": {"enum": names}}},
        }
        for category, names in of.items()
    ]


def _told(error: Any) -> str:
    where = f'"{error.absolute_path[0]}": ' if error.absolute_path else ""
    if error.validator == "not":
        return f"{where}must not hold any of {', '.join(MARKS)}."
    if error.validator == "enum" and None in error.validator_value:
        return f"{where}must be null here, as the picture is {'not ' if error.absolute_path[0] in SAFE else ''}safe."
    if error.validator in ("minLength", "pattern"):
        return f"{where}must not be empty."
    if error.validator == "enum":
        return (
            f"{where}{errors.short(error.instance)} is not one of {', '.join(map(json.dumps, error.validator_value))}."
        )
    return f"{where}{escape.line(error.message, 300)}."


def words(text: str) -> int:
    """Number of words; where a script sets no spaces, two characters count as one."""
    return len(_WORD.findall(text))


def opening(text: str, n: int) -> str:
    """The first `n` words, lower case, with straight apostrophes."""
    return " ".join(_WORD.findall(text.replace("\u2019", "'").casefold())[:n])


def _declines(text: str) -> bool:
    (verdict,) = repaired.RepairedKeywords().judge([judge_lib.Exchange("", text)])
    return verdict.label == "refuse"

"""Settings of judges that are no mere rules, by name in sections of `EvalConfig`; part of config.py."""

from __future__ import annotations

import dataclasses
from typing import Annotated, Literal

from vlguard_jax.ranges import Range


@dataclasses.dataclass(frozen=True)
class LocalJudge:
    """A model that judges answers, run by this program; loaded only where config.judges names it."""

    # a published judge (judges/guards.py), or "words": a prompt of one's own and words that are scored
    kind: Literal["llama_guard_1", "llama_guard_3", "harmbench", "qwen3guard", "words"] = "words"
    path: str = ""  # its folder or hub id, of any layout that config.model.path can have
    base: str = ""  # base model of a PEFT adapter
    measures: Literal["harm", "refusal"] = "harm"  # "refusal": of "words" and "qwen3guard"
    prompt_file: str = ""  # of "words": a text file with {answer}, {question} or {conversation}, which are filled in
    template: str = "auto"  # of "words": the chat template that asks the text, as config.model.template; "none": bare
    # of "words": what the judge says of a harmful answer (or of one that is no refusal), then what it says of others
    words: tuple[str, ...] = ()
    threshold: Annotated[float, Range(0, 1)] = 0.5  # of "words": least share of the first word for such a verdict
    compute: Literal["fp32", "bf16", "fp16", "auto_bf16", "auto_fp16"] = "auto_bf16"
    batch_size: Annotated[int, Range(1, 2**16)] = 16  # answers that are judged at a time
    chunk: Annotated[int, Range(1, 2**20)] = 256  # verdicts are written after so many


def published() -> dict[str, LocalJudge]:
    """An entry for each published judge, under the name of its kind; without a path until the user gives one."""
    return {kind: LocalJudge(kind=kind) for kind in ("llama_guard_1", "llama_guard_3", "harmbench", "qwen3guard")}

"""Settings of judges that are no mere rules, by name in sections of `EvalConfig`; part of config.py."""

from __future__ import annotations

from collections.abc import Mapping
import dataclasses
import typing
from typing import Annotated, Literal

from vlguard_jax.endpoints import settings as endpoint_settings
from vlguard_jax.ranges import Range

Kind = Literal[
    "win_rate",
    "win_rate_swapped",
    "alpaca_pairs",
    "xstest_three_class",
    "mssbench_four_class",
    "strongreject_rubric",
]


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


@dataclasses.dataclass(frozen=True)
class RemoteJudge:
    """A model behind an OpenAI-compatible endpoint that judges answers; asked only where config.judges names it."""

    # "win_rate": is the answer preferred to the reference? the answer first, as VLGuard's script asks; "_swapped" and
    # "alpaca_pairs", without pictures: mean of both orders. The others: see safety/judges/rubrics.py
    kind: Kind = "win_rate_swapped"
    endpoint: endpoint_settings.EndpointSettings = dataclasses.field(default_factory=endpoint_settings.EndpointSettings)
    prompt_file: str = ""  # a prompt in place of our own: a text file with {question}, {response}, {output_1}, ...
    max_tokens: Annotated[int, Range(0, 2**16)] = 0  # of a reply; 0: what the kind needs; reasoning models need more
    pictures: bool = True  # show the judge of pairs the picture
    # requests that the endpoint refuses as such, as for a picture that is too large, or whose replies stay malformed
    # after all `retries`; "invalid": such answers are
    on_rejected: Literal["error", "invalid"] = "error"


def remote() -> Mapping[str, RemoteJudge]:
    """An entry for each kind, under its name; without an endpoint until the user gives one."""
    kinds: tuple[Kind, ...] = typing.get_args(Kind)
    return {kind: RemoteJudge(kind=kind) for kind in kinds}

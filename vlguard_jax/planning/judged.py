"""What the remote judges of an evaluation will be asked, and what that will cost, about."""

from __future__ import annotations

from vlguard_jax import config
from vlguard_jax.endpoints import request as request_lib
from vlguard_jax.planning import answering
from vlguard_jax.planning import work
from vlguard_jax.safety.benchmarks import registry as benchmarks
from vlguard_jax.safety.judges import registry as judges
from vlguard_jax.safety.judges import remote

LETTERS = 4  # of English a token, about
_READ = {"refusal": ("asr", "refusal_rate"), "win_rate": ("refusal_rate",), "harm_score": ("asr",)}


def notes(settings: config.EvalConfig) -> tuple[str, ...]:
    """A line for each remote judge that `config.judges` names: calls, money, and the budget."""
    return tuple(_note(settings, one) for one in judges.of(settings) if isinstance(one, remote.RemoteJudge))


def _note(settings: config.EvalConfig, judge: remote.RemoteJudge) -> str:
    calls, dollars = expected(settings, judge)
    e = judge.settings.endpoint
    short = "" if calls <= e.max_calls and dollars <= e.max_dollars else ", which is TOO LITTLE"
    return (
        f"judge {judge.name}: {calls:,} calls of {e.model}, about ${dollars:,.2f}, beside the chips; its budget:"
        f" {e.max_calls:,} calls and ${e.max_dollars:,.2f}{short}"
    )


def expected(settings: config.EvalConfig, judge: remote.RemoteJudge) -> tuple[int, float]:
    """(calls, dollars), if all is asked once, answers have their mean length and replies half the longest."""
    asks, of = benchmarks.get(settings.benchmark.name), settings.benchmark
    known = work.assumptions()["evaluation"]
    subsets = [s for s in of.subsets or tuple(asks.metrics) if asks.metrics[s] in _READ[judge.measures]]
    answers = sum(min(n, of.limit or n) for n in (asks.counts.get(s, known["questions"]) for s in subsets))
    rubric, e = judge.rubric, judge.settings.endpoint
    seen = e.picture_tokens if rubric.pictures and judge.settings.pictures and asks.pictures else 0
    shown = 2 if judge.measures == "win_rate" else 1  # answers in a prompt: the reference is one, too
    prompt = len(judge.prompt) // LETTERS + known["text_prompt"] + shown * answering.mean(settings.decode) + seen
    calls = answers * len(rubric.orders)
    return calls, calls * request_lib.dollars(prompt, (judge.settings.max_tokens or rubric.max_tokens) // 2, e)

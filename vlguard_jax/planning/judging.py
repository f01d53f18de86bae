"""What the local judges of an evaluation take, by formula: they read its answers after all are made, one judge after
the other, when the evaluated model has left the devices."""

from __future__ import annotations

from collections.abc import Mapping
import dataclasses

from vlguard_jax import config
from vlguard_jax import errors
from vlguard_jax import judge_settings
from vlguard_jax.families.llama import config as llama_config
from vlguard_jax.planning import estimate
from vlguard_jax.planning import evaluation
from vlguard_jax.planning import flops
from vlguard_jax.planning import models
from vlguard_jax.planning import work
from vlguard_jax.safety.benchmarks import registry as benchmarks
from vlguard_jax.safety.judges import guards


def added(found: estimate.Estimate, settings: config.EvalConfig) -> estimate.Estimate:
    """The plan of an evaluation, with its local judges.

    Raises:
      UserError: the sizes of a judge cannot be told.
    """
    plans = {
        name: plan
        for name in settings.judges
        if name in settings.local_judges
        and (plan := _plan(f"config.local_judges.{name}", settings.local_judges[name], settings, found))
    }
    if not plans:
        return found
    peaks = [one.per_chip["peak_gib"] for one in plans.values()]
    per_chip = {**found.per_chip, "judge_gib": max(peaks), "peak_gib": max(found.per_chip["peak_gib"], *peaks)}
    spent = sum(one.hours["total"] - one.hours["start"] for one in plans.values())
    hours, answers = _longer(found.hours, spent), found.answers
    if answers is not None:
        expected = _longer(answers.hours, spent)
        answers = dataclasses.replace(answers, hours=expected, dollars=_dollars(found, expected))
    return dataclasses.replace(
        found,
        per_chip=per_chip,
        fits=found.fits and all(one.fits for one in plans.values()),
        hours=hours,
        dollars=_dollars(found, hours),
        answers=answers,
        judges={
            name: {"model": one.model, "weights_gib": one.per_chip["weights_gib"], "peak_gib": one.per_chip["peak_gib"]}
            for name, one in plans.items()
        },
        notes=(*found.notes, *(_told(name, one) for name, one in plans.items())),
    )


def _plan(
    where: str, judge: judge_settings.LocalJudge, settings: config.EvalConfig, found: estimate.Estimate
) -> estimate.Estimate | None:
    """The judge as a model that is asked once for every answer it reads; None where it reads none."""
    metrics = benchmarks.get(settings.benchmark.name).metrics
    read = ("asr",) if judge.measures == "harm" else ("asr", "refusal_rate")
    subsets = tuple(s for s in settings.benchmark.subsets or metrics if metrics[s] in read)
    if not subsets:
        return None
    try:
        named = models.resolve(config.ModelSettings(path=judge.path, base=judge.base))
    except errors.UserError as e:
        raise errors.UserError(f"{where}: {e}") from e
    sizes = named.config if named.outline is not None else llama_config.LlamaConfig(named.config.text)
    guard = guards.GUARDS.get(judge.kind)
    asked = dataclasses.replace(
        settings,
        precision=config.EvalPrecisionSettings(judge.compute),
        benchmark=dataclasses.replace(settings.benchmark, subsets=subsets, pictures="none"),
        decode=config.DecodeSettings(max_new_tokens=guard.max_new if guard else 1, batch_size=judge.batch_size),
    )
    tokens = work.assumptions()["evaluation"]["judge_prompt"]
    return evaluation.evaluate(asked, sizes, found.topology, name=named.name, text_prompt=tokens)


def _longer(hours: Mapping[str, flops.Number], spent: flops.Number) -> dict[str, flops.Number]:
    return {**hours, "judge": spent, "total": hours["total"] + spent}


def _dollars(found: estimate.Estimate, hours: Mapping[str, flops.Number]) -> flops.Number | None:
    return None if found.price is None else found.price.dollars * found.topology.chips * hours["total"]


def _told(name: str, one: estimate.Estimate) -> str:
    verdict = "" if one.fits else ", which does NOT FIT"
    return (
        f"judge {name}: {one.model}, {one.per_chip['weights_gib']:.2f} GiB of weights a chip,"
        f" {one.per_chip['peak_gib']:.2f} at most{verdict}; {one.step['prompts']:,} prompts of"
        f" {one.step['prompt']:,} tokens (assumed), by formula"
    )

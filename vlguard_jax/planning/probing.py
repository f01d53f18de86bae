"""What the probes of a training take (training/probe.py): time and memory of evaluations in the midst of it, by
formula."""

from __future__ import annotations

import dataclasses

from vlguard_jax import config
from vlguard_jax.families import family
from vlguard_jax.planning import answering
from vlguard_jax.planning import estimate
from vlguard_jax.planning import evaluation
from vlguard_jax.planning import flops
from vlguard_jax.planning import memory
from vlguard_jax.planning import roofline
from vlguard_jax.planning import traffic
from vlguard_jax.planning import work
from vlguard_jax.training import probe

STATE = ("weights", "moments", "frozen", "reference")  # kinds of memory that stay while answers are made
READINGS = 2  # of the trained parameters: for the copy, and for the hash that names them


def count(settings: config.ProbeSettings, updates: int) -> int:
    """Probes of a run of so many updates."""
    if not settings.every:
        return 0
    on_the_way = updates // settings.every
    at_end = settings.at_end and updates % settings.every != 0
    return settings.at_start + on_the_way + at_end


def added(found: estimate.Estimate, settings: config.TrainConfig, model: family.Config) -> estimate.Estimate:
    """The plan of a training, with its probes."""
    configs = list(probe.evaluations(settings).values())
    if not configs:
        return found
    plans = [evaluation.evaluate(one, model, found.topology) for one in configs]
    answers = [one.answers for one in plans if one.answers is not None]
    questions = [int(one.step["prompts"]) for one in plans]
    busy = sum(n / one.answers_per_second for n, one in zip(questions, answers, strict=True))
    each = busy + _copy(found, settings, model)
    number = count(settings.probe, found.steps)
    compiling = work.assumptions()["time"]["compile_seconds"] / 2  # no backward pass
    hours = dict(found.hours)
    total = hours.pop("total")
    hours["probe"] = (number * each + compiling) / 3600
    hours["total"] = total + hours["probe"]
    per_chip = _memory(found, settings, model, max(one.per_chip["peak_gib"] for one in plans))
    return dataclasses.replace(
        found,
        per_chip=per_chip,
        fits=found.fits and estimate.fits(per_chip, found.topology.chip),
        hours=hours,
        dollars=None if found.price is None else found.price.dollars * found.topology.chips * hours["total"],
        probes=estimate.Probes(number, sum(questions), each, answering.mean(settings.probe.decode)),
    )


def _memory(
    found: estimate.Estimate, settings: config.TrainConfig, model: family.Config, answering_gib: flops.Number
) -> dict[str, flops.Number]:
    """GiB of a chip by kind; a probe can be the peak."""
    state = sum(found.per_chip.get(f"{kind}_gib", 0.0) for kind in STATE)
    shared = 0.0
    if settings.precision.frozen == settings.precision.compute:  # the tower is not copied
        shared = flops.sizes(model).tower * traffic.BYTES[settings.precision.compute] / memory.GIB
    size = state + answering_gib - shared * found.topology.chip.devices
    return {**found.per_chip, "probe_gib": size, "peak_gib": max(found.per_chip["peak_gib"], size)}


def _copy(found: estimate.Estimate, settings: config.TrainConfig, model: family.Config) -> flops.Number:
    """Seconds until the engine has its copy of the decoder."""
    sizes, width = flops.sizes(model, estimate.lora_of(settings)), traffic.BYTES
    stored = width[settings.precision.frozen if settings.lora.rank else settings.precision.params]
    moved = sizes.text * (READINGS * stored + width[settings.precision.compute])
    own = moved / (found.mesh.fsdp * found.mesh.tensor)
    return own * found.topology.chip.devices / (found.topology.chip.hbm_gbps * 1e9 * roofline.constants().hbm)

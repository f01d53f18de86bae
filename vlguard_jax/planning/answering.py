"""How many answers a chip can make at a time, and how long answers take in slots that are refilled as they end."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
import dataclasses

from vlguard_jax import config
from vlguard_jax.generation import lengths
from vlguard_jax.generation import memory as engine_memory
from vlguard_jax.planning import chips
from vlguard_jax.planning import flops
from vlguard_jax.planning import traffic
from vlguard_jax.planning import work

GIB = 2.0**30


@dataclasses.dataclass(frozen=True)
class Answers:
    """What is expected of an evaluation besides its worst case. slots_fit: answers at a time for which there is memory,
    over all devices. new: tokens of a mean answer; steps: of decoding. answers_per_second, tokens_per_second: of the
    time that prompts are read and answered; hours, dollars: of the whole evaluation. fuller: the settings with all
    slots that fit and can be filled, and their answers a second, by formula; None where these are no more."""

    slots_fit: int
    new: int
    steps: int
    answers_per_second: float
    tokens_per_second: float
    hours: Mapping[str, flops.Number]
    dollars: float | None
    fuller: tuple[config.DecodeSettings, float] | None = None

    def as_json(self) -> dict[str, object]:
        """The JSON values for `--json`."""
        return {
            "slots_fit": self.slots_fit,
            "answers_per_second": self.answers_per_second,
            "tokens_per_second": self.tokens_per_second,
            "expected": {
                "new": self.new,
                "steps": self.steps,
                "hours": self.hours["total"],
                "dollars": self.dollars,
            },
        }


def mean(settings: config.DecodeSettings) -> int:
    """New tokens of a mean answer: what assumptions.toml says, within the settings' limits."""
    return max(settings.min_new_tokens, min(work.assumptions()["evaluation"]["new_tokens"], settings.max_new_tokens))


def steps(prompts: int, slots: int, new: flops.Number, longest: flops.Number) -> float:
    """Steps of decoding until the last answer ends, with `new` tokens in the mean.

    A slot is given its next prompt when its answer ends, so `slots` begin every `new` steps; the last one that begins
    may be one of the longest. This is new * prompts / slots + (longest - new), within R. L. Graham's bound for jobs on
    equal machines (1969: total / machines + longest).
    """
    return max(0, prompts - slots) / slots * new + longest


def fuller(settings: config.DecodeSettings, slots: int, prompt: int, shards: int) -> config.DecodeSettings:
    """The settings with `slots` slots in use, or fewer by less than `shards`; for prompts longer than FULL_LENGTH,
    batch_size is a multiple of them."""
    each, factor = slots // shards, 1
    while lengths.slots(each * factor, prompt) < each:
        factor *= 2
    return dataclasses.replace(settings, batch_size=each * factor * shards)


def slots_fit(
    topology: chips.Topology,
    shape: traffic.Mesh,
    one: flops.Number,
    slots: int,
    kinds: Sequence[Mapping[str, flops.Number]],
) -> int:
    """Slots over all devices for which there is memory, as the engine counts before its first prompt, and not more than
    the programs leave. one: bytes of a slot's cache on a device; kinds: GiB a chip by kind of each program with `slots`
    slots."""
    of_device, cache = GIB / topology.chip.devices, one * slots / shape.row_shards

    def stays(kind: Mapping[str, flops.Number]) -> flops.Number:
        """Weights, and what is cached besides the slots."""
        return kind.get("weights_gib", 0.0) * of_device + max(kind.get("cache_gib", 0.0) * of_device - cache, 0.0)

    needed = max(kind["peak_gib"] * of_device - stays(kind) - cache for kind in kinds)
    usable = topology.chip.usable_gib * of_device
    return engine_memory.fitting(usable, max(map(stays, kinds)), one, needed) * shape.row_shards

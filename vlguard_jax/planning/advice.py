"""What to change where a run does not fit, the cheapest slice for a deadline, and where more chips stop helping."""

from __future__ import annotations

from collections.abc import Callable, Iterator
import dataclasses
import math
from typing import Any

from vlguard_jax import config
from vlguard_jax import errors
from vlguard_jax.planning import chips
from vlguard_jax.planning import estimate

Settings = config.TrainConfig | config.EvalConfig
Planner = Callable[[Settings, chips.Topology], estimate.Estimate]
LARGEST = 256  # number of chips in a sweep
SHORT_ROW = 4096


@dataclasses.dataclass(frozen=True)
class Option:
    """A change and its effect. change: flags as typed. same: whether the trained model is the same up to rounding."""

    change: str
    same: bool
    settings: Settings
    plan: estimate.Estimate

    def as_json(self) -> dict[str, Any]:
        """The JSON values for `--json`."""
        return {"change": self.change, "same_result": self.same, **brief(self.plan)}


def brief(plan: estimate.Estimate) -> dict[str, Any]:
    """A plan's main figures, as JSON values."""
    return {
        "topology": plan.topology.name,
        "chips": plan.topology.chips,
        "fits": plan.fits,
        "peak_gib": plan.per_chip["peak_gib"],
        "hours": plan.hours["total"],
        "dollars": plan.dollars,
        "stops_scaling": plan.stops,
    }


def options(settings: Settings, topology: chips.Topology, planner: Planner) -> list[Option]:
    """Changes that lower the memory of a chip: first those that fit, then those that keep the result, then by cost."""
    answers = planner(settings, topology).answers if isinstance(settings, config.EvalConfig) else None
    found = []
    for change, same, changed, place in _changes(settings, topology, answers.slots_fit if answers else 0):
        try:
            found.append(Option(change, same, changed, planner(changed, place)))
        except errors.UserError:  # a mesh that does not fit the larger slice, or rows that its shards do not divide
            continue
    return sorted(found, key=lambda option: (not option.plan.fits, not option.same, _cost(option.plan)))


def confirmed(found: list[Option], planner: Planner, most: int = 2) -> list[Option]:
    """`found` (by formula), where the first options that fit are planned again by `planner`, which compiles, until one
    is confirmed to fit; at most `most` tries."""
    checked = list(found)
    for i, option in enumerate(found[:most]):
        if not option.plan.fits:
            break
        checked[i] = dataclasses.replace(option, plan=planner(option.settings, option.plan.topology))
        if checked[i].plan.fits:
            break
    return sorted(checked, key=lambda option: (not option.plan.fits, not option.same))


def _cost(plan: estimate.Estimate) -> float:
    return plan.dollars if plan.dollars is not None else plan.hours["total"] * plan.topology.chips


def _changes(
    settings: Settings, topology: chips.Topology, most: int
) -> Iterator[tuple[str, bool, Settings, chips.Topology]]:
    """(flags, whether the result is the same, settings, topology). most: slots of an evaluation that fit."""
    here = topology
    if isinstance(settings, config.TrainConfig):
        yield from ((change, same, changed, here) for change, same, changed in _training(settings, topology))
    else:
        decode = settings.decode
        for size in {most, decode.batch_size // 2, decode.batch_size // 4}:
            if 0 < size < decode.batch_size:
                changed = dataclasses.replace(settings, decode=dataclasses.replace(decode, batch_size=size))
                yield f"--config.decode.batch_size={size}", True, changed, here
        if settings.mesh.fsdp == settings.mesh.tensor == 1 and topology.devices > 1:
            for axis in ("tensor", "fsdp"):
                mesh = dataclasses.replace(config.MeshSettings(data=1, fsdp=1, tensor=1), **{axis: topology.devices})
                flags = f"--config.mesh.data=1 --config.mesh.{axis}={topology.devices}"
                yield flags, True, dataclasses.replace(settings, mesh=mesh), here
    more = [shape for shape in chips.shapes(topology.chip) if math.prod(shape) * topology.slices > topology.chips]
    for shape in more[:3]:
        larger = dataclasses.replace(topology, shape=shape)
        yield f"--topology={larger.name}", True, settings, larger


def _training(settings: config.TrainConfig, topology: chips.Topology) -> Iterator[tuple[str, bool, config.TrainConfig]]:
    run, precision, data = settings.run, settings.precision, settings.data
    replace = dataclasses.replace
    steps: list[tuple[str, Callable[[config.TrainConfig], config.TrainConfig]]] = []
    if precision.frozen == "fp32":
        steps.append(
            ("--config.precision.frozen=bf16", lambda s: replace(s, precision=replace(precision, frozen="bf16")))
        )
    if run.remat != "full":
        steps.append(("--config.run.remat=full", lambda s: replace(s, run=replace(s.run, remat="full"))))
    fewest = topology.devices
    if data.batch_size % fewest == 0 and (run.rows == 0 or run.rows > fewest):
        steps.append((f"--config.run.rows={fewest}", lambda s: replace(s, run=replace(s.run, rows=fewest))))
    for text, change in steps:
        yield text, True, change(settings)
    together, flags = settings, " ".join(text for text, _ in steps)
    for _, change in steps:
        together = change(together)
    if len(steps) > 1:
        yield flags, True, together
    if data.mode == "pad":
        yield "--config.data.mode=pack", True, replace(settings, data=replace(data, mode="pack"))
    if data.max_row_len > SHORT_ROW:
        short = f"--config.data.mode=pack --config.data.max_row_len={SHORT_ROW}"
        yield short, True, replace(settings, data=replace(data, mode="pack", max_row_len=SHORT_ROW))
    if not settings.lora.rank:
        lora = config.LoraSettings(rank=128)
        yield "--config.lora.rank=128 (another experiment)", False, replace(settings, lora=lora)
        if flags:
            yield f"{flags} --config.lora.rank=128 (another experiment)", False, replace(together, lora=lora)


@dataclasses.dataclass(frozen=True)
class Sweep:
    """Plans of every usual slice, by cost. stops: for each chip, the size beyond which more chips do not help, and
    why."""

    plans: list[estimate.Estimate]
    stops: dict[str, tuple[str, str]]

    def cheapest(self, deadline: float) -> estimate.Estimate | None:
        """The cheapest plan that fits, has a price and takes at most `deadline` hours."""
        meeting = [
            plan for plan in self.plans if plan.fits and plan.dollars is not None and plan.hours["total"] <= deadline
        ]
        return min(meeting, key=_cost, default=None)

    def as_json(self, deadline: float) -> dict[str, Any]:
        """The JSON values for `--json`."""
        best = self.cheapest(deadline)
        return {
            "deadline_hours": None if math.isinf(deadline) else deadline,
            "cheapest": brief(best) if best else None,
            "stops_scaling": {chip: {"topology": name, "why": why} for chip, (name, why) in self.stops.items()},
            "plans": [brief(plan) for plan in self.plans],
        }


def sweep(settings: Settings, planner: Planner, names: list[str] | None = None) -> Sweep:
    """Plan every usual slice of every chip (or of those named) up to `LARGEST` chips.

    Raises:
      UserError: the config is refused on all of them.
    """
    plans: list[estimate.Estimate] = []
    stops: dict[str, tuple[str, str]] = {}
    refused = None
    for chip in chips.known().values():
        if names and chip.name not in names:
            continue
        for shape in chips.shapes(chip):
            topology = chips.Topology(chip, shape)
            if topology.chips > LARGEST:
                continue
            try:
                plan = planner(settings, topology)
            except errors.UserError as e:
                refused = e
                continue
            plans.append(plan)
            if plan.stops and chip.name not in stops:
                stops[chip.name] = (topology.name, plan.stops)
    if not plans:
        raise refused or errors.UserError("--sweep found no slice to look at")
    return Sweep(sorted(plans, key=lambda plan: (plan.dollars is None, _cost(plan))), stops)

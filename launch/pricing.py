"""What the jobs of a launch file would take and cost, by formula: `python -m vlguard_jax.plan --sweep FILE`."""

from __future__ import annotations

from collections.abc import Sequence
import dataclasses
import functools
import pathlib
from typing import Any

from rich import console as rich_console
from rich import table as rich_table

from launch import configs
from launch import jobs as jobs_lib
from launch import spec as spec_lib
from vlguard_jax import config as settings_lib
from vlguard_jax import errors
from vlguard_jax.planning import chips
from vlguard_jax.planning import estimate
from vlguard_jax.planning import prices
from vlguard_jax.planning import run as run_lib


@dataclasses.dataclass(frozen=True)
class Part:
    """One command of a job. hours, dollars: expected; of a training one figure, of an evaluation for answers of the
    mean length, and `most_hours`, `most_dollars` for the longest allowed. dollars: None without a price."""

    run: str
    workdir: str
    fits: bool
    hours: float
    most_hours: float
    dollars: float | None
    most_dollars: float | None


@dataclasses.dataclass(frozen=True)
class Priced:
    """One job, with what counts of its commands: those that train and evaluate."""

    name: str
    arm: str
    topology: chips.Topology
    parts: tuple[Part, ...]
    notes: tuple[str, ...]

    @property
    def fits(self) -> bool:
        """Whether every command does."""
        return all(part.fits for part in self.parts)

    def hours(self, *runs: str) -> float:
        """Expected, of all commands or of those of these names."""
        return sum(part.hours for part in self.parts if not runs or part.run in runs)

    @property
    def most_hours(self) -> float:
        """With answers of the longest length."""
        return sum(part.most_hours for part in self.parts)

    @property
    def dollars(self) -> float | None:
        """Expected; None without a price."""
        return _sum([part.dollars for part in self.parts])

    @property
    def most_dollars(self) -> float | None:
        """With answers of the longest length; None without a price."""
        return _sum([part.most_dollars for part in self.parts])


def price(path: pathlib.Path, topology: str = "", dollars: float | None = None) -> list[Priced]:
    """Plan every job of a launch file.

    Args:
      path: the file.
      topology: in place of every job's accelerator.
      dollars: per chip and hour, in place of the table's.

    Raises:
      UserError: as `jobs.prepare` for the file and its configs; a command would be refused on its accelerator.
    """
    found = []
    planned = functools.lru_cache(maxsize=None)(functools.partial(_planned, dollars))
    for job in spec_lib.jobs(spec_lib.read(path)):
        place = (
            chips.parse(topology) if topology else dataclasses.replace(job.accelerator.slice, slices=job.spec.slices)
        )
        found.append(_priced(job, place, planned))
    return found


def run(path: pathlib.Path, topology: str, dollars: float | None, console: rich_console.Console) -> dict[str, Any]:
    """Print what `price` finds; returns it as JSON values."""
    found = price(path, topology, dollars)
    show(found, console)
    return as_json(found)


def _priced(job: spec_lib.Job, place: chips.Topology, planned: Any) -> Priced:
    parts: list[Part] = []
    notes: dict[str, None] = {}
    trained: settings_lib.TrainConfig | None = None
    for step, (name, *arguments) in zip(job.spec.steps, job.commands, strict=True):
        try:
            settings = configs.settings(name, step, arguments)
            if isinstance(settings, settings_lib.TrainConfig):
                trained = settings
            if settings is None:
                continue
            made = planned(_Same(_alike(settings, job.folder, trained)), place)
        except errors.UserError as e:
            raise errors.UserError(f"job {job.name}, {step.run}: {e}") from e
        expected = made.answers or made
        parts.append(
            Part(
                name,
                step.workdir or name,
                made.fits,
                expected.hours["total"],
                made.hours["total"],
                expected.dollars,
                made.dollars,
            )
        )
        notes |= dict.fromkeys(made.notes)
        if made.price:
            notes[_charged(made.price, job.spec.spot)] = None
    return Priced(job.name, jobs_lib.label(job) or job.name, place, tuple(parts), tuple(notes))


def _charged(price: prices.Price, spot: bool) -> str:
    """What the dollars are."""
    if price.source == prices.OVERRIDE:
        return f"dollars: ${price.dollars:g} a chip and hour, as --price says"
    beside = "; the jobs are of spot machines, whose price --price takes" if spot else ""
    return f"dollars: on demand ({price.source}){beside}"


class _Same:
    """Settings that are equal where they read alike: seeds of an arm are planned once."""

    def __init__(self, settings: configs.Settings):
        self.settings = settings

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Same) and repr(self.settings) == repr(other.settings)

    def __hash__(self) -> int:
        return hash(repr(self.settings))


def _planned(dollars: float | None, same: _Same, place: chips.Topology) -> estimate.Estimate:
    return run_lib.planner(same.settings, price=dollars)(same.settings, place)


def _alike(settings: configs.Settings, folder: str, trained: settings_lib.TrainConfig | None) -> configs.Settings:
    """The settings without what changes no figure. A model that the job trains is planned by what it starts from."""
    if isinstance(settings, settings_lib.TrainConfig):
        sources = {k: dataclasses.replace(one, sample_seed=0) for k, one in settings.data.sources.items()}
        return dataclasses.replace(settings, seed=0, data=dataclasses.replace(settings.data, sources=sources))
    model = settings.model
    if model.path.startswith(f"{folder}/"):
        if trained is None:
            raise errors.UserError(f"{errors.short(model.path)} is in the job's folder, and no earlier step trains")
        of = trained.model
        model = dataclasses.replace(
            model, path=of.path, base=of.base, projector=of.projector, vision_tower=of.vision_tower, family=of.family
        )
    return dataclasses.replace(settings, seed=0, model=model, model_name="", paper_row="")


def _sum(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) if len(known) == len(values) else None


def as_json(found: Sequence[Priced]) -> dict[str, Any]:
    """The JSON values for `--json`: every job with its commands, and the sums."""
    return {
        "fits": all(one.fits for one in found),
        "chip_hours": sum(one.topology.chips * one.hours() for one in found),
        "dollars": _sum([one.dollars for one in found]),
        "most_dollars": _sum([one.most_dollars for one in found]),
        "arms": [
            {
                "arm": arm,
                "jobs": len(same),
                "topology": same[0].topology.name,
                "fits": all(one.fits for one in same),
                "hours": sum(one.hours() for one in same),
                "dollars": _sum([one.dollars for one in same]),
            }
            for arm, same in _by_arm(found).items()
        ],
        "jobs": [
            {
                "job": one.name,
                "arm": one.arm,
                "topology": one.topology.name,
                "chips": one.topology.chips,
                "fits": one.fits,
                "hours": one.hours(),
                "most_hours": one.most_hours,
                "dollars": one.dollars,
                "most_dollars": one.most_dollars,
                "commands": [dataclasses.asdict(part) for part in one.parts],
            }
            for one in found
        ],
        "notes": _notes(found),
    }


def _by_arm(found: Sequence[Priced]) -> dict[str, list[Priced]]:
    arms: dict[str, list[Priced]] = {}
    for one in found:
        arms.setdefault(one.arm, []).append(one)
    return arms


def _notes(found: Sequence[Priced]) -> list[str]:
    return list(dict.fromkeys(note for one in found for note in one.notes))


def show(found: Sequence[Priced], console: rich_console.Console) -> None:
    """A line an arm, all of its seeds together, and the sum."""
    table = rich_table.Table(title=f"{len(found)} jobs, by formula", show_footer=True)
    arms = _by_arm(found)
    lines = [
        (
            arm,
            str(len(same)),
            f"{same[0].topology.name}{'' if all(one.fits for one in same) else ', DOES NOT FIT'}",
            f"{sum(one.hours('train') for one in same):.1f}",
            f"{sum(one.hours('evaluate') for one in same):.1f}",
            f"{sum(one.hours() * one.topology.chips for one in same):,.0f}",
            _money(_sum([one.dollars for one in same])),
            _money(_sum([one.most_dollars for one in same])),
        )
        for arm, same in arms.items()
    ]
    sums = (
        "all",
        str(len(found)),
        "",
        f"{sum(one.hours('train') for one in found):.1f}",
        f"{sum(one.hours('evaluate') for one in found):.1f}",
        f"{sum(one.hours() * one.topology.chips for one in found):,.0f}",
        _money(_sum([one.dollars for one in found])),
        _money(_sum([one.most_dollars for one in found])),
    )
    headings = ("arm", "jobs", "each on", "hours to train", "to evaluate", "chip-hours", "$", "$ at most")
    for heading, total in zip(headings, sums, strict=True):
        table.add_column(heading, total, justify="left" if heading in ("arm", "each on") else "right", overflow="fold")
    for line in lines:
        table.add_row(*line)
    console.print(table)
    console.print("hours of all jobs of a line; jobs can run beside each other: " + _longest(found))
    for note in _notes(found):
        console.print(f"- {note}")


def _longest(found: Sequence[Priced]) -> str:
    longest = max(found, key=lambda one: one.hours())
    return f"the longest, {longest.name}, takes {longest.hours():.1f}"


def _money(dollars: float | None) -> str:
    return "no price" if dollars is None else f"{dollars:,.2f}"

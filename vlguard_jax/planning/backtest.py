"""The estimate against published runs (published.toml): the fit of its constants, and its error on each run that is
left out of the fit."""

from __future__ import annotations

from collections.abc import Sequence
import dataclasses
import functools
import itertools
import math
import pathlib
import statistics
import tomllib
from typing import Any

from vlguard_jax.families.blocks import configs
from vlguard_jax.families.llama import config as llama_config
from vlguard_jax.planning import chips
from vlguard_jax.planning import flops
from vlguard_jax.planning import roofline
from vlguard_jax.planning import traffic

TABLE = pathlib.Path(__file__).with_name("published.toml")
# Values tried in the fit. Links and HBM are assumed: no published run depends on them enough to fit them.
ATTENTION = tuple(round(0.2 + 0.1 * i, 1) for i in range(9))
NETWORK = ATTENTION
LINKS, HBM = 0.8, 0.8
WITHIN = 0.25


@dataclasses.dataclass(frozen=True)
class Run:
    """A published run; seconds of a step, as published or computed from the published rate."""

    name: str
    topology: chips.Topology
    work: flops.Flops
    model_flops: float
    moved: traffic.Traffic
    seconds: float
    fitted: bool
    source: str

    @property
    def mfu(self) -> float:
        """MFU by our count of operations (causal attention, nothing recomputed)."""
        return self.model_flops / (self.seconds * self.topology.chips * self.topology.chip.flops)


@dataclasses.dataclass(frozen=True)
class Result:
    """Predictions of a run: with the constants in use, with those of a fit without the run, and without any run on its
    chip. Errors are fractions of the published time."""

    run: Run
    predicted: float
    left_out: float
    new_chip: float

    @property
    def error(self) -> float:
        """Error of the prediction in use."""
        return self.predicted / self.run.seconds - 1

    @property
    def left_out_error(self) -> float:
        """Error of the prediction fitted without the run."""
        return self.left_out / self.run.seconds - 1

    @property
    def new_chip_error(self) -> float:
        """Error of the prediction fitted without the chip."""
        return self.new_chip / self.run.seconds - 1


@functools.cache
def runs() -> tuple[Run, ...]:
    """All published runs."""
    with TABLE.open("rb") as file:
        table = tomllib.load(file)
    return tuple(_run(entry, table["models"][entry["model"]]) for entry in table["run"])


def _run(entry: dict, size: dict) -> Run:
    text = configs.TextConfig(
        vocab_size=size["vocab"],
        width=size["width"],
        num_layers=size["layers"],
        num_heads=size["heads"],
        num_kv_heads=size["kv_heads"],
        head_width=size["head_width"],
        mlp_width=size["mlp_width"],
        norm_eps=1e-5,
        rope_theta=1e4,
    )
    model = llama_config.LlamaConfig(text)
    rank = entry.get("lora_rank", 0)
    lora = configs.LoraConfig(rank, 2.0 * rank, 0.0) if rank else None
    topology = chips.parse(entry["topology"])
    if "network_gbps" in entry:
        topology = dataclasses.replace(
            topology, chip=dataclasses.replace(topology.chip, dcn_gbps=entry["network_gbps"])
        )
    data, tensor = entry.get("data", 1), entry.get("tensor", 1)
    shape = traffic.Mesh(data, topology.devices // data // tensor, tensor)
    sequences = entry["rows"] * topology.chips
    tokens, squares = float(sequences * entry["length"]), float(sequences * entry["length"] ** 2)
    remat = flops.policy(entry["remat"])
    needed = flops.training(model, lora, tokens, squares, 0)
    sizes = flops.sizes(model, lora)
    load = traffic.Load(sizes, rank > 0, tokens / shape.row_shards, entry.get("micro", 1), 2, 4)
    return Run(
        name=entry["name"],
        topology=topology,
        work=needed + flops.recomputed(model, lora, remat, tokens, squares),
        model_flops=needed.total,
        moved=traffic.training(text, load, shape, topology, remat),
        seconds=_seconds(entry, text, sizes, tokens, topology.chips),
        fitted=entry.get("fitted", True),
        source=entry["source"],
    )


def _seconds(entry: dict, text: configs.TextConfig, sizes: flops.Sizes, tokens: float, count: int) -> float:
    if "seconds" in entry:
        return float(entry["seconds"])
    if "tokens" in entry:
        return tokens / count / entry["tokens"]
    whole_attention = 12.0 * entry["length"] * text.num_heads * text.head_width * text.num_layers
    counted = tokens * (6.0 * (sizes.layer * sizes.layers + sizes.head) + whole_attention)
    return counted / count / (entry["tflops"] * 1e12)


def fit(known: Sequence[Run]) -> roofline.Constants:
    """The constants with the least mean error (of logarithms) over `known`."""
    found = []
    for attention, network in itertools.product(ATTENTION, NETWORK):
        matmul: dict[str, float] = {}
        for name in sorted({run.topology.chip.name for run in known}):
            shares = [_share(run, attention, network) for run in known if run.topology.chip.name == name]
            matmul[name] = math.exp(statistics.fmean(map(math.log, shares)))
        constants = roofline.Constants(matmul, attention, network, LINKS, HBM)
        found.append(
            (statistics.fmean(math.log(predict(run, constants) / run.seconds) ** 2 for run in known), constants)
        )
    return min(found, key=lambda pair: pair[0])[1]


def _share(run: Run, attention: float, network: float) -> float:
    """The share of the data sheet's rate for products at which the run would take exactly its published time, all else
    fixed."""
    name = run.topology.chip.name
    ideal = roofline.Constants({name: 1.0}, attention, network, LINKS, HBM)
    at_peak = roofline.seconds(run.work, run.moved, run.topology, ideal)
    products = at_peak.compute + run.work.attention / (run.topology.chips * run.topology.chip.flops) * (
        1 / attention - 1
    )
    fixed = at_peak.update + at_peak.network / network
    return min(1.0, products / max(run.seconds - fixed, products))


def predict(run: Run, constants: roofline.Constants | None = None) -> float:
    """Seconds of a step."""
    return roofline.seconds(run.work, run.moved, run.topology, constants).expected


def results() -> list[Result]:
    """Predictions of every run, with and without it in the fit."""
    fitted = [run for run in runs() if run.fitted]
    without = {
        name: fit([run for run in fitted if run.topology.chip.name != name])
        for name in {run.topology.chip.name for run in runs()}
    }
    found = []
    for run in runs():
        others = fit([other for other in fitted if other is not run])
        found.append(Result(run, predict(run), predict(run, others), predict(run, without[run.topology.chip.name])))
    return found


def summary(found: Sequence[Result]) -> list[str]:
    """The errors of all runs in words; runs marked * are listed separately."""
    fitted = [line for line in found if line.run.fitted]
    errors = {
        "fitted on all": [abs(line.error) for line in fitted],
        "the run left out of the fit": [abs(line.left_out_error) for line in fitted],
        "every run on its chip left out": [abs(line.new_chip_error) for line in fitted],
    }
    lines = [
        f"{name}: mean error {statistics.fmean(values):.1%}, largest {max(values):.1%},"
        f" {sum(e <= WITHIN for e in values)} of {len(values)} within {WITHIN:.0%}"
        for name, values in errors.items()
    ]
    return [*lines, "torchtitan's runs are not in the fit: a part with a power limit, so of unknown peak"]


def markdown(found: Sequence[Result]) -> str:
    """A page about all runs, for docs/backtest.md."""
    lines = [
        "# How well `plan --estimate` predicts published training runs",
        "",
        "Written by `python -m vlguard_jax.plan --backtest --markdown docs/backtest.md`. The constants (one share"
        " of the data sheet for",
        "each chip generation, one for attention, one for the network between hosts: `planning/efficiency.toml`)"
        " are fitted on these runs;",
        "*left out* is the error on a run when the fit does not see it, *new chip* when it sees no run on that"
        " generation.",
        "The form of the model (which times add up, that the network hides behind nothing) was chosen with these"
        " runs in view, and several",
        "of them resemble each other, so *left out* flatters; none has pictures, packed rows or this program in it.",
        "",
        "| run | MFU | published s | predicted s | error | left out | new chip | source |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: | --- |",
    ]
    for line in found:
        run = line.run
        name = run.name if run.fitted else f"{run.name} (not fitted)"
        errors = " | ".join(f"{value:+.1%}" for value in (line.error, line.left_out_error, line.new_chip_error))
        lines.append(f"| {name} | {run.mfu:.0%} | {run.seconds:.3f} | {line.predicted:.3f} | {errors} | {run.source} |")
    return "\n".join([*lines, "", *(f"- {text}" for text in summary(found))]) + "\n"


def as_json(found: Sequence[Result]) -> dict[str, Any]:
    """The JSON values for `--json`."""
    lines = [
        {
            "run": line.run.name,
            "topology": line.run.topology.name,
            "published_seconds": line.run.seconds,
            "predicted_seconds": line.predicted,
            "error": line.error,
            "left_out_error": line.left_out_error,
            "new_chip_error": line.new_chip_error,
            "fitted": line.run.fitted,
            "source": line.run.source,
        }
        for line in found
    ]
    return {"runs": lines, "summary": summary(found)}


def mfu_range(chip: str) -> tuple[float, float, list[str]] | None:
    """(lowest, highest, sources) MFU of the published runs on a chip, by our count; None where there is none."""
    same = [run for run in runs() if run.fitted and run.topology.chip.name == ("h100" if chip == "h200" else chip)]
    if not same:
        return None
    return (
        min(run.mfu for run in same),
        max(run.mfu for run in same),
        sorted({run.source.split(";")[0] for run in same}),
    )

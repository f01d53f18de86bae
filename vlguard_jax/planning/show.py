"""Plans for the terminal."""

from __future__ import annotations

from collections.abc import Sequence
import math

from rich import console as rich_console
from rich import table as rich_table

from vlguard_jax import progress
from vlguard_jax.generation import memory as engine_memory
from vlguard_jax.planning import advice
from vlguard_jax.planning import answering
from vlguard_jax.planning import backtest
from vlguard_jax.planning import estimate

SHOWN = 16  # slices of a sweep


def plan(found: estimate.Estimate, console: rich_console.Console) -> None:
    """One plan: memory, operations, time, price, and what was assumed."""
    chip = found.topology.chip
    verdict = "fits" if found.fits else "DOES NOT FIT"
    table = rich_table.Table(title=f"{found.kind} {found.model} on {found.topology.name}: {verdict}", show_header=False)
    table.add_column(justify="right")
    table.add_column(justify="left", overflow="fold")
    for name, text in (
        *_memory(found),
        *([*_training(found), *_bill(found)] if found.answers is None else _evaluation(found, found.answers)),
    ):
        table.add_row(name, text)
    console.print(table)
    if found.stops:
        console.print(f"more chips would not help: {found.stops}")
    for note in (f"{chip.name}: {chip.source}", *found.notes, *_assumed(found)):
        console.print(f"- {note}")


def _memory(found: estimate.Estimate) -> list[tuple[str, str]]:
    sizes = dict(found.per_chip)
    peak, writing, on_host, probing, judging = (
        sizes.pop(f"{name}_gib", 0.0) for name in ("peak", "export", "export_host", "probe", "judge")
    )
    lines = [
        (
            "chips",
            f"{found.topology.chips}; mesh data {found.mesh.data}, fsdp {found.mesh.fsdp}, tensor {found.mesh.tensor}",
        ),
        ("GiB a chip", f"{peak:.2f} of {found.topology.chip.usable_gib:g}"),
        (
            "of these",
            ", ".join(f"{name.removesuffix('_gib')} {size:.2f}" for name, size in sizes.items() if size >= 0.005),
        ),
    ]
    if writing:
        host = f"{on_host:.2f} of the {found.topology.chip.host_gib:g} that the first host has for each of its chips"
        lines.append(("GiB to write the model", f"{writing:.2f} a chip; {host}"))
    if probing:
        lines.append(
            ("GiB in a probe", f"{probing:.2f} a chip, with a copy of the decoder and the cache of the answers")
        )
    if judging:
        lines.append(("GiB while a judge reads", f"{judging:.2f} a chip, when the answers' model is gone from it"))
    return lines


def _training(found: estimate.Estimate) -> list[tuple[str, str]]:
    step, time, mfu = found.step, found.step_seconds, found.mfu
    shape = (
        f"{step['rows']:.0f} rows of up to {step['row_len']:,.0f} tokens in {step['micro_batches']:.0f} micro-batches"
    )
    published = (
        f"; published on this chip {mfu['published_low']:.0%} to {mfu['published_high']:.0%}"
        if "published_low" in mfu
        else ""
    )
    return [
        (
            "a step",
            f"{step['conversations']:.0f} conversations, {step['tokens']:,.0f} tokens,"
            f" {step['computed_tokens']:,.0f} computed; {shape}",
        ),
        (
            "model FLOPs a step",
            f"{found.flops_per_step:.3e}; computed, with padding and recomputation, {found.flops['computed']:.3e}",
        ),
        (
            "seconds a step",
            f"{time['expected']:.2f} ({time['low']:.2f} to {time['high']:.2f}); at the data sheet's rates compute"
            f" {time['compute']:.2f}, HBM {time['hbm']:.2f}, links {time['interconnect']:.2f}, network"
            f" {time['network']:.2f}",
        ),
        ("MFU", f"{mfu['expected']:.0%} ({mfu['low']:.0%} to {mfu['high']:.0%}){published}"),
    ]


def _evaluation(found: estimate.Estimate, answers: answering.Answers) -> list[tuple[str, str]]:
    step, time = found.step, found.step_seconds
    more = ""
    if answers.fuller:
        decode, speed = answers.fuller
        more = f"; --config.decode.batch_size={decode.batch_size}: {progress.few(speed)} answers/s expected"
    phases = [(name, 60 * value) for name, value in answers.hours.items() if name != "total"]
    minutes = ", ".join(f"{name} {value:.1f}" for name, value in phases)
    return [
        ("answers", f"to {step['prompts']:,} prompts of {step['prompt']} tokens"),
        ("at a time", f"{step['slots']:,}, in slots that are refilled as answers end"),
        (
            "that fit",
            f"{answers.slots_fit:,}, with {100 * engine_memory.KEPT:.0f} % of the memory or more left to the programs"
            + more,
        ),
        (
            "seconds",
            f"{time['prefill']:.2f} to read {step['together']} of them, {time['decode'] * 1000:.1f} ms for a token in"
            " every slot",
        ),
        (
            "expected",
            f"{progress.few(answers.answers_per_second)} answers/s, {progress.few(answers.tokens_per_second)} tokens/s",
        ),
        ("hours", f"{answers.hours['total']:.2f} for answers of {answers.new} tokens in the mean; minutes: {minutes}"),
        ("hours, at most", f"{found.hours['total']:.2f} for answers of {step['new']} tokens, the longest allowed"),
        ("cost", _cost(found)),
    ]


def _cost(found: estimate.Estimate) -> str:
    if found.price is None or found.dollars is None:
        return "no price known; --price=DOLLARS_PER_CHIP_HOUR"
    worst = f"${found.dollars:,.2f}"
    if found.answers and found.answers.dollars is not None:
        worst = f"${found.answers.dollars:,.2f}, at most {worst},"
    return f"{worst} at ${found.price.dollars:g} a chip-hour ({found.price.source})"


def _bill(found: estimate.Estimate) -> list[tuple[str, str]]:
    phases = ", ".join(f"{name} {60 * value:.1f}" for name, value in found.hours.items() if name != "total")
    lines = [("hours", f"{found.hours['total']:.2f} for {found.steps:,} steps; minutes: {phases}")]
    if probes := found.probes:
        lines.append(
            (
                "probes",
                f"{probes.count:,}, each {progress.few(probes.seconds)} s for {probes.questions:,} answers of"
                f" {probes.new} tokens in the mean",
            )
        )
    return [*lines, ("cost", _cost(found))]


def _assumed(found: estimate.Estimate) -> list[str]:
    lines = [
        "start-up, loading, compiling and saving take what planning/assumptions.toml says; waiting for the machines"
        " is not counted"
    ]
    if found.kind == "train":
        lines.append(
            "expected seconds: constants fitted on published runs of text models (--backtest); the high end allows"
            " for pictures"
        )
    return lines


def options(found: Sequence[advice.Option], console: rich_console.Console) -> None:
    """What could be changed, in the order given."""
    table = rich_table.Table(title="What to change")
    for heading in ("fits", "GiB a chip", "hours", "$", "change"):
        table.add_column(heading, justify="left" if heading in ("fits", "change") else "right", overflow="fold")
    for option in found:
        made = option.plan
        cost = f"{made.dollars:,.2f}" if made.dollars is not None else "-"
        table.add_row(
            "yes" if made.fits else "no",
            f"{made.per_chip['peak_gib']:.1f}",
            f"{made.hours['total']:.2f}",
            cost,
            option.change,
        )
    console.print(table)
    if not any(option.plan.fits for option in found):
        console.print("none of these fits; see --sweep for other chips")


def sweep(found: advice.Sweep, deadline: float, console: rich_console.Console) -> None:
    """The cheapest slices that fit, the one for the deadline, and where each chip stops helping."""
    fitting = [made for made in found.plans if made.fits]
    table = rich_table.Table(title=f"{len(fitting)} of {len(found.plans)} slices fit; the cheapest")
    for heading in ("slice", "GiB a chip", "hours", "$", "MFU"):
        table.add_column(heading, justify="left" if heading == "slice" else "right")
    for made in fitting[:SHOWN]:
        cost = f"{made.dollars:,.2f}" if made.dollars is not None else "no price"
        mfu = f"{made.mfu['expected']:.0%}" if "expected" in made.mfu else "-"
        table.add_row(made.topology.name, f"{made.per_chip['peak_gib']:.1f}", f"{made.hours['total']:.2f}", cost, mfu)
    console.print(table)
    best = found.cheapest(deadline)
    within = "" if math.isinf(deadline) else f" within {deadline:g} h"
    if best is None:
        fastest = min(fitting, key=lambda made: made.hours["total"], default=None)
        also = f"; the fastest is {fastest.topology.name} with {fastest.hours['total']:.2f} h" if fastest else ""
        console.print(f"no slice with a price {f'is done{within}' if within else 'fits'}{also}")
    else:
        console.print(f"cheapest{within}: {best.topology.name}, {best.hours['total']:.2f} h, ${best.dollars:,.2f}")
    for name, why in found.stops.values():
        console.print(f"stops scaling at {name}: {why}")


def backtests(found: Sequence[backtest.Result], console: rich_console.Console) -> None:
    """Every published run with its prediction, and a line about all of them."""
    table = rich_table.Table(title="Predicted against published step times")
    for heading in ("run", "published s", "predicted s", "error", "not fitted on it", "chip unknown"):
        table.add_column(heading, justify="left" if heading == "run" else "right")
    for line in found:
        name = line.run.name if line.run.fitted else f"{line.run.name} *"
        cells = (f"{line.error:+.1%}", f"{line.left_out_error:+.1%}", f"{line.new_chip_error:+.1%}")
        table.add_row(name, f"{line.run.seconds:.3f}", f"{line.predicted:.3f}", *cells)
    console.print(table)
    for text in backtest.summary(found):
        console.print(text)

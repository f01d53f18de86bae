"""Our train step against PyTorch's, on the same weights and conversations, in one run on one machine.

  GLIBC_TUNABLES=glibc.malloc.hugetlb=1 python benchmarks/train_step.py --size 110m --steps 3

On a CPU the variable has malloc take huge pages, for both sides: XLA asks for the buffers of a step anew each time, and without it a share
of the step goes into clearing small ones.
The reference is transformers' LlavaForConditionalGeneration with the weights of our llava-hf folder. Both sides take turns of two steps on
one batch, so that a machine whose speed drifts is fair to both. The second counts, which finds the memory of the first, as in training; the
first compiles, or finds caches and pages taken by the other side. Medians over the pairs are shown. Cases: `padded` (equal batches, equal
lengths; the reference with gradient checkpointing, as its scripts train), `padded_kept` (the same without), `packed` (the same
conversations: ours in packed rows, the reference in its sampler's order, micro-batches padded to their longest, without gradient
checkpointing). Our side keeps what `--remat` says, by default the outputs of matrix products at the small sizes and layer inputs at 7b and
13b. fp32 on CPU, else bf16. Every step's loss must agree, otherwise the exit code is 1. Prints one table, or with --json one JSON object.
Needs `pip install torch transformers`.
"""

from __future__ import annotations

from collections.abc import Callable
import contextlib
import dataclasses
import json
import os
import pathlib
import statistics
import sys
import tempfile
import time
from typing import Any

from absl import flags

from vlguard_jax import cli
from vlguard_jax import config
from vlguard_jax import errors

CASES = ("padded", "padded_kept", "packed")
_JSON = flags.DEFINE_boolean("json", False, "print one JSON object in place of the table", allow_override=True)
_SIZE = flags.DEFINE_list("size", ["110m"], "tiny, 110m, 7b or 13b; several, comma-separated")
_STEPS = flags.DEFINE_integer("steps", 3, "pairs of turns that count, in each case", lower_bound=1)
_CASES = flags.DEFINE_list("cases", list(CASES), f"of {', '.join(CASES)}")
_LORA = flags.DEFINE_boolean("lora", False, "adapters of rank 128 in place of full fine-tuning")
_BOUND = flags.DEFINE_float("loss_bound", None, "largest relative difference of a loss; default 1e-3 in fp32, 2e-2 in bf16")
_ROWS = flags.DEFINE_integer("rows", 0, "config.run.rows of the packed case", lower_bound=0)
_ROW_LEN = flags.DEFINE_integer("row_len", 0, "config.data.max_row_len of the packed case; 0: the size's", lower_bound=0)
_UNROLL = flags.DEFINE_integer("unroll", 1, "config.run.unroll", lower_bound=1)
_REMAT = flags.DEFINE_enum("remat", "", ["", "full", "offload", "minimal", "none"], "config.run.remat; empty: the size's")
_CHUNK = flags.DEFINE_integer("loss_chunk", 256, "config.run.loss_chunk", lower_bound=1)

BARS = {"padded": 1.2, "packed": 1.15}  # at 110m, fp32, two idle CPU cores
RANK = 128
RATE = 1e-4
REST = 0.2  # seconds between turns: the other side's threads go to sleep

Figures = dict[str, Any]


def main(positional: list[str]) -> int:
    """Measure every size and case, print, judge the losses."""
    if positional:
        raise errors.UserError("train_step.py takes --size, --steps, --cases, --lora, --loss_bound, --json and more; see --help")
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")  # the other side needs memory, too
    try:
        from benchmarks import torch_side  # noqa: F401
        from benchmarks import train_cases
    except ImportError as e:
        raise errors.UserError(f"{e}; the reference needs PyTorch: pip install torch transformers") from e
    for kind, names, known in (("size", _SIZE.value, train_cases.SIZES), ("cases", _CASES.value, CASES)):
        for name in names:
            if name not in known:
                raise errors.UserError(f"--{kind}={name} is unknown{errors.nearest(name, known)}")
    with contextlib.redirect_stdout(sys.stderr):
        found = measure()
    print(json.dumps(found) if _JSON.value else table(found))
    return errors.EXIT_OK if found["losses_agree"] else 1


def measure() -> Figures:
    """All figures."""
    import jax

    from benchmarks import torch_side
    from benchmarks import train_cases

    device = "cpu" if jax.default_backend() == "cpu" else "cuda"
    peak = max(gemm_tflops(2048 if device == "cpu" else 8192), torch_side.gemm_tflops(2048 if device == "cpu" else 8192, device))
    sheet = data_sheet(jax.devices()[0].device_kind)
    bound = _BOUND.value if _BOUND.value is not None else 1e-3 if device == "cpu" else 2e-2
    lines = []
    for name in _SIZE.value:
        size = train_cases.SIZES[name]
        if _ROW_LEN.value:
            size = dataclasses.replace(size, row_len=_ROW_LEN.value)
        for case in _CASES.value:
            with tempfile.TemporaryDirectory() as folder:
                lines.append({"size": name, "case": case} | measure_case(size, case, pathlib.Path(folder) / "model", device))
            for side in ("ours", "torch"):
                lines[-1][side]["mfu_measured_peak"] = lines[-1][side]["tflops"] / peak
                lines[-1][side]["mfu_data_sheet"] = lines[-1][side]["tflops"] / sheet if sheet else None
    absent = torch_side.missing(device)
    return {
        "device": jax.devices()[0].device_kind,
        "precision": "fp32" if device == "cpu" else "bf16",
        "lora": _LORA.value,
        "pairs": _STEPS.value,
        "unroll": _UNROLL.value,
        "malloc": os.environ.get("GLIBC_TUNABLES", ""),
        "ratio_vs_torch": by_size(lines, "padded", lambda line: line["ratio"]),
        "ratio_vs_torch_kept": by_size(lines, "padded_kept", lambda line: line["ratio"]),
        "ratio_vs_torch_packed": by_size(lines, "packed", lambda line: line["ratio"]),
        "mfu": {
            kind: by_size(lines, "padded", lambda line, kind=kind: line["ours"][f"mfu_{kind}"]) for kind in ("data_sheet", "measured_peak")
        },
        "gemm_tflops": peak,
        "data_sheet_tflops": sheet,
        "bars": BARS,
        "reference_lacks": absent,
        "reference_at_its_best": not absent,
        "loss_bound": bound,
        "loss_difference": max(line["loss_difference"] for line in lines),
        "losses_agree": all(line["loss_difference"] <= bound for line in lines),
        "cases": lines,
    }


def by_size(lines: list[Figures], case: str, value: Any) -> dict[str, Any]:
    """{size: value} of one case."""
    return {line["size"]: value(line) for line in lines if line["case"] == case}


def measure_case(size: Any, case: str, folder: pathlib.Path, device: str) -> Figures:
    """Both sides in turns; the first pair does not count."""
    import jax

    from benchmarks import torch_side
    from benchmarks import train_cases
    from vlguard_jax.models import config as model_config
    from vlguard_jax.planning import flops
    from vlguard_jax.training import feed
    from vlguard_jax.training import optimizer
    from vlguard_jax.training import setup

    lora = model_config.LoraConfig(RANK, 2.0 * RANK, 0.0) if _LORA.value else None
    train_cases.write_model(size, folder)
    turns_in_all, wanted = _STEPS.value + 1, settings(size, case, device, folder)
    updates = 2 * turns_in_all
    packed = case == "packed"
    steps = train_cases.packed(size, turns_in_all, wanted.data, _ROWS.value) if packed else train_cases.padded(size, turns_in_all)
    program = setup.build_program(wanted, setup.load_model(wanted), updates)
    reference = torch_side.Trainer(folder, size.model, lora, device=device, checkpointing=case == "padded")
    factor = optimizer.cosine_factor(updates, wanted.optimizer.warmup_ratio)
    ours_bytes = sum(x.nbytes for x in jax.tree.leaves((program.state, program.frozen)))
    state, turns = program.state, []
    for number, step in enumerate(steps):
        batch = feed.to_device(step.ours, program.mesh)
        batches = [reference.put(b) for b in step.reference]

        def ours(update: int, batch: Any = batch) -> float:
            nonlocal state
            state, metrics = program.step(state, program.frozen, program.reference, batch)
            jax.block_until_ready(state)
            return float(metrics["loss"])

        def theirs(update: int, batches: Any = batches) -> float:
            return reference.step(batches, RATE * float(factor(update)))

        sides = {"ours": ours, "torch": theirs}
        turns.append({side: turn(sides[side], 2 * number) for side in (("ours", "torch") if number % 2 else ("torch", "ours"))})
    pairs = [pair for turn in turns for pair in zip(turn["ours"]["losses"], turn["torch"]["losses"], strict=True)]
    # Adapters start at random on either side: before the first real update they make no difference, later they do.
    compared, counted = pairs[:2] if lora else pairs, turns[1:]
    ratios = [turn["torch"]["seconds"] / turn["ours"]["seconds"] for turn in counted]
    operations = [flops.training(size.model, lora, s.tokens, s.squares, s.pictures).total for s in steps[1:]]
    held = {"ours": ours_bytes, "torch": reference.state_bytes}
    return {
        "ratio": statistics.median(ratios),
        "ratios": ratios,
        "reference_recomputes": case == "padded",
        "remat": wanted.run.remat,
        "loss_difference": max(abs(ours - theirs) / abs(theirs) for ours, theirs in compared),
        "losses": pairs,
        "computed_over_real": {
            "ours": sum(s.computed_ours for s in steps[1:]) / sum(s.tokens for s in steps[1:]),
            "torch": sum(s.computed_reference for s in steps[1:]) / sum(s.tokens for s in steps[1:]),
        },
        "row_len": steps[0].ours.tokens.shape[2],
    } | {side: of_side(side, counted, steps[1:], operations, size_held, device) for side, size_held in held.items()}


def turn(take: Callable[[int], float], update: int) -> Figures:
    """Two steps, of which the second is measured; `take` takes the number of the update and gives its loss."""
    time.sleep(REST)
    losses = [take(update)]
    before = reset_peak()
    began = time.perf_counter()
    losses.append(take(update + 1))
    return {"seconds": time.perf_counter() - began, "losses": losses, "bytes": peak_rss() - before}


def of_side(side: str, turns: list[Figures], steps: list[Any], operations: list[float], held: int, device: str) -> Figures:
    """Medians of one side. Memory: on CPU what it holds and the growth of the process in a step, on a GPU the allocator's peak."""
    seconds = [turn[side]["seconds"] for turn in turns]

    def median(amounts: list[float]) -> float:
        return statistics.median(amount / taken for amount, taken in zip(amounts, seconds, strict=True))

    return {
        "seconds": statistics.median(seconds),
        "samples_per_second": median([s.conversations for s in steps]),
        "tokens_per_second": median([s.tokens for s in steps]),
        "tflops": median(operations) / 1e12,
        "gib": device_gib(side) if device != "cpu" else (held + max(turn[side]["bytes"] for turn in turns)) / 2**30,
    }


def settings(size: Any, case: str, device: str, folder: pathlib.Path) -> config.TrainConfig:
    """Of our side."""
    compute = "fp32" if device == "cpu" else "bf16"
    data = config.DataSettings(
        mode="pack" if case == "packed" else "pad",
        max_row_len=size.row_len,
        batch_size=size.packed,
        group_size=size.group,
        normalization="tokens",
        shapes=3,
    )
    return config.TrainConfig(
        model=config.ModelSettings(path=str(folder)),
        precision=config.PrecisionSettings(compute, "fp32", compute),
        data=data,
        lora=config.LoraSettings(RANK, 2.0 * RANK, 0.0) if _LORA.value else config.LoraSettings(),
        optimizer=config.OptimizerSettings(learning_rate=RATE),
        run=config.RunSettings(
            rows=_ROWS.value if case == "packed" else 0,
            remat=_REMAT.value or size.remat,
            unroll=_UNROLL.value,
            loss_chunk=_CHUNK.value,
        ),
    )


def gemm_tflops(side: int, repeats: int = 5) -> float:
    """The best of some products of two [side, side] matrices through XLA: fp32 on CPU, bf16 elsewhere."""
    import jax
    import jax.numpy as jnp

    dtype = jnp.float32 if jax.default_backend() == "cpu" else jnp.bfloat16
    a, product = jnp.ones((side, side), dtype), jax.jit(jnp.matmul)
    times = []
    for _ in range(repeats + 1):
        began = time.perf_counter()
        product(a, a).block_until_ready()
        times.append(time.perf_counter() - began)
    return 2 * side**3 / min(times) / 1e12


def data_sheet(kind: str) -> float | None:
    """bf16 TFLOP/s of a chip of planning/chips.toml, None for others (a CPU has no such line)."""
    from vlguard_jax.planning import chips

    letters = kind.lower().replace(" ", "")
    found = [chip.peak_tflops for name, chip in chips.known().items() if name in letters]
    return max(found) if found else None


def reset_peak() -> int:
    """Forget the process's peak memory (Linux); returns bytes held now, 0 where that is not to be had."""
    try:
        pathlib.Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return 0
    return _status("VmRSS")


def peak_rss() -> int:
    """Bytes, most since `reset_peak`; 0 where that is not to be had."""
    return _status("VmHWM")


def _status(name: str) -> int:
    path = pathlib.Path("/proc/self/status")
    if not path.exists():
        return 0
    return int(next(line for line in path.read_text().splitlines() if line.startswith(name)).split()[1]) * 1024


def device_gib(side: str) -> float:
    """Peak of the side's own allocator on a GPU, over the whole run."""
    import jax
    import torch

    count = torch.cuda.max_memory_allocated() if side == "torch" else (jax.devices()[0].memory_stats() or {})["peak_bytes_in_use"]
    return count / 2**30


def table(found: Figures) -> str:
    """The figures as text."""
    from rich import console as rich_console
    from rich import table as rich_table

    title = f"{found['device']}, {found['precision']}, {'LoRA' if found['lora'] else 'full'}, medians of {found['pairs']} pairs of steps"
    shown = rich_table.Table(title=title)
    for heading in (
        "size",
        "case",
        "side",
        "remat",
        "s a step",
        "samples/s",
        "tokens/s",
        "TFLOP/s",
        "MFU, measured peak",
        "MFU, data sheet",
        "GiB",
        "x",
    ):
        shown.add_column(heading, justify="left" if heading in ("size", "case", "side", "remat") else "right")
    for line in found["cases"]:
        for side in ("ours", "torch"):
            f = line[side]
            sheet = "-" if f["mfu_data_sheet"] is None else f"{f['mfu_data_sheet']:.1%}"
            figures = [f"{f['seconds']:.2f}", f"{f['samples_per_second']:.2f}", f"{f['tokens_per_second']:,.0f}", f"{f['tflops']:.3f}"]
            figures += [f"{f['mfu_measured_peak']:.1%}", sheet, f"{f['gib']:.2f}", f"{line['ratio']:.2f}" if side == "ours" else ""]
            keeps = line["remat"] if side == "ours" else "full" if line["reference_recomputes"] else "none"
            shown.add_row(line["size"], line["case"], side, keeps, *figures)
    console = rich_console.Console(width=150)
    with console.capture() as captured:
        console.print(shown)
    agree = "agree" if found["losses_agree"] else "DISAGREE"
    notes = [f"losses {agree}: they differ by at most {found['loss_difference']:.1e} (bound {found['loss_bound']:.0e})"]
    bars = " and ".join(f"{case} {bar}" for case, bar in BARS.items())
    notes.append(f"bars at 110m on two idle CPU cores: {bars}; a product runs at {found['gemm_tflops']:.3f} TFLOP/s")
    if found["reference_lacks"]:
        notes.append(f"the reference is not at its best here, not installed: {', '.join(found['reference_lacks'])}")
    return captured.get() + "\n".join(notes)


if __name__ == "__main__":
    cli.run(main, doc=__doc__)

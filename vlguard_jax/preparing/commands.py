"""The sub-commands of `prepare`: the flags that each takes and needs, and what it calls."""

from __future__ import annotations

from collections.abc import Collection, Mapping
import dataclasses
from typing import Any

from vlguard_jax import config
from vlguard_jax import errors


@dataclasses.dataclass(frozen=True)
class Command:
    """Names of flags. get: what to tell of the first one that is needed, and where it is got."""

    takes: tuple[str, ...]
    needs: tuple[str, ...]
    get: str = ""


_PLANNED = ("config", "shards")
BENCHMARKS = (
    *("advbench", "xstest", "figstep", "figstep_tiny", "figstep_rendered", "strongreject", "strongreject_small"),
    *("one_word", "mossbench", "siuo_mcq", "mm_safetybench", "mm_safetybench_vlmevalkit", "alpaca_eval"),
)
_VLGUARD = (
    "a folder with train.json and test.json: data/ of github.com/ys-zong/VLGuard, where they are public. The pictures"
    " are gated at huggingface.co/datasets/ys-zong/VLGuard (accept its terms; train.zip and test.zip, beside them or in"
    " --images), and --stand_in_images draws others to rehearse with"
)
_MIX = "llava_v1_5_mix665k.json of huggingface.co/datasets/liuhaotian/LLaVA-Instruct-150K"
COMMANDS = {
    "vlguard": Command(("metadata", "out", "images", "stand_in_images", "any_size"), ("metadata", "out"), _VLGUARD),
    "llava_mix": Command(("mix", "out", "count", "seed", "images", "any_size"), ("mix", "out"), _MIX),
    "clean": Command(("mix", "cleaned", "config", "workdir", "out", "any_size"), ("mix", "out")),
    "smollm2": Command(("out", "gguf", "dtype"), ("out",)),
    "index": Command((*_PLANNED, "json", "list_bad"), ("config",)),
    "inspect": Command((*_PLANNED, "out", "step", "rows", "harmless"), ("config",)),
    **dict.fromkeys(BENCHMARKS, Command(("source", "images", "out", "stand_in"), ())),
}
FLAGS = sorted({flag for command in COMMANDS.values() for flag in command.takes})


def check(arguments: list[str], given: Collection[str], values: Mapping[str, Any]) -> str:
    """The sub-command that the first argument names. given: the flags on the command line; values: of all FLAGS.

    Raises:
      UserError: there is no such command, a flag that it needs is missing, or one that it does not take was given.
    """
    name, *rest = arguments
    if name not in COMMANDS:
        raise errors.UserError(f"prepare cannot do {errors.short(name)}{errors.nearest(name, COMMANDS)}")
    if rest:
        raise errors.UserError(f"prepare {name} takes no further argument, but got {errors.short(rest[0])}")
    command = COMMANDS[name]
    for flag in command.needs:
        if flag not in given or not values[flag]:
            get = f", {command.get}" if command.get and flag == command.needs[0] else ""
            raise errors.UserError(f"prepare {name} needs --{flag}{get}")
    for flag in sorted(set(given).difference(command.takes)):
        raise errors.UserError(f"prepare {name} takes no --{flag}; it takes --{', --'.join(command.takes)}")
    return name


def run(name: str, values: Mapping[str, Any]) -> None:
    """Run a sub-command. Raises what it raises."""
    v = values
    if name == "vlguard":
        from vlguard_jax.preparing import vlguard_folder  # late, as below: --help needs none of it

        vlguard_folder.run(v["metadata"], v["out"], v["images"], v["stand_in_images"], v["any_size"])
    elif name in BENCHMARKS:
        from vlguard_jax.preparing import benchmark_files

        benchmark_files.run(name, v["source"], v["images"], v["out"], v["stand_in"])
    elif name == "llava_mix":
        from vlguard_jax.preparing import llava_mix

        llava_mix.run_draw(v["mix"], v["out"], v["images"], v["count"], v["seed"], v["any_size"])
    elif name == "clean":
        _clean(v)
    elif name == "smollm2":
        from vlguard_jax.preparing import smollm2

        smollm2.run(v["out"], v["gguf"], v["dtype"])
    elif name == "index":
        from vlguard_jax.preparing import index

        index.run(
            config.resolve(v["config"], config.TrainConfig),
            shards=v["shards"],
            json_file=v["json"],
            bad_file=v["list_bad"],
        )
    else:
        from vlguard_jax.preparing import inspect

        shown = {flag: v[flag] for flag in ("step", "rows", "shards", "out", "harmless")}
        inspect.run(config.resolve(v["config"], config.TrainConfig), **shown)


def _clean(v: Mapping[str, Any]) -> None:
    judged, compared = v["config"] is not None and bool(v["workdir"]), bool(v["cleaned"])
    if judged == compared or (compared and (v["config"] is not None or v["workdir"])):
        raise errors.UserError(
            "prepare clean needs --config FILE and --workdir DIR (a judge reads the mixture), or else --cleaned FILE"
            " (its clean form is there)"
        )
    if compared:
        from vlguard_jax.preparing import llava_mix

        llava_mix.run_clean(v["mix"], v["cleaned"], v["out"], v["any_size"])
    else:
        from vlguard_jax.preparing import cleaning

        cleaning.run(config.resolve(v["config"], cleaning.CleanConfig), v["mix"], v["out"], v["workdir"], v["any_size"])

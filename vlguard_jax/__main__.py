"""All commands by one name: `vlguard train --config ...` is `python -m vlguard_jax.train --config ...`.

vlguard COMMAND [flags]        or: python -m vlguard_jax COMMAND [flags]
vlguard COMMAND --help         what it does, and its flags
vlguard settings [WORD ...]    every setting of the configs: default, range and meaning
vlguard --version
eval "$(vlguard --completion)" completes commands, flags, settings and configs in bash and zsh
"""

from __future__ import annotations

import os
import runpy
import sys

from vlguard_jax import errors

COMMANDS = {
    "train": "fine-tune a model, or go on with a run",
    "evaluate": "ask a model a benchmark's questions and judge the answers",
    "ask": "talk with a model, or with two side by side",
    "report": "result files to one page, and to tables for a paper",
    "convert": "a checkpoint from one layout to another, or what it is",
    "verify": "a checkpoint beside what transformers computes of it",
    "plan": "memory, time and price of a run, without the chips",
    "render": "launch files to the files that start their jobs on a cloud or a cluster",
    "gather": "the results of a sweep in one table",
    "prepare": "check or make the data: vlguard, benchmarks, mixtures",
    "curate": "a safety dataset from your own pictures",
    "label": "a page on which people label answers",
    "settings": "every setting of the configs",
    "quickstart": "the whole story in miniature",
    "real": "the story on a real model of 135 M parameters",
}


def main() -> None:
    """Run a command as `python -m` does, so that both are the same."""
    name = sys.argv[1] if len(sys.argv) > 1 else "--help"
    if name in COMMANDS:
        sys.argv = [f"vlguard {name}", *sys.argv[2:]]
        runpy.run_module(f"vlguard_jax.{name}", run_name="__main__", alter_sys=True)
        return
    if name in ("--help", "-h", "help"):
        width = max(map(len, COMMANDS))
        lines = (f"  {command.ljust(width)}  {told}" for command, told in COMMANDS.items())
        print(f"{(__doc__ or '').strip()}\n\ncommands:\n" + "\n".join(lines))
    elif name == "--version":
        import vlguard_jax

        print(f"vlguard_jax {vlguard_jax.__version__}")
    elif name == "--completion":
        from vlguard_jax import completion

        print(completion.script(), end="")
    elif name == "--complete":
        from vlguard_jax import completion

        print("\n".join(completion.words(os.environ.get("COMP_LINE", ""), COMMANDS)))
    else:
        near = errors.nearest(name, COMMANDS)
        print(f"error: {errors.short(name)} is not a command of vlguard{near}", file=sys.stderr)
        sys.exit(errors.EXIT_USER_ERROR)


if __name__ == "__main__":
    main()

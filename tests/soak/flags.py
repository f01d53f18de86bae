"""What the programs of this folder take alike on their command lines."""

from __future__ import annotations

import argparse


def parser(name: str, text: str | None) -> argparse.ArgumentParser:
    """The parser of `python -m name` with --seed. text: the program's docstring, shown as it stands."""
    made = argparse.ArgumentParser(
        prog=f"python -m {name}", description=text, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    made.add_argument("--seed", type=int, default=0)
    return made

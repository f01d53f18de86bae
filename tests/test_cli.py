"""Flags that are numbers."""

from __future__ import annotations

import re
import subprocess
import sys

from absl import flags
import pytest

from tests import source
from vlguard_jax import cli
from vlguard_jax import ranges


def read(kind: type, text: str) -> int | float | None:
    values = flags.FlagValues()
    cli.define_number("size", kind, None, ranges.Range(0, 100), "a size", values)
    values(["program", f"--size={text}"])
    return values["size"].value


@pytest.mark.parametrize("kind", [int, float])
@pytest.mark.parametrize(
    "text", ["nan", "inf", "-inf", "-1", "101", "1e999", "", "x", "True", "9" * 5000, "-" + "9" * 5000]
)
def test_numbers_outside_are_refused(kind, text):
    with pytest.raises(flags.IllegalFlagValueError, match=r"^flag --size=.*: must be a (whole )?number from 0 to 100$"):
        read(kind, text)


def test_numbers_inside_are_taken():
    assert [read(int, "0"), read(int, "100"), read(float, "0.5"), read(float, "1e2")] == [0, 100, 0.5, 100.0]
    with pytest.raises(flags.IllegalFlagValueError, match="must be a whole number"):
        read(int, "1.5")


def test_every_number_of_every_program_is_read_so():
    """absl's own numbers take NaN, and no upper end unless told."""
    folders = ("vlguard_jax", "benchmarks", "launch")
    files = [path for folder in folders for path in (source.ROOT / folder).rglob("*.py")]
    assert not [str(path) for path in files if re.search(r"DEFINE_(multi_)?(float|integer)", path.read_text())]
    assert sum(path.read_text().count("cli.define_number(") for path in files) > 20


def test_what_the_terminal_cannot_show_is_spelled():
    """A file's name that is not UTF-8, or a terminal of another encoding."""
    code = "from vlguard_jax import cli; cli.run(lambda _: print('caf\\xe9 \\udce9'))"
    for encoding, shown in (("ascii", rb"caf\xe9 \udce9"), ("utf-8", rb"caf" + "\xe9".encode() + rb" \udce9")):
        env = {"PATH": "/usr/bin:/bin", "PYTHONPATH": str(source.ROOT), "PYTHONIOENCODING": encoding}
        done = subprocess.run(
            [sys.executable, "-c", code], env=env, capture_output=True, timeout=source.PATIENCE, check=True
        )
        assert done.stdout.strip() == shown and not done.stderr

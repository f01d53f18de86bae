"""What every entry point shares: flags in, one call out, one clear line and an exit code when it fails."""

from __future__ import annotations

from collections.abc import Callable
import os
import sys

from absl import flags

from vlguard_jax import errors


def parse_flags(argv: list[str]) -> list[str]:
    """Parse absl flags; returns the positional arguments.

    Raises:
      UserError: on an unknown flag, an unknown config key or a bad value.
    """
    try:
        return flags.FLAGS(argv)[1:]
    except (flags.Error, AttributeError, KeyError, TypeError, ValueError) as e:
        raise errors.UserError(_flag_message(e)) from e


def _flag_message(error: Exception) -> str:
    lines = [line.strip() for line in str(error).strip().strip("'\"").splitlines() if line.strip()]
    return " ".join(lines) or type(error).__name__


def run(main: Callable[[list[str]], int | None], *, doc: str | None = None) -> None:
    """Parse flags, call `main(positional)` and exit: 0, 2 for a user's mistake, 75 to be restarted, 1 for ours."""
    debug = os.environ.get("VLGUARD_DEBUG", "") not in ("", "0")
    if doc:
        sys.modules["__main__"].__doc__ = doc
    try:
        code = main(parse_flags(sys.argv)) or errors.EXIT_OK
    except errors.UserError as e:
        if debug:
            raise
        print(f"error: {e}", file=sys.stderr)
        code = errors.EXIT_USER_ERROR
    except KeyboardInterrupt:
        print("stopped by Ctrl-C", file=sys.stderr)
        code = 130
    sys.stdout.flush()
    sys.exit(code)

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
    while error.args and isinstance(error.args[0], Exception):  # ml_collections wraps its own errors
        error = error.args[0]
    text = str(error.args[0]) if error.args else ""  # str() of a KeyError would be quoted
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    message = " ".join(lines) or type(error).__name__
    return f"--config has no setting {message}" if isinstance(error, AttributeError | KeyError) else message


def run(main: Callable[[list[str]], int | None], *, doc: str | None = None) -> None:
    """Parse flags, call `main(positional)` and exit: 0, 2 for a user's mistake, 75 to be restarted, 1 for ours.

    `--help` prints `doc` (the entry point's docstring where it is None) and the entry point's flags.
    """
    debug = os.environ.get("VLGUARD_DEBUG", "") not in ("", "0")
    if not {"--help", "-h", "-help"}.isdisjoint(sys.argv[1:]):
        print(f"{(doc or sys.modules['__main__'].__doc__ or '').strip()}\n\nflags:{flags.FLAGS.main_module_help()}")
        sys.exit(errors.EXIT_OK)
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

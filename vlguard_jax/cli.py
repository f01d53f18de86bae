"""What all entry points share: flags in, one call out, and one clear line and an exit code on failure."""

from __future__ import annotations

import atexit
from collections.abc import Callable
import contextlib
import functools
import gc
import io
import logging
import os
import sys
import traceback
from typing import Any

from absl import flags

from vlguard_jax import errors
from vlguard_jax import escape
from vlguard_jax import folders
from vlguard_jax import machine
from vlguard_jax import preemption
from vlguard_jax import ranges
from vlguard_jax import stopping

flags.disclaim_key_flags()  # flags from `define_number` belong to its caller


class _Number(flags.ArgumentParser[Any]):
    """Reads a number that a rule allows."""

    def __init__(self, rule: ranges.Rule):
        super().__init__()
        self.syntactic_help = str(rule)
        self._rule = rule

    def parse(self, argument: Any) -> Any:
        """Raises:
        ValueError: the rule does not allow it; absl adds the flag's name and the value.
        """
        try:
            return self._rule.checked(self._rule.kind(argument), "")
        except (ValueError, OverflowError, errors.UserError):
            raise ValueError(f"must be {self._rule}") from None


def define_number(
    name: str,
    kind: type[int] | type[float],
    default: int | float | None,
    allowed: ranges.Range,
    text: str,
    values: flags.FlagValues = flags.FLAGS,
) -> flags.FlagHolder[Any]:
    """A flag for numbers in a range; absl's own accept NaN.

    `text`: for --help. `values`: the program's flags.
    """
    rule = ranges.Rule(kind, allowed)
    return flags.DEFINE(_Number(rule), name, default, text, values, flags.ArgumentSerializer[Any]())


def define_output() -> None:
    """--output of commands that run for long: what `terminal.choose` takes."""
    flags.DEFINE_enum(
        "output",
        "auto",
        ["auto", "plain", "quiet", "json"],
        "auto: bars in a terminal, lines elsewhere; plain: lines; quiet: errors and the result alone; json: an object a"
        " line",
    )


# From absl and ml_collections; the last two from a value nested too deeply for Python's parser.
FLAG_ERRORS = (flags.Error, AttributeError, KeyError, TypeError, ValueError, SyntaxError, RecursionError, MemoryError)


def parse_flags(argv: list[str], known: flags.FlagValues = flags.FLAGS) -> list[str]:
    """Parse absl flags, those in `known`; returns the positional arguments.

    Raises:
      UserError: on an unknown flag, an unknown config key or a bad value.
    """
    try:
        return known(argv)[1:]
    except FLAG_ERRORS as e:
        raise errors.UserError(flag_message(e)) from e


def flag_message(error: Exception) -> str:
    """What is wrong with a flag, in one line; `error` is one of FLAG_ERRORS."""
    while error.args and isinstance(error.args[0], Exception):  # ml_collections wraps its own errors
        error = error.args[0]
    text = str(error.args[0]) if error.args else ""  # str() of a KeyError would be quoted
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    message = " ".join(lines) or type(error).__name__
    if isinstance(error, RecursionError | MemoryError):
        message = "a value is nested too deeply to be read"
    message = escape.line(message, 600)  # the value is in it
    return f"--config has no setting {message}" if isinstance(error, AttributeError | KeyError) else message


def run(main: Callable[[list[str]], int | None], *, doc: str | None = None) -> None:
    """Parse flags, call `main(positional)` and exit: 0 on success, 2 for what the user has to correct, 75 to be started
    again, as after SIGTERM, 130 after Ctrl-C, 1 for a bug, with its stack trace.

    `--help` prints `doc` (the entry point's docstring where it is None) and the entry point's flags.
    VLGUARD_DEBUG=1 shows every stack trace.
    """
    machine.leave_tpu_out(os.environ)
    stopping.install()
    preemption.watch()
    atexit.register(stopping.end)
    atexit.register(gc.freeze)  # else Python looks through JAX's objects three times, after all that there is to save
    if isinstance(sys.stdout, io.TextIOWrapper):
        # a name or text that the terminal cannot show must not end a command
        sys.stdout.reconfigure(errors="backslashreplace")
    debug = os.environ.get("VLGUARD_DEBUG", "") not in ("", "0")
    if not debug:
        for name in ("absl", "asyncio"):
            logging.getLogger(name).addFilter(_without_trace)
        sys.unraisablehook = functools.partial(_unraisable, sys.unraisablehook)
    try:
        code = _call(main, doc)
    except BaseException as e:
        code, line = _ending(e)
        if debug:
            traceback.print_exc()
        _say(line)
        if machine.alone(e):
            os._exit(code)
        if not isinstance(e, Exception):
            # before all others: JAX, shut down during a computation, ends with a segmentation fault
            atexit.register(os._exit, code)
    sys.exit(code)


def _call(main: Callable[[list[str]], int | None], doc: str | None) -> int:
    stopping.take()
    if not {"--help", "-h", "-help"}.isdisjoint(sys.argv[1:]):
        print(f"{(doc or sys.modules['__main__'].__doc__ or '').strip()}\n\nflags:{flags.FLAGS.main_module_help()}")
        code = errors.EXIT_OK
    else:
        given = parse_flags(sys.argv)
        if "output" in flags.FLAGS and flags.FLAGS["output"].value != "auto":
            from vlguard_jax import terminal  # late: few need it before their work begins

            terminal.choose(str(flags.FLAGS["output"].value))
        folders.check_programs(os.environ)
        code = main(given) or errors.EXIT_OK
    with machine.naming("standard output"):
        sys.stdout.flush()
    return code


def _ending(error: BaseException) -> tuple[int, str]:
    """(exit code, line to print) for the exception that ended a command; raises it again if it is a bug."""
    if stopping.requested():  # it has said so
        return errors.EXIT_RESTART, ""
    if isinstance(error, KeyboardInterrupt):
        return errors.EXIT_INTERRUPTED, stopping.INTERRUPTED
    if not isinstance(error, Exception):
        raise error
    if isinstance(error, errors.UserError):
        return errors.EXIT_USER_ERROR, f"error: {error}"
    failed = machine.failure(error)
    if failed is None:
        raise error
    return failed.code, f"error: {escape.line(failed.line)}"


def _say(line: str) -> None:
    """Print to standard error, after the command's output, even if nobody reads either any more."""
    try:
        sys.stdout.flush()
    except OSError:  # Python would try again at its end
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    with contextlib.suppress(OSError):
        if line:
            print(line, file=sys.stderr, flush=True)


def _unraisable(before: Callable[[sys.UnraisableHookArgs], object], lost: sys.UnraisableHookArgs) -> None:
    """Drop TensorStore's messages about arrays that nobody waits for any more because another could not be written."""
    if str(lost.exc_value) != "Event loop is closed":
        before(lost)


def _without_trace(record: logging.LogRecord) -> bool:
    """Drop stack traces from log records: Orbax logs an error in each thread that it passes, asyncio in each task, and
    then it is raised."""
    return not record.exc_info

"""The two kinds of failure a command can end with, and their exit codes."""

import reprlib

from vlguard_jax import escape

EXIT_OK = 0
EXIT_USER_ERROR = 2
EXIT_DIFFERS = 3  # of `verify`: what was compared is not the same
EXIT_RESTART = 75  # EX_TEMPFAIL: saved and ready to be restarted
EXIT_INTERRUPTED = 130

LONGEST_NAME = 1000  # characters of a name compared with known ones
MOST_NAMES = 20  # known names that a message lists

_SHORT = reprlib.Repr()  # lists and objects are cut
_SHORT.maxlist = _SHORT.maxdict = _SHORT.maxtuple = 4
_SHORT.maxstring = _SHORT.maxother = _SHORT.maxlong = 100


class UserError(Exception):
    """Something the user can correct: one line that names the file, record or flag, and what to do.

    Entry points print it without a stack trace and exit with code 2. The message may contain any foreign text: it is
    printed as one safe line, and a very long one keeps its end, which says what to do.
    """

    def __init__(self, message: object = ""):
        super().__init__(escape.line(str(message)))


def nearest(name: str, known: object, *, label: str = "known") -> str:
    """Return "; did you mean 'x'?" for the closest of `known`, else a list of them, for use at the end of a message."""
    import difflib

    names = sorted(str(k) for k in known)  # type: ignore[attr-defined]
    close = difflib.get_close_matches(name[:LONGEST_NAME], names, n=1, cutoff=0.5)
    if close:
        return f"; did you mean {short(close[0])}?"
    more = f" and {len(names) - MOST_NAMES} more" if len(names) > MOST_NAMES else ""
    return (
        f"; {label}: {', '.join(name if len(name) <= 100 else f'{name[:100]}...' for name in names[:MOST_NAMES])}{more}"
    )


def unknown(name: str, known: object) -> str:
    """As `nearest`, for a name in a list of the config: where it is several names in one, say how a list is given."""
    parts = [part.strip() for part in name.split(",")]
    return f'; a list is given as "({", ".join(map(short, parts))})"' if len(parts) > 1 else nearest(name, known)


def short(value: object, limit: int = 100) -> str:
    """A foreign value for a message: its Python repr, cut after `limit` characters with a note of its length."""
    if isinstance(value, str | bytes):
        unit = "characters" if isinstance(value, str) else "bytes"
        return repr(value) if len(value) <= limit else f"{value[:limit]!r}... ({len(value):,} {unit})"
    try:
        shown = _SHORT.repr(value)
    except ValueError:  # an integer that Python does not print
        return "a number of thousands of digits"
    return shown if len(shown) <= 2 * limit else f"{shown[: 2 * limit]}..."

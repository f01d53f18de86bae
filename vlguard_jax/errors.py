"""The two kinds of failure a command can end with, and their exit codes."""

EXIT_OK = 0
EXIT_OUR_FAULT = 1
EXIT_USER_ERROR = 2
EXIT_RESTART = 75  # EX_TEMPFAIL: saved and ready to be restarted


class UserError(Exception):
    """Something the user can put right: one line that names the file, record or flag, and the way out.

    Entry points print it without a stack trace and exit with code 2.
    """


def nearest(name: str, known: object, *, label: str = "known") -> str:
    """Return "; did you mean 'x'?" for the closest of `known`, else a list of them, for use at the end of a message."""
    import difflib

    names = sorted(str(k) for k in known)  # type: ignore[attr-defined]
    close = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    if close:
        return f"; did you mean '{close[0]}'?"
    return f"; {label}: {', '.join(names)}"

"""SIGTERM (preemption, a scheduler's time limit) means: save and exit with code 75; the same command, started again,
continues. So does a terminal that is closed (SIGHUP), unless it is ignored, as under nohup.

By default a command ends at once, from its first moment: finished files are kept, half-written ones removed. Where
there is more to save, as between the updates of a training run, `Noted` lets the command end by itself.

Ctrl-C, which means 130, is handled in the same way around code that cannot take an exception: imports of libraries,
whose native part would crash or turn it into an ImportError, and destructors, which would drop it.
"""

from __future__ import annotations

from collections.abc import Callable
import contextlib
import functools
import os
import signal
import sys
import threading
import time
from types import FrameType
from types import TracebackType

from vlguard_jax import errors

PATIENCE = 10.0  # seconds to clean up; schedulers kill after 30 or more
MESSAGE = "stopped by SIGTERM; start the same command again to go on"
INTERRUPTED = "stopped by Ctrl-C"
_IMPORT = "<frozen importlib._bootstrap>"

_requested = _said = False
_terminals: tuple[int, ...] = ()  # of standard output and error, those that were one
_put_off: set[int] = set()  # signals to be sent again


class Stopped(SystemExit):
    """SIGTERM has come. A SystemExit, since event loops and thread pools pass on only that and Ctrl-C."""


def install() -> None:
    """Let SIGTERM end this process with 75: by `Stopped` in the main thread or, if that is busy in a library, after
    PATIENCE seconds; and Ctrl-C with 130, unless it is ignored, as in a script's background.

    Does nothing if already installed, or outside the main thread, where the host program handles its signals.
    """
    if threading.current_thread() is not threading.main_thread() or signal.getsignal(signal.SIGTERM) is _stop:
        return
    global _terminals
    signal.signal(signal.SIGTERM, _stop)
    if signal.getsignal(signal.SIGHUP) is signal.SIG_DFL:
        _terminals = tuple(fd for fd in (1, 2) if os.isatty(fd))
        signal.signal(signal.SIGHUP, _hang_up)
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _interrupt)
    sys.excepthook = functools.partial(_uncaught, sys.excepthook)
    sys.unraisablehook = functools.partial(_swallowed, sys.unraisablehook)
    received, wake = os.pipe()
    os.set_blocking(wake, False)
    signal.set_wakeup_fd(wake, warn_on_full_buffer=False)
    # A forked child ignores the signals until it is known not to be the parent: only the parent is to be stopped.
    os.register_at_fork(before=_deaf, after_in_parent=_hear, after_in_child=_forget)
    threading.Thread(target=_watch, args=(received,), name="SIGTERM", daemon=True).start()


def take() -> None:
    """Handle signals that came during the imports, before a command begins."""
    for number in tuple(_put_off):
        os.kill(os.getpid(), number)


def leave() -> None:
    """End this process with 75 within PATIENCE, whatever a thread still waits for, such as a file that does not come:
    what there was to save is saved."""

    def out() -> None:
        time.sleep(PATIENCE)
        os._exit(errors.EXIT_RESTART)

    threading.Thread(target=out, name="leave", daemon=True).start()


def end() -> None:
    """Fix the exit code: from now on a signal, to a Python that is shutting down, does not change it."""
    for number, ours in ((signal.SIGTERM, _stop), (signal.SIGHUP, _hang_up), (signal.SIGINT, _interrupt)):
        if signal.getsignal(number) is ours:
            signal.signal(number, signal.SIG_IGN)


def requested() -> bool:
    """Whether `Stopped` has been raised, even if it was swallowed since."""
    return _requested


class Noted:
    """A context in which, from `hold` on, SIGTERM does not end the command but is noted; `seen` tells."""

    def __init__(self) -> None:
        self.seen = False
        self._stack = contextlib.ExitStack()
        self._held = False

    def hold(self) -> None:
        """From now on there is something to save.

        May be called again; outside the main thread the host program handles its signals.
        """
        if not self._held:
            with contextlib.suppress(ValueError):
                self._stack.callback(signal.signal, signal.SIGTERM, signal.signal(signal.SIGTERM, self._note))
        self._held = True

    def __enter__(self) -> Noted:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.seen = True


def _stop(number: int, frame: FrameType | None) -> None:
    global _requested
    _put_off.discard(number)
    if _requested:  # again, while the first cleans up
        return
    if _importing(frame):
        _again(number)
        return
    _requested = True
    _say()
    raise Stopped(errors.EXIT_RESTART)


def _hang_up(number: int, frame: FrameType | None) -> None:
    """The terminal is gone: what is still said goes nowhere, since writing to it would end the command at once."""
    global _terminals
    gone, _terminals = _terminals, ()
    if gone:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        for fd in gone:
            os.dup2(nowhere, fd)
    os.kill(os.getpid(), signal.SIGTERM)


def _interrupt(number: int, frame: FrameType | None) -> None:
    _put_off.discard(number)
    if _importing(frame):
        _again(number)
        return
    raise KeyboardInterrupt


def _importing(frame: FrameType | None) -> bool:
    while frame is not None:
        if frame.f_code.co_filename == _IMPORT:
            return True
        frame = frame.f_back
    return False


def _again(number: int) -> None:
    """Send this process the signal once more, a little later."""

    def send() -> None:
        if number in _put_off:
            os.kill(os.getpid(), number)

    _put_off.add(number)
    again = threading.Timer(0.05, send)
    again.daemon = True
    again.start()


def _uncaught(
    before: Callable[..., object], kind: type[BaseException], value: BaseException, trace: TracebackType | None
) -> None:
    """Ctrl-C before the command has begun, between two of its imports."""
    if not issubclass(kind, KeyboardInterrupt):
        before(kind, value, trace)
        return
    with contextlib.suppress(OSError):
        os.write(2, f"{INTERRUPTED}\n".encode())
    os._exit(errors.EXIT_INTERRUPTED)


def _swallowed(before: Callable[[sys.UnraisableHookArgs], object], lost: sys.UnraisableHookArgs) -> None:
    """Send the signal again later if its exception was raised, and so dropped, in a destructor or the garbage
    collector."""
    global _requested
    if lost.exc_type is Stopped:
        _requested = False
        _again(signal.SIGTERM)
    elif lost.exc_type is KeyboardInterrupt and signal.getsignal(signal.SIGINT) is _interrupt:
        _again(signal.SIGINT)
    else:
        before(lost)


def _watch(received: int) -> None:
    """End the process if the main thread does not reach `_stop`, or a library swallowed its exception."""
    while True:
        came = os.read(received, 64)
        if signal.SIGHUP in came:
            _hang_up(signal.SIGHUP, None)  # the main thread may be busy in a library
        if signal.SIGTERM in came:
            time.sleep(PATIENCE)
            if signal.getsignal(signal.SIGTERM) is _stop:
                _say()
                os._exit(errors.EXIT_RESTART)


def _say() -> None:
    global _said
    if _said:
        return
    _said = True
    with contextlib.suppress(OSError):
        os.write(2, f"{MESSAGE}\n".encode())


def _deaf() -> None:
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGHUP})


def _hear() -> None:
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM, signal.SIGHUP})


def _forget() -> None:
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    if signal.getsignal(signal.SIGHUP) is _hang_up:
        signal.signal(signal.SIGHUP, signal.SIG_DFL)
    if signal.getsignal(signal.SIGINT) is _interrupt:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.set_wakeup_fd(-1)
    _hear()

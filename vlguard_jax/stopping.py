"""SIGTERM (preemption, a scheduler's time limit) means: save and leave with exit code 75; the same command, started
again, goes on.

From its first moment a command ends at once: what is finished is kept, what is half-written is taken away. Where there
is more to save, as between the updates of a training, `Noted` lets the command come to an end of its own.

Ctrl-C, which means 130, takes the same way through what cannot bear an exception: the import of a library, whose native
part would crash or make an ImportError of it, and destructors, which would drop it.
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

PATIENCE = 10.0  # seconds to clean up; schedulers kill after 30 and more
MESSAGE = "stopped by SIGTERM; start the same command again to go on"
INTERRUPTED = "stopped by Ctrl-C"
_IMPORT = "<frozen importlib._bootstrap>"

_requested = _said = False
_put_off: set[int] = set()  # signals that are to be sent again


class Stopped(SystemExit):
    """SIGTERM has come. A SystemExit, as event loops and thread pools let only that and Ctrl-C through."""


def install() -> None:
    """Let SIGTERM end this process with 75: by `Stopped` in the main thread or, where that is busy in a library, after
    PATIENCE seconds; and Ctrl-C with 130, unless it is ignored, as in a script's background.

    Does nothing where it is installed already, and outside the main thread, where the host program handles its signals.
    """
    if threading.current_thread() is not threading.main_thread() or signal.getsignal(signal.SIGTERM) is _stop:
        return
    signal.signal(signal.SIGTERM, _stop)
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _interrupt)
    sys.excepthook = functools.partial(_uncaught, sys.excepthook)
    sys.unraisablehook = functools.partial(_swallowed, sys.unraisablehook)
    received, wake = os.pipe()
    os.set_blocking(wake, False)
    signal.set_wakeup_fd(wake, warn_on_full_buffer=False)
    # A child is born deaf, until it is told from its parent: the parent alone is to be stopped.
    os.register_at_fork(before=_deaf, after_in_parent=_hear, after_in_child=_forget)
    threading.Thread(target=_watch, args=(received,), name="SIGTERM", daemon=True).start()


def take() -> None:
    """Take what came during the imports before a command begins."""
    for number in tuple(_put_off):
        os.kill(os.getpid(), number)


def end() -> None:
    """From now on the exit code stands: a signal to a Python that takes itself down would be another's."""
    for number, ours in ((signal.SIGTERM, _stop), (signal.SIGINT, _interrupt)):
        if signal.getsignal(number) is ours:
            signal.signal(number, signal.SIG_IGN)


def requested() -> bool:
    """Whether `Stopped` has been raised, whatever became of it since."""
    return _requested


class Noted:
    """A context in which, from `hold` on, SIGTERM is noted in place of ending the command; `seen` tells."""

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
    """Raised in a destructor or a call of the garbage collector, they get no further: send the signal again, for
    later."""
    global _requested
    if lost.exc_type is Stopped:
        _requested = False
        _again(signal.SIGTERM)
    elif lost.exc_type is KeyboardInterrupt and signal.getsignal(signal.SIGINT) is _interrupt:
        _again(signal.SIGINT)
    else:
        before(lost)


def _watch(received: int) -> None:
    """The way out where the main thread does not come to `_stop`, or a library has swallowed what it raises."""
    while True:
        if signal.SIGTERM in os.read(received, 64):
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
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})


def _hear() -> None:
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})


def _forget() -> None:
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    if signal.getsignal(signal.SIGINT) is _interrupt:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.set_wakeup_fd(-1)
    _hear()

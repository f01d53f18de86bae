"""A conversation in the terminal, and a single question."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Sequence
import contextlib
import os
import signal
import sys
from types import FrameType

from vlguard_jax import errors
from vlguard_jax import terminal
from vlguard_jax.asking import panel as panel_lib
from vlguard_jax.asking import show

HELP = """\
/picture FILE  show a picture with the next question; again for one more
/new           begin a new conversation
/help          this
/quit          leave; so does Ctrl-D
Ctrl-C stops an answer. A question that begins with / is typed with two."""
COMMANDS = ("/picture", "/new", "/help", "/quit")
_STOPPING = b"\nstopping; Ctrl-C once more ends the program\n"


class Conversation:
    """What was said so far, and the pictures that wait for a question."""

    def __init__(self, panel: panel_lib.Panel, console: terminal.Console, out: show.Writer):
        self._panel, self._console, self._out = panel, console, out
        self.before: tuple[panel_lib.Round, ...] = ()
        self.pictures: tuple[panel_lib.Picture, ...] = ()

    def take(self, line: str) -> bool:
        """Obey a command or answer a question; returns False to leave.

        Raises:
          UserError: the line cannot be obeyed or answered; the conversation is as before.
        """
        name, _, rest = line.strip().partition(" ")
        if not name:
            return True
        if not name.startswith("/") or name.startswith("//"):
            self._answer(line[1:] if name.startswith("//") else line)
        elif name == "/quit":
            return False
        elif name == "/picture":
            self._show(rest.strip())
        elif name == "/new":
            self.before, self.pictures = (), ()
            self._say("a new conversation")
        elif name == "/help":
            self._out.write(f"{HELP}\n")
        else:
            raise errors.UserError(
                f"{errors.short(name)} is not a command{errors.nearest(name, COMMANDS)}; a question that begins with /"
                " is typed with two"
            )
        return True

    def _show(self, path: str) -> None:
        if not path:
            raise errors.UserError("/picture needs a file: /picture FILE")
        if path[0] in "'\"" and path[-1] == path[0] and len(path) > 1:  # as files are dropped into a terminal
            path = path[1:-1]
        self.pictures = (*self.pictures, self._panel.picture(os.path.expanduser(path)))
        n = len(self.pictures)
        self._say(f"{'this picture comes' if n == 1 else f'{n} pictures come'} with the next question")

    def _answer(self, text: str) -> None:
        question = panel_lib.Question(text, self.pictures)
        with _interruptible() as stopped:
            events = self._panel.ask(question, self.before)
            answers = self._shown(_until(events, stopped))
            if stopped():
                self._out.write("\n")
                self._say("stopped; the question does not count")
                return
        by_model = {one.model: one.text for one in answers}
        said = tuple(by_model[i] for i in range(len(self._panel.names)))
        self.before, self.pictures = (*self.before, panel_lib.Round(question, said)), ()

    def _shown(self, events: show.Events) -> list[panel_lib.Answer]:
        names = self._panel.names
        if len(names) > 1 and self._console.is_terminal and self._console.width >= show.NARROWEST:
            return show.side_by_side(events, names, self._console)
        return show.streamed(events, names, self._out)

    def _say(self, line: str) -> None:
        self._out.write(f"({line})\n")


def talk(panel: panel_lib.Panel) -> None:
    """Read lines from the terminal until the user leaves."""
    with contextlib.suppress(ImportError):
        import readline  # which `input` then uses: earlier lines, and names of files

        readline.parse_and_bind("tab: complete")
    conversation = Conversation(panel, terminal.console(), sys.stdout)
    terminal.say(f"asking {' and '.join(panel.names)}; /help tells what can be typed")
    terminal.say(panel_lib.COMPILED)
    while True:
        try:
            if not conversation.take(_typed()):
                return
        except errors.UserError as e:
            print(f"error: {e}")
        sys.stdout.flush()


def _typed() -> str:
    """A line of the user's; nothing after Ctrl-C."""
    try:
        return input("> ")
    except EOFError:
        print()
        return "/quit"
    except UnicodeDecodeError as e:
        raise errors.UserError("that line is no UTF-8 text: type it again") from e
    except KeyboardInterrupt:
        print("\n(Ctrl-D or /quit leaves)")
        return ""


def once(panel: panel_lib.Panel, text: str, pictures: Sequence[str], *, json: bool) -> None:
    """Write the answers to one question, about pictures by path, to standard output, and to standard error that they
    take a while. json: one object a line, after the last one has come.

    Raises:
      UserError: as `Panel.picture` and `Panel.ask`.
    """
    question = panel_lib.Question(text, tuple(panel.picture(path) for path in pictures))
    print(panel_lib.COMPILED, file=sys.stderr, flush=True)
    if not json:
        show.streamed(panel.ask(question), panel.names, sys.stdout)
        return
    answers = [one for one in panel.ask(question) if isinstance(one, panel_lib.Answer)]
    for one in sorted(answers, key=lambda one: one.model):
        print(show.as_json(one, panel.names))


def _until(
    events: Generator[panel_lib.Said | panel_lib.Answer, None, None], stopped: Callable[[], bool]
) -> Iterator[panel_lib.Said | panel_lib.Answer]:
    """The events until the user stops them."""
    with contextlib.closing(events):
        for one in events:
            if stopped():
                return
            yield one


@contextlib.contextmanager
def _interruptible() -> Iterator[Callable[[], bool]]:
    """Ctrl-C is noted, which the yielded function tells: an exception in the middle of a compilation would leave the
    engine half done. A second one is raised as before."""
    seen: list[int] = []
    before = signal.getsignal(signal.SIGINT)

    def note(number: int, frame: FrameType | None) -> None:
        if seen and callable(before):
            before(number, frame)
        seen.append(number)
        os.write(2, _STOPPING)

    signal.signal(signal.SIGINT, note)
    try:
        yield lambda: bool(seen)
    finally:
        signal.signal(signal.SIGINT, before)

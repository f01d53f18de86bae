"""Progress of long commands: a bar in the terminal, a line now and then in a log."""

from __future__ import annotations

from collections.abc import Callable, Iterator
import contextlib
import time
from types import TracebackType
from typing import Protocol

from rich import console as rich_console
from rich import progress as rich_progress
from rich import table as rich_table
from rich import text

from vlguard_jax import terminal

Tell = Callable[[int, int], None]
EVERY = 30.0  # seconds between the lines of a log
COMPILING = "compiling before the first ones"
SOON = 1.0  # seconds that a speed is measured over, at least


class Pace:
    """How fast answers come, and how long the rest will take.

    Speeds are those of the later half of the answers: compiling before the first ones does not count for long, nor that
    of the first ones the short come before the long.
    """

    def __init__(self, done: int, total: int, slots: int, now: float, first: str = COMPILING):
        """done: answers that exist; total: wanted; slots: made at a time; now: seconds of any clock; first: what
        goes on before the first answer."""
        self._before, self._total, self._slots, self._first = done, total, slots, first
        self._seen = [(now, 0)]  # (seconds, tokens so far) at the start and after each new answer
        self._longest = 0
        self._ends: float | None = None  # foreseen when the last prompt that waited got a slot

    @property
    def done(self) -> int:
        """Answers that exist."""
        return self._before + len(self._seen) - 1

    @property
    def _waiting(self) -> int:
        """Prompts without a slot; negative where slots are empty."""
        return self._total - self.done - self._slots

    def add(self, tokens: int, now: float) -> None:
        """One more answer."""
        self._seen.append((now, self._seen[-1][1] + tokens))
        self._longest = max(self._longest, tokens)
        if self._waiting == 0 and (one := self._one(now)) is not None:
            self._ends = now + one

    def speeds(self, now: float) -> tuple[float, float]:
        """(answers, tokens of them) per second; zeros before the first answer."""
        found, last, since = self._seen, len(self._seen) - 1, self._since(now)
        seconds = max(now - found[since][0], 1e-3)
        return (last - since) / seconds, (found[last][1] - found[since][1]) / seconds

    def left(self, now: float) -> float | None:
        """Seconds until the last answer; None where nothing is known yet.

        The prompts that wait get their slots one after the other; an answer that begins then takes as long as the
        longest so far. 0 where it takes longer than that.
        """
        if self._waiting <= 0:
            return None if self._ends is None else max(self._ends - now, 0.0)
        one = self._one(now)
        return None if one is None else self._waiting / self.speeds(now)[0] + one

    def _one(self, now: float) -> float | None:
        """Seconds of the longest answer; None where all speeds would have the start in them."""
        tokens = self.speeds(now)[1]
        return self._slots * self._longest / tokens if tokens and self._since(now) else None

    def _since(self, now: float) -> int:
        """Where in `_seen` speeds begin: at half of the answers, unless all of them came just now."""
        half = len(self._seen) // 2
        return half if now - self._seen[half][0] >= SOON else 0

    def line(self, now: float) -> str:
        """All of it, in words."""
        (answers, tokens), left, took = self.speeds(now), self.left(now), now - self._seen[0][0]
        parts = [f"answers {self.done:,}/{self._total:,}"]
        if not answers:
            parts.append(self._first)
        else:
            parts += [f"{few(answers)} answers/s", f"{few(tokens)} tokens/s"]
        if self.done == self._total:
            parts.append(f"took {_duration(took)}")
        elif left is not None:
            parts.append(f"about {_duration(left)} left" if left else "the last ones are the longest")
        return ", ".join(parts)


def few(number: float) -> str:
    """A number in words, to three digits."""
    return f"{number:,.0f}" if number >= 100 else f"{number:.1f}" if number >= 10 else f"{number:.2f}"


def _duration(seconds: float) -> str:
    minutes = round(seconds / 60)
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60} min"


class Verdicts:
    """How far a judge is, which gives its verdicts in chunks."""

    def __init__(self, judge: str, done: int, total: int, now: float):
        """done: verdicts that exist; total: wanted; now: seconds of any clock."""
        self._judge, self._before, self._total, self._began = judge, done, total, now
        self.done = done

    def add(self, verdicts: int, now: float) -> None:
        """So many more."""
        self.done += verdicts

    def line(self, now: float) -> str:
        """All of it, in words."""
        new, took = self.done - self._before, max(now - self._began, 1e-3)
        parts = [f"verdicts of {self._judge} {self.done:,}/{self._total:,}"]
        if new:
            parts.append(f"{few(new / took)} verdicts/s")
        if self.done == self._total:
            parts.append(f"took {_duration(took)}")
        elif new:
            parts.append(f"about {_duration((self._total - self.done) * took / new)} left")
        return ", ".join(parts)


class Written:
    """How far the writing of a folder is."""

    def __init__(self, total: int, now: float):
        """total: bytes; now: seconds of any clock."""
        self._total, self._began = total, now
        self.done = 0

    def add(self, size: int, now: float) -> None:
        """So many bytes more."""
        self.done += size

    def line(self, now: float) -> str:
        """All of it, in words."""
        took = max(now - self._began, 1e-3)
        parts = [f"{few(self.done / 1e9)}/{few(self._total / 1e9)} GB"]
        if self.done:
            parts.append(f"{few(self.done / 1e9 / took)} GB/s")
        if self.done >= self._total:
            parts.append(f"took {_duration(took)}")
        elif self.done:
            parts.append(f"about {_duration((self._total - self.done) * took / self.done)} left")
        return "written " + ", ".join(parts)


class Updates:
    """How far a training is. Its speed is that of the updates of this run, without what compiles."""

    def __init__(self, done: int, total: int, now: float):
        """done: updates of earlier runs; total: wanted; now: seconds of any clock."""
        self._total, self._began = total, now
        self.done = done
        self._busy = ""  # with what else than updates
        self._since: float | None = None  # which time
        self._figures = ""
        self._seconds, self._counted = 0.0, 0

    def add(self, done: int, seconds: float, figures: str) -> None:
        """So many are done, of which the last took so long; figures: more about it, in words."""
        self.done, self._figures = done, figures
        self._seconds, self._counted = self._seconds + seconds, self._counted + 1

    def busy(self, what: str, since: float | None = None) -> None:
        """This goes on instead of updates, "" for nothing; with the time `since` then, it is told how long."""
        self._busy, self._since = what, since

    def line(self, now: float) -> str:
        """All of it, in words."""
        parts = [f"updates {self.done:,}/{self._total:,}", self._busy or self._figures]
        if self._busy and self._since is not None and now - self._since >= SOON:
            parts[-1] += f" for {_duration(now - self._since)}"
        if self.done == self._total:
            parts.append(f"took {_duration(now - self._began)}")
        elif self._counted and not self._busy:
            parts.append(f"about {_duration((self._total - self.done) * self._seconds / self._counted)} left")
        return ", ".join(filter(None, parts))


class Shown(Protocol):
    """What has a line of progress."""

    @property
    def done(self) -> int:
        """How much of it."""

    def line(self, now: float) -> str:
        """All of it, in words."""


class _Line(rich_progress.ProgressColumn):
    """The line of what is shown, as of now."""

    def __init__(self, of: Shown, clock: Callable[[], float]):
        super().__init__(table_column=rich_table.Column(no_wrap=True))
        self._of, self._clock = of, clock

    def render(self, task: rich_progress.Task) -> text.Text:
        return text.Text(self._of.line(self._clock()))


class Display:
    """Shows a line of progress; a context manager. A bar in a terminal; elsewhere the line is printed at the start,
    every half minute in which something is done, and at the end."""

    def __init__(
        self,
        of: Shown,
        total: int,
        *,
        console: rich_console.Console | None = None,
        clock: Callable[[], float] = time.monotonic,
        short: bool = True,
    ):
        """of: what is shown; total: of its `done`. short: tell of the beginning and the end, too, where no half minute
        passes."""
        self.console = console or terminal.console()
        self._of, self._total, self._clock, self._short = of, total, clock, short
        self._began = clock()
        self._said = self._began, of.done  # when, and how many
        columns = (rich_progress.BarColumn(bar_width=12), _Line(of, clock))
        self._bar = rich_progress.Progress(*columns, console=self.console, refresh_per_second=2)
        self._task = self._bar.add_task("", total=total, completed=of.done)

    def __enter__(self) -> Display:
        if self.console.is_interactive:
            self._bar.start()
        if self._short:
            self.tell()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.console.is_interactive:
            self._bar.stop()  # elsewhere it would print an empty line
        if self._of.done > self._said[1] and (self._short or self._clock() - self._began >= EVERY):
            self.tell()

    def tell(self) -> None:
        """Print the line where there is no bar, whenever the last one was."""
        if not self.console.is_interactive and not self.console.quiet:
            self._said = self._clock(), self._of.done
            line = self._of.line(self._clock())
            if not terminal.event("progress", text=line, done=self._of.done, total=self._total):
                self.console.print(line)

    def moved(self) -> None:
        """Something was done."""
        self._bar.update(self._task, completed=self._of.done)
        if self._clock() - self._said[0] >= EVERY:
            self.tell()


@contextlib.contextmanager
def answers(
    done: int,
    total: int,
    slots: int,
    *,
    console: rich_console.Console | None = None,
    clock: Callable[[], float] = time.monotonic,
    first: str = COMPILING,
) -> Iterator[Callable[[int], None]]:
    """Progress from `done` to `total` answers, of which `slots` are made at a time; yields a function to call with the
    tokens of each new one. first: what goes on before there is one.

    A bar in a terminal; elsewhere a line at the start, every half minute in which answers come, and at the end.
    """
    pace = Pace(done, total, slots, clock(), first)
    with _shown(pace, total, pace.add, console, clock) as advance:
        yield advance


@contextlib.contextmanager
def verdicts(
    judge: str,
    done: int,
    total: int,
    *,
    console: rich_console.Console | None = None,
    clock: Callable[[], float] = time.monotonic,
) -> Iterator[Callable[[int], None]]:
    """Progress from `done` to `total` verdicts of a judge; yields a function to call with the number of new ones. Shown
    as `answers`."""
    count = Verdicts(judge, done, total, clock())
    with _shown(count, total, count.add, console, clock) as advance:
        yield advance


@contextlib.contextmanager
def writing(
    total: int, *, console: rich_console.Console | None = None, clock: Callable[[], float] = time.monotonic
) -> Iterator[Callable[[int], None]]:
    """Progress to `total` bytes; yields a function to call with the bytes of each new part. A bar in a terminal;
    elsewhere a line every half minute, as of `answers`, but none where all takes less."""
    count = Written(total, clock())
    with _shown(count, total, count.add, console, clock, short=False) as advance:
        yield advance


@contextlib.contextmanager
def _shown(
    of: Shown,
    total: int,
    add: Callable[[int, float], None],
    console: rich_console.Console | None,
    clock: Callable[[], float],
    *,
    short: bool = True,
) -> Iterator[Callable[[int], None]]:
    """Yields a function that calls `add` with a number and the time, and shows `of`."""
    with Display(of, total, console=console, clock=clock, short=short) as display:

        def advance(number: int) -> None:
            add(number, clock())
            display.moved()

        yield advance


@contextlib.contextmanager
def reading(console: rich_console.Console, what: str = "conversations") -> Iterator[Tell]:
    """A transient bar in a terminal; yields a function to call with (read, total)."""
    if not console.is_interactive:
        yield lambda done, total: None
        return
    with rich_progress.Progress(console=console, transient=True) as bar:
        task = bar.add_task(f"reading {what}", total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)

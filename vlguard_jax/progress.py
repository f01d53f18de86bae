"""Progress of long commands in the terminal."""

from __future__ import annotations

from collections.abc import Callable, Iterator
import contextlib

from rich import console as rich_console
from rich import progress as rich_progress
from rich import text

Tell = Callable[[int, int], None]


class _Speed(rich_progress.ProgressColumn):
    """Answers per second, measured over the last half minute."""

    def render(self, task: rich_progress.Task) -> text.Text:
        speed = task.finished_speed or task.speed
        return text.Text(f"{speed:.2f} answers/s" if speed else "", style="progress.data.speed")


@contextlib.contextmanager
def answers(done: int, total: int) -> Iterator[Callable[[int], None]]:
    """A bar from `done` to `total` answers; yields a function to call with the number of new ones."""
    columns = (
        rich_progress.TextColumn("answers"),
        rich_progress.BarColumn(),
        rich_progress.MofNCompleteColumn(),
        _Speed(),
        rich_progress.TimeRemainingColumn(),
    )
    with rich_progress.Progress(*columns) as bar:
        task = bar.add_task("answers", total=total, completed=done)
        yield lambda count: bar.advance(task, count)


@contextlib.contextmanager
def reading(console: rich_console.Console) -> Iterator[Tell]:
    """A transient bar; yields a function to call with (conversations read, total)."""
    with rich_progress.Progress(console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("reading conversations", total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)

"""What long commands say of themselves: in a terminal, in a log, and nothing into a pipe that is not asked for."""

from __future__ import annotations

from collections.abc import Callable
import io
import random

import pytest
from rich import console as rich_console

from vlguard_jax import progress


class Clock:
    """Seconds that a test sets."""

    now = 100.0

    def __call__(self) -> float:
        return self.now


def shown(terminal: bool, tell: Callable[[Callable[[int], None], Clock], None], *, done: int = 0, total: int) -> str:
    """What is written while `tell` reports answers, four of which are made at a time."""
    out, clock = io.StringIO(), Clock()
    console = rich_console.Console(file=out, force_terminal=terminal, width=120)
    with progress.answers(done, total, 4, console=console, clock=clock) as advance:
        tell(advance, clock)
    return out.getvalue()


def test_a_log_gets_a_line_now_and_then() -> None:
    def tell(advance: Callable[[int], None], clock: Clock) -> None:
        for _ in range(100):  # two answers of 30 tokens every second, after 20 seconds of compiling
            clock.now += 1 if clock.now > 100 else 20
            advance(30)
            advance(30)

    first, *middle, last = shown(False, tell, done=1000, total=1200).splitlines()
    assert first == "answers 1,000/1,200, compiling before the first ones"
    # 175 wait, two a second; then four of 30 tokens each, which come at 60 tokens a second
    assert middle[0] == "answers 1,021/1,200, 2.00 answers/s, 60.0 tokens/s, about 90 s left"
    assert [line.split(",")[1] for line in middle] == ["021/1", "081/1", "141/1"]
    assert last == "answers 1,200/1,200, 2.00 answers/s, 60.0 tokens/s, took 2 min"


def test_a_log_says_where_an_evaluation_broke_off() -> None:
    def tell(advance: Callable[[int], None], clock: Clock) -> None:
        advance(3)
        raise KeyboardInterrupt

    out = io.StringIO()
    with pytest.raises(KeyboardInterrupt), progress.answers(0, 9, 4, console=rich_console.Console(file=out)) as advance:
        tell(advance, Clock())
    assert out.getvalue().splitlines()[-1].startswith("answers 1/9, ")


def test_a_terminal_gets_a_bar() -> None:
    def tell(advance: Callable[[int], None], clock: Clock) -> None:
        for _ in range(4):
            clock.now += 2
            advance(5)

    text = shown(True, tell, done=2, total=6)
    assert "\x1b[" in text and "answers 2/6, compiling before the first ones" in text
    assert "answers 6/6, 0.50 answers/s, 2.50 tokens/s, took 8 s" in text and text.count("\n") == 1


def test_nothing_is_promised_before_it_can_be_known() -> None:
    """All answers so far came at once, after a long compilation."""
    pace = progress.Pace(0, 100, 4, 0.0)
    assert pace.speeds(60.0) == (0.0, 0.0) and pace.left(60.0) is None
    for _ in range(4):
        pace.add(10, 60.0)
    assert pace.left(60.5) is None and "left" not in pace.line(60.5)
    assert pace.left(70.0) is not None


def test_long_answers_at_the_end_are_not_done_in_no_time() -> None:
    """When nothing waits, the last answers take as long as the longest did, not a share of the mean."""
    pace = progress.Pace(0, 20, 2, 0.0)
    for i in range(1, 19):  # one in 9 has 100 tokens; two slots give 20 tokens a second
        pace.add(100 if i % 9 == 0 else 10, float(i))
    assert pace.speeds(18.0) == (1.0, 20.0)  # of the answers 10 to 18
    assert pace.left(18.0) == pytest.approx(2 * 100 / 20) and pace.left(24.0) == pytest.approx(4)
    assert "the last ones are the longest" in pace.line(40.0)


def served(lengths: list[int], slots: int, begins: float) -> list[tuple[float, int]]:
    """(second, tokens) of answers made in slots that are refilled at once; a token in every slot takes 0.02 s."""
    free, found = [begins] * slots, []
    for length in lengths:
        at = min(range(slots), key=free.__getitem__)
        free[at] += 0.02 * length
        found.append((free[at], length))
    return sorted(found)


@pytest.mark.parametrize("slots", [16, 64])
@pytest.mark.parametrize("long", [0.02, 0.1, 0.5, 1.0])
def test_time_left_of_refilled_slots(slots: int, long: float) -> None:
    """From 40 % on, within a third, and two seconds at the end: `long` of the answers have 256 tokens, others 20."""
    draw = random.Random(0)
    answers = served([256 if draw.random() < long else 20 for _ in range(1558)], slots, begins=30.0)
    pace, ends, wrong = progress.Pace(0, len(answers), slots, 0.0), answers[-1][0], []
    for second, tokens in answers:
        pace.add(tokens, second)
        if 30 + 0.4 * (ends - 30) < second < ends:
            wrong.append((abs((pace.left(second) or 0.0) - (ends - second)) - 2) / (ends - second))
    assert len(wrong) > 500 and max(wrong) < 1 / 3, max(wrong)


@pytest.mark.parametrize("terminal", [True, False])
def test_reading_is_shown_on_a_terminal_alone(terminal: bool) -> None:
    out = io.StringIO()
    with progress.reading(rich_console.Console(file=out, force_terminal=terminal, width=80)) as tell:
        tell(3, 4)
    assert ("reading conversations" in out.getvalue()) is terminal
    assert ("75%" in out.getvalue() or "100%" in out.getvalue()) is terminal


def test_a_log_says_how_far_a_judge_is() -> None:
    out, clock = io.StringIO(), Clock()
    console = rich_console.Console(file=out, width=120)
    with progress.verdicts("guard", 100, 1300, console=console, clock=clock) as advance:
        for _ in range(3):
            clock.now += 60
            advance(400)
    first, *middle, last = out.getvalue().splitlines()
    assert first == "verdicts of guard 100/1,300"
    assert middle[0] == "verdicts of guard 500/1,300, 6.67 verdicts/s, about 2 min left"
    assert last == "verdicts of guard 1,300/1,300, 6.67 verdicts/s, took 3 min"


def test_a_training_says_what_it_does() -> None:
    told = progress.Updates(4, 24, 0.0)
    told.busy("compiling", 1.0)
    assert told.line(1.5) == "updates 4/24, compiling"
    assert told.line(20.0) == "updates 4/24, compiling for 19 s"
    told.busy("")
    told.add(5, 2.0, "loss 1.5")
    told.add(6, 4.0, "loss 1.25")
    assert told.line(99.0) == "updates 6/24, loss 1.25, about 54 s left"  # three seconds each, whatever compiled
    told.busy("probing vlguard")
    assert told.line(99.0) == "updates 6/24, probing vlguard"
    told.busy("")
    told.add(24, 3.0, "loss 1.0")
    assert told.line(100.0) == "updates 24/24, loss 1.0, took 2 min"


def test_nothing_is_printed_where_nothing_is_shown() -> None:
    """An empty line, for one."""
    out = io.StringIO()
    with progress.reading(rich_console.Console(file=out)) as tell:
        tell(3, 4)
    assert out.getvalue() == ""

"""Slow judges read the answers of an evaluation, a chunk at a time, by all processes together or by the first one."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
import contextlib
from typing import Any, Protocol, runtime_checkable

from vlguard_jax.safety import baseline as baseline_lib
from vlguard_jax.safety import questions as questions_lib
from vlguard_jax.safety import store as store_lib
from vlguard_jax.safety.judges import judge as judge_lib

# (judge's name, verdicts that exist, verdicts wanted) -> context around the work; yields a function to call with the
# number of new ones.
Progress = Callable[[str, int, int], contextlib.AbstractContextManager[Callable[[int], None]]]


@runtime_checkable
class Team(Protocol):
    """See run.Team."""

    @property
    def first(self) -> bool: ...

    def from_first(self, make: Callable[[], Any]) -> Any: ...


@contextlib.contextmanager
def silent(judge: str, done: int, total: int) -> Iterator[Callable[[int], None]]:
    """A progress display that shows nothing."""
    yield lambda verdicts: None


def judge_all(
    judging: Sequence[baseline_lib.Judging],
    questions: Sequence[questions_lib.Question],
    opened: Callable[[], store_lib.Store],
    team: Team,
    progress: Progress,
    release: Callable[[], None],
    say: Callable[[str], None],
) -> None:
    """Have every slow judge read the answers that it has not read yet.

    Args:
      judging: all judges of the evaluation, with the subsets that they read; quick ones are passed over.
      questions: all are answered.
      opened: the result files; called in the first process only.
      team: every process calls this function.
      progress: see `Progress`; used in the first process only.
      release: frees the devices for judges that need them.
      say: receives what remote judges were asked and spent.

    Raises:
      UserError: see `Store.unjudged`; or a judge cannot go on, or left answers without a verdict. What was judged
        stays.
    """
    for judge, measured in judging:
        if isinstance(judge, judge_lib.SlowJudge):
            read = {q.key: q for q in questions if q.item.subset in measured}
            if isinstance(judge, judge_lib.RemoteJudge):
                team.from_first(lambda judge=judge: judge.keep_in(opened().folder, say))  # type: ignore[misc]
            try:
                _judge(judge, read, opened, team, progress if team.first else silent, release)
            finally:
                judge.close()


def _judge(
    judge: judge_lib.SlowJudge,
    questions: Mapping[str, questions_lib.Question],
    opened: Callable[[], store_lib.Store],
    team: Team,
    progress: Progress,
    release: Callable[[], None],
) -> None:
    missing: list[str] = team.from_first(lambda: opened().unjudged(judge, list(questions.values())))
    if not missing:
        return
    if judge.together:
        release()
    with progress(judge.name, len(questions) - len(missing), len(questions)) as advance:
        for begin in range(0, len(missing), judge.chunk):
            chunk = [questions[key] for key in missing[begin : begin + judge.chunk]]
            if judge.together:
                _together(judge, chunk, opened, team)
            elif isinstance(judge, judge_lib.RemoteJudge):
                team.from_first(lambda chunk=chunk: opened().judge_some(judge, chunk))  # type: ignore[misc]
            else:
                team.from_first(lambda chunk=chunk: opened().judge(judge, chunk))  # type: ignore[misc]
            advance(len(chunk))
    if isinstance(judge, judge_lib.RemoteJudge):
        team.from_first(judge.check_complete)


def _together(
    judge: judge_lib.Judge,
    questions: Sequence[questions_lib.Question],
    opened: Callable[[], store_lib.Store],
    team: Team,
) -> None:
    """Only the first process has the answers and writes; all make the verdicts."""
    texts = team.from_first(lambda: opened().responses(questions))
    verdicts = judge.judge([store_lib.exchange(q, text) for q, text in zip(questions, texts, strict=True)])
    team.from_first(lambda: opened().record(judge, questions, verdicts))

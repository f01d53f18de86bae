"""An evaluation from settings to result files. Imports no jax: the model comes with its engine."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
import contextlib
import dataclasses
import itertools
import pathlib
from typing import Any, Protocol, cast, runtime_checkable

from vlguard_jax import config as settings_lib
from vlguard_jax import errors
from vlguard_jax import folders
from vlguard_jax import types
from vlguard_jax import workdir as workdir_lib
from vlguard_jax.families import extras as extras_lib
from vlguard_jax.families import table
from vlguard_jax.families.chat import choice
from vlguard_jax.families.chat import spans
from vlguard_jax.families.chat import templates
from vlguard_jax.safety import appending
from vlguard_jax.safety import asr
from vlguard_jax.safety import baseline as baseline_lib
from vlguard_jax.safety import judging as judging_lib
from vlguard_jax.safety import left_out
from vlguard_jax.safety import model as model_lib
from vlguard_jax.safety import paper
from vlguard_jax.safety import questions as questions_lib
from vlguard_jax.safety import results
from vlguard_jax.safety import rows as rows_lib
from vlguard_jax.safety import store as store_lib
from vlguard_jax.safety import summary
from vlguard_jax.safety.benchmarks import benchmark as benchmark_lib
from vlguard_jax.safety.benchmarks import registry as benchmarks
from vlguard_jax.safety.judges import judge as judge_lib
from vlguard_jax.safety.judges import local
from vlguard_jax.safety.judges import registry as judges

# Settings that may differ when a run is resumed, because none of them changes an answer; SLOTS: in fp32.
FREE = (
    "judges",
    "local_judges",
    "remote_judges",
    "paper_row",
    "baseline",
    "baseline_template",
    "mesh",
    "decode.reuse_gib",
    "benchmark.subsets",
    "benchmark.limit",
    "benchmark.order",
    "benchmark.skip",
    "benchmark.on_long_prompt",
    "benchmark.on_bad_picture",
    "model_name",
)
SLOTS = "decode.batch_size"

Answered = tuple[questions_lib.Question, types.Generation]

# (answers that exist, answers wanted, answers that are made at a time) -> context around the work; yields a function to
# call with the tokens of each new answer.
Progress = Callable[[int, int, int], contextlib.AbstractContextManager[Callable[[int], None]]]


@runtime_checkable
class Team(Protocol):
    """The processes that evaluate together.

    All ask the same questions in the same order; only the first writes files.
    """

    @property
    def first(self) -> bool:
        """Whether this is the process that writes."""
        ...

    def from_first(self, make: Callable[[], Any]) -> Any:
        """Run `make` in the first process only; return its JSON values, or raise its UserError, in every process."""
        ...

    def agree(self, digests: Mapping[str, str]) -> None:
        """Raise UserError in every process unless all pass the same digests of what they have read."""
        ...


class Alone:
    """A team of one process."""

    first = True

    def from_first(self, make: Callable[[], Any]) -> Any:
        """The result of `make`."""
        return make()

    def agree(self, digests: Mapping[str, str]) -> None:
        """Nothing to compare with."""


@contextlib.contextmanager
def silent(done: int, total: int, slots: int) -> Iterator[Callable[[int], None]]:
    """A progress display that shows nothing."""
    yield lambda tokens: None


def told(
    config: settings_lib.EvalConfig, extras: extras_lib.Extras, say: Callable[[str], None]
) -> settings_lib.EvalConfig:
    """Pass on the notes in a model's `extras`; returns the config, marked if the model was trained on stand-in
    pictures."""
    if "note" in extras:
        say(extras["note"])
    if not extras.get("provenance", {}).get("stand_in"):
        return config
    say("this model was trained on stand-in pictures: everything here is marked so")
    return dataclasses.replace(config, benchmark=dataclasses.replace(config.benchmark, stand_in=True))


def check_names(config: settings_lib.EvalConfig) -> tuple[list[judge_lib.Judge], benchmark_lib.Benchmark]:
    """Check what needs no file; returns the judges and the benchmark that are named.

    Raises:
      UserError: no model; unknown judge, benchmark, subset, template or row of the paper.
    """
    if not config.model.path:
        raise errors.UserError(
            "config.model.path is empty: name the model's folder or hub id with --config.model.path=..."
        )
    chosen = judges.of(config)
    for judge in chosen:
        if config.withhold_text and isinstance(judge, judge_lib.SlowJudge) and _late(judge):
            raise errors.UserError(
                f"config.judges: {judge.name} judges after all answers are there, and config.withhold_text=True keeps"
                " no text of them; leave one of the two out"
            )
    for template in {config.model.template, config.baseline_template} - {table.AUTO, ""}:
        choice.check_name(template)
    if config.paper_row:
        paper.check_row(config.paper_row)
    benchmark = benchmarks.get(config.benchmark.name)
    benchmark_lib.check_subsets(benchmark, config.benchmark)
    return chosen, benchmark


def _late(judge: judge_lib.SlowJudge) -> bool:
    """Whether it never reads an answer before it is stored."""
    return judge.together or isinstance(judge, judge_lib.RemoteJudge)


def check_ready(config: settings_lib.EvalConfig) -> None:
    """Raise UserError where a remote judge cannot be asked from here: no key, no client. Sends nothing."""
    for judge in judges.of(config):
        if isinstance(judge, judge_lib.RemoteJudge):
            judge.check_ready()


def check(config: settings_lib.EvalConfig) -> list[benchmark_lib.Item]:
    """Check what needs no model; returns the items to ask.

    Raises:
      UserError: see `check_names`; benchmark file or pictures missing or miscounted; an accuracy judge where no right
        answers are known, or a harm judge where nothing unsafe is asked.
    """
    chosen, benchmark = check_names(config)
    items = benchmark_lib.select(benchmark, config.benchmark)
    for judge in chosen:
        if not asr.metrics(judge, benchmark, items):
            raise errors.UserError(f"config.judges: {asr.why_none(judge, benchmark)}")
    return items


def check_baseline(
    config: settings_lib.EvalConfig,
    folder: pathlib.Path,
    grid_of: model_lib.Model | None = None,
    *,
    readers: local.Readers = local.NONE,
) -> None:
    """Check before the first answer that the baseline can be paired, for `evaluate` with a template of LLaVA's, or for
    `evaluate_grid` of a model.

    Raises:
      UserError: see `check` and `baseline.read`.
    """
    items = check(config) if config.baseline else []
    for part, place in _parts(config, folder, grid_of) if grid_of else [(config, folder)]:
        template = grid_of.template(part.model) if grid_of else templates.get_template(part.model.template)
        may_skip = "skip" in (part.benchmark.on_long_prompt, part.benchmark.on_bad_picture)
        skipped = left_out.read(pathlib.Path(part.baseline)) if may_skip else set()
        # these are checked once the prompts are known
        asked = [item for item in items if (item.subset, item.id) not in skipped]
        baseline_lib.read(part, place, asked, judging(config, items, readers), template)


def judging(
    config: settings_lib.EvalConfig, items: Sequence[benchmark_lib.Item], readers: local.Readers = local.NONE
) -> list[baseline_lib.Judging]:
    """The judges of an evaluation, each with the metric that it measures on each subset of the items."""
    benchmark = benchmarks.get(config.benchmark.name)
    return [(judge, asr.metrics(judge, benchmark, items)) for judge in judges.of(config, readers)]


def evaluate(
    config: settings_lib.EvalConfig,
    folder: pathlib.Path,
    model: model_lib.Model,
    *,
    readers: local.Readers = local.NONE,
    say: Callable[[str], None] = print,
    progress: Progress = silent,
    judged: judging_lib.Progress = judging_lib.silent,
    team: Team | None = None,
) -> list[summary.Row]:
    """Answer what is not answered yet, judge what is not judged yet, write the result files.

    Args:
      config: what to run.
      folder: working directory, claimed by the first answers. A stopped run continues where it was; judges can be added
        later.
      model: the model to ask.
      readers: models of the local judges that the config names.
      say: receives notices for the user.
      progress, judged: of answers, and of slow judges' verdicts; used in the first process only.
      team: the processes that evaluate together; None: this one alone.

    Returns:
      the rows of summary.json, one per judge and subset; in every process of a team.

    Raises:
      UserError: before the first answer; see `check`, `questions`, `left_out`, `baseline`, `store` and `workdir`.
    """
    team = team or Alone()
    team.from_first(lambda: check_ready(config))
    config = resolved(config, model)
    questions, skipped = left_out.split(config, model, check(config), team.from_first)
    if n := sum(spans.written_out(q.item.question, model.tokenizer) for q in questions):
        say(f"questions with special tokens written out, which become those tokens: {n:,}")
    judges_read = judging(config, [q.item for q in questions], readers)
    asked, judged_by = (results.sha256(repr(x)) for x in ([q.key for q in questions], _rules(judges_read)))
    team.agree({"weights": model.weights_sha256, "questions and pictures": asked, "judges": judged_by})
    kept: list[_Kept] = []  # one, in the first process only

    def open_files() -> list[str]:
        kept.append(_Kept(config, folder, model, questions, skipped, judges_read, say))
        return [q.key for q in kept[0].unanswered]

    by_key = {q.key: q for q in questions}
    missing = questions_lib.neighbours(by_key[key] for key in team.from_first(open_files))
    if missing:
        done, wanted, slots = len(questions) - len(missing), len(questions), config.decode.batch_size
        keep = kept[0].add if kept else _nowhere
        with (progress if team.first else silent)(done, wanted, slots) as advance, appending.beside(keep) as append:
            for answer in _answers(config, model, missing):
                append(answer)
                advance(len(answer[1].ids))
    judging_lib.judge_all(judges_read, questions, lambda: kept[0].claimed(), team, judged, model.release, say)
    return summary.made(team.from_first(lambda: summary.values(kept[0].rows())), summary.NAME, summary.Row)


def resolved(config: settings_lib.EvalConfig, model: model_lib.Model) -> settings_lib.EvalConfig:
    """The config with the template and the image mode that "auto" means for the model; "none" where it sees nothing."""
    mode = cast(settings_lib.ImageMode, table.image_mode(model.sizes, config.model.image_mode))
    asked = dataclasses.replace(config.model, template=model.template(config.model).name, image_mode=mode)
    return dataclasses.replace(config, model=asked)


def _rules(judging: Sequence[baseline_lib.Judging]) -> list[tuple[str, ...]]:
    return [results.rule(judge) for judge, _ in judging]


def _nowhere(answers: Sequence[Answered]) -> None:
    """Another process of the team writes them."""


class _Kept:
    """The result files of one evaluation."""

    def __init__(
        self,
        config: settings_lib.EvalConfig,
        folder: pathlib.Path,
        model: model_lib.Model,
        questions: Sequence[questions_lib.Question],
        skipped: Sequence[left_out.Skipped],
        judging: Sequence[baseline_lib.Judging],
        say: Callable[[str], None],
    ):
        """Read the existing files. Raises UserError, before the first answer: see `evaluate`."""
        self._config, self._folder, self._model = config, folder, model
        self._questions, self._skipped = questions, skipped
        self._claimed = False
        self._free = (*FREE, SLOTS) if model.dtype == "fp32" else FREE
        rounding = f", and in {model.dtype} answers depend on how many are decoded at a time (in fp32 they do not)"
        self._judging = judging
        workdir_lib.check(folder, config, free=self._free, why={SLOTS: rounding})
        items = [q.item for q in questions]
        self._baseline = baseline_lib.read(config, folder, items, judging, model.template(config.model))
        self._store = store_lib.Store(folder, config, model)
        self.unanswered = self._store.unanswered(questions)
        left_out.check_pictures(config, model, self.unanswered)
        workdir_lib.prepare(folder)
        for notice in (*left_out.write(folder, skipped), *self._store.notices):
            say(notice)

    def add(self, batch: Sequence[Answered]) -> None:
        """Write answers."""
        self.claimed().add(batch, self._judging)

    def claimed(self) -> store_lib.Store:
        """The result files, in a folder that belongs to this evaluation from the first result on."""
        if not self._claimed:
            workdir_lib.claim(self._folder, self._config, free=self._free)
            self._claimed = True
        return self._store

    def rows(self) -> list[summary.Row]:
        """Judge what quick judges have not read yet, and write summary.json."""
        self.claimed()
        config, model, judging = self._config, self._model, self._judging
        rows = rows_lib.build(
            config, model, judging, self._questions, self._skipped, store=self._store, baseline=self._baseline
        )
        summary.write(self._folder / summary.NAME, rows)
        return rows


def evaluate_grid(
    config: settings_lib.EvalConfig,
    folder: pathlib.Path,
    model: model_lib.Model,
    *,
    readers: local.Readers = local.NONE,
    say: Callable[[str], None] = print,
    progress: Progress = silent,
    judged: judging_lib.Progress = judging_lib.silent,
    team: Team | None = None,
) -> list[summary.Row]:
    """`evaluate` for every template with every image mode, each in its own folder below `folder`, which gets all rows.

    Which pair gives the paper's numbers is an open question (VLGuard issue 9).
    """
    rows: list[summary.Row] = []
    for part, place in _parts(config, folder, model):
        folders.check_no_link(place)
        rows += evaluate(part, place, model, readers=readers, say=say, progress=progress, judged=judged, team=team)
    if team is None or team.first:
        summary.write(folder / summary.NAME, rows)
    return rows


def _parts(
    config: settings_lib.EvalConfig, folder: pathlib.Path, model: model_lib.Model
) -> Iterator[tuple[settings_lib.EvalConfig, pathlib.Path]]:
    """(settings, working directory) of every evaluation of a grid.

    Its baseline is a grid too, part by part.
    """
    modes = model.sees.modes if model.sees else (table.AUTO,)
    for template, mode in itertools.product(model.templates, cast(Sequence[settings_lib.ImageMode], modes)):
        asked = dataclasses.replace(config.model, template=template, image_mode=mode)
        name = f"{template}-{mode}"
        baseline = str(pathlib.Path(config.baseline) / name) if config.baseline else ""
        yield dataclasses.replace(config, model=asked, preset=f"{template}+{mode}", baseline=baseline), folder / name


def _answers(
    config: settings_lib.EvalConfig, model: model_lib.Model, questions: Sequence[questions_lib.Question]
) -> Iterator[Answered]:
    by_key = {q.key: q for q in questions}
    for generation in model.engine().generate(questions_lib.prompts(questions, model, config.model.image_mode)):
        yield by_key.pop(generation.id), generation
    if by_key:
        raise RuntimeError(f"the engine left {len(by_key)} prompts unanswered")

"""A few answers of every model with their questions and pictures, chosen by a rule, not by hand."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
import dataclasses
import hashlib
import io

from vlguard_jax import errors
from vlguard_jax import files
from vlguard_jax import limits
from vlguard_jax.data import images
from vlguard_jax.reporting import embedded
from vlguard_jax.reporting import grid as grid_lib
from vlguard_jax.reporting import runs
from vlguard_jax.safety import asr
from vlguard_jax.safety import results
from vlguard_jax.safety.benchmarks import benchmark as benchmark_lib
from vlguard_jax.safety.benchmarks import registry
from vlguard_jax.safety.judges import registry as judges_lib

ITEMS = 3  # per subset
LETTERS = 1500  # of an answer


@dataclasses.dataclass(frozen=True)
class Badge:
    """A verdict in one word. `tone`: "good", "bad" or "plain"."""

    text: str
    judge: str
    tone: str


@dataclasses.dataclass(frozen=True)
class Answer:
    """One model's answer; where it was withheld, `text` is its sha256."""

    model: str
    text: str
    withheld: bool
    badges: tuple[Badge, ...]


@dataclasses.dataclass(frozen=True)
class Item:
    """One question with its pictures and the answers of all models."""

    id: str
    category: str
    question: str
    pictures: tuple[embedded.Picture, ...]
    answers: tuple[Answer, ...]


@dataclasses.dataclass(frozen=True)
class Subset:
    """The shown items of a subset; `total` is how many all models answered. `unsafe`: fold and blur it."""

    title: str
    name: str
    unsafe: bool
    total: int
    items: tuple[Item, ...]


Answered = dict[str, tuple[runs.Evaluation, results.GenerationLine]]  # model's label -> its answer


def choose(ids: Iterable[str], count: int) -> list[str]:
    """The `count` ids with the smallest sha256."""
    return sorted(ids, key=lambda i: hashlib.sha256(i.encode()).hexdigest())[:count]


def show(evaluations: Sequence[runs.Evaluation], grid: grid_lib.Grid) -> list[Subset]:
    """The same few items of every subset for every model; control runs are left out."""
    found: dict[tuple[str, str], dict[str, Answered]] = {}
    for evaluation in evaluations:
        for subset, label in _labels(evaluation, grid).items():
            for line in evaluation.answers:
                if line.subset == subset:
                    items = found.setdefault((line.benchmark, subset), {})
                    items.setdefault(line.item_id, {}).setdefault(label, (evaluation, line))
    order = list(dict.fromkeys((c.benchmark, c.subset) for c in grid.columns))
    return [_subset(*key, found[key], grid) for key in order if key in found]


def _labels(evaluation: runs.Evaluation, grid: grid_lib.Grid) -> dict[str, str]:
    """Subset -> label of the grid line with this evaluation's row."""
    return {
        column.subset: line.label
        for line in grid.lines
        for column, cell in zip(grid.columns, line.cells, strict=True)
        if cell and cell.rated and cell.rated.evaluation is evaluation and not column.control
    }


def _subset(benchmark: str, name: str, items: Mapping[str, Answered], grid: grid_lib.Grid) -> Subset:
    columns = [c for c in grid.columns if (c.benchmark, c.subset) == (benchmark, name) and not c.control]
    models = max(len(answered) for answered in items.values())
    complete = [i for i, answered in items.items() if len(answered) == models]
    shown = tuple(_item(i, items[i]) for i in choose(complete, ITEMS))
    # Treated as unsafe unless known to be harmless.
    harmless = (grid_lib.GROUPS["refusal_rate"], grid_lib.GROUPS["accuracy"])
    unsafe = not any(c.group in harmless for c in columns)
    return Subset(grid.heading(columns[0]), name, unsafe, len(complete), shown)


def _item(item_id: str, answered: Answered) -> Item:
    _, line = next(iter(answered.values()))
    source = next((s for e, a in answered.values() if (s := _source(e, a))), None)
    question = source.question if source else "The question is not at hand: the benchmark's file has moved since."
    if line.question:
        question = line.question
    elif source and results.sha256(source.question) != line.question_sha256:
        question = "The benchmark's file has changed since the models were asked, so the question is not shown."
    if any(answer.withheld for _, answer in answered.values()):
        question = "Withheld, as answers are."
    return Item(
        id=item_id,
        category=" / ".join(part for part in (line.category, line.subcategory) if part),
        question=question,
        pictures=tuple(picture(source, shown) for shown in line.pictures),
        answers=tuple(_answer(label, e, a) for label, (e, a) in answered.items()),
    )


def _source(evaluation: runs.Evaluation, line: results.GenerationLine) -> benchmark_lib.Item | None:
    """The benchmark's item behind an answer; None where its files are missing."""
    return questions(evaluation, line.subset).get(line.item_id)


def questions(evaluation: runs.Evaluation, subset: str) -> dict[str, benchmark_lib.Item]:
    """The benchmark's items of a subset by id; none where its files are missing, or it is of the user's own: no code
    is run because a result file names it."""
    settings = evaluation.config.benchmark
    if settings.name not in registry.BENCHMARKS:
        return {}
    try:
        found = registry.BENCHMARKS[settings.name].load(settings, subset)
    except (errors.UserError, OSError):
        return {}
    return {item.id: item for item in found}


def _answer(label: str, evaluation: runs.Evaluation, line: results.GenerationLine) -> Answer:
    metrics = {row.judge: row.metric for row in evaluation.rows if row.subset == line.subset}
    verdicts = {v.judge: v for v in evaluation.verdicts if v.key == line.key and v.judge in metrics}
    text = line.response.strip()
    if len(text) > LETTERS:
        text = f"{text[:LETTERS]} … ({len(text) - LETTERS:,} more letters)"
    badges = (_badge(v, metrics[j], judges_lib.measures(j, evaluation.config)) for j, v in verdicts.items())
    return Answer(label, text, line.withheld, tuple(badges))


# By what a judge measures; of the user's own, which only an evaluation loads, the labels as they are.
_WORDS = {
    "refusal": {"comply": "answered", "refuse": "refused", "partial": "partly answered"},
    "harm": {"comply": "harmful", "refuse": "not harmful", "partial": "may be harmful"},
}


def _badge(verdict: results.VerdictLine, metric: str, measured: str) -> Badge:
    if metric == "accuracy":
        right = verdict.score == 1.0
        return Badge("right" if right else "wrong", verdict.judge, "good" if right else "bad")
    if metric in asr.SCORED and verdict.score is not None:
        what, good = ("preferred", verdict.score >= 0.5) if metric == "win_rate" else ("harm", verdict.score < 0.5)
        return Badge(f"{what} {verdict.score:g}", verdict.judge, "good" if good else "bad")
    words = {"invalid": "not judged", **_WORDS.get(measured, {})}
    wanted = "refuse" if metric == "asr" else "comply"
    tone = "plain" if verdict.label == "invalid" else "good" if verdict.label == wanted else "bad"
    return Badge(words.get(verdict.label, verdict.label), verdict.judge, tone)


def picture(source: benchmark_lib.Item | None, shown: results.Picture, side: int = embedded.SIDE) -> embedded.Picture:
    """A picture that a model was shown, at most `side` pixels long; or why it cannot be."""
    at_hand = {one.name: one.path for one in source.pictures} if source else {}
    path = at_hand.get(shown.path)
    if path is None or not path.is_file():
        return embedded.Picture(trouble="The picture is not at hand.")
    try:
        data = files.read_bytes(path, limits.PICTURE_BYTES)
    except errors.UserError:
        return embedded.Picture(trouble="The picture cannot be read.")
    if results.sha256(data) != shown.sha256:
        return embedded.Picture(trouble="The picture's file has changed since the models saw it, so it is not shown.")
    try:
        pixels = images.to_rgb(io.BytesIO(data))
    except images.Fault:
        return embedded.Picture(trouble="The picture cannot be read.")
    return embedded.embed(pixels, side)

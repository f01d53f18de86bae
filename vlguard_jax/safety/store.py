"""The answers and verdicts of one working directory."""

from __future__ import annotations

from collections.abc import Container, Iterable, Sequence
import dataclasses
import datetime
import pathlib
from typing import Any
import uuid

from vlguard_jax import config as settings_lib
from vlguard_jax import errors
from vlguard_jax import types
from vlguard_jax import versions
from vlguard_jax import workdir
from vlguard_jax.safety import model as model_lib
from vlguard_jax.safety import questions as questions_lib
from vlguard_jax.safety import results
from vlguard_jax.safety.benchmarks import registry as benchmarks
from vlguard_jax.safety.judges import judge as judge_lib

Judging = tuple[judge_lib.Judge, Container[str]]  # a judge and the subsets that it reads


class Store:
    """Reads a folder's result files and appends to them.

    Attributes:
      folder: where they are.
      notices: what had to be repaired, as sentences for the user.
    """

    def __init__(self, folder: pathlib.Path, config: settings_lib.EvalConfig, model: model_lib.Model):
        """Raises UserError: a broken result line, or answers of another run in a folder without config.json."""
        self.folder = folder
        self._config, self._model = config, model
        self._generations = results.Lines(folder / results.GENERATIONS, results.GenerationLine)
        self._verdicts = results.Lines(folder / results.VERDICTS, results.VerdictLine)
        self.notices = [n for n in (self._generations.notice, self._verdicts.notice) if n]
        self._answers = {line.key: line for line in self._generations.lines}
        self._found = {(line.key, line.rule): line.verdict for line in self._verdicts.lines}
        self._decode = questions_lib.decode(config, model.dtype)
        self._run_id = uuid.uuid4().hex[:12]
        self._versions = versions.installed()
        self._code_sha256 = benchmarks.get(config.benchmark.name).code_sha256
        self._made_with: dict[str, Any] = {
            "benchmark": config.benchmark.name,
            "preset": config.preset,
            "template": config.model.template,
            "template_sha256": model.template(config.model).sha256,
            "preprocessing": config.model.image_mode,
            "weights_sha256": model.weights_sha256,
            "decode": self._decode,
        }
        if self._decode.slots and (old := sum(not line.decode.slots for line in self._generations.lines)):
            self.notices.append(
                f"{self._generations.path}: {old:,} answers in {model.dtype} do not say how many were decoded at a"
                " time, on which they depend; their questions are asked again"
            )
        if self._generations.lines and not (folder / workdir.CONFIG_FILE).exists():
            self._check_made_with(folder / workdir.CONFIG_FILE)

    def _check_made_with(self, missing: pathlib.Path) -> None:
        for number, line in enumerate(self._generations.lines, 1):
            for name, ours in self._made_with.items():
                if (theirs := getattr(line, name)) != ours:
                    raise errors.UserError(
                        f"{self._generations.path}:{number} belongs to another run: {name} is {errors.short(ours)} here"
                        f" and {errors.short(theirs)} there ({missing.name} is missing); choose another --workdir, or"
                        " the same config to resume"
                    )
        self.notices.append(f"{missing} was missing; the answers record the same settings")

    def unanswered(self, questions: Iterable[questions_lib.Question]) -> list[questions_lib.Question]:
        """Questions without an answer, each key once."""
        return list({q.key: q for q in questions if q.key not in self._answers}.values())

    def cut(self, questions: Iterable[questions_lib.Question]) -> int:
        """How many of the (answered) questions have an answer that was cut at the limit of new tokens."""
        return sum(self._answers[q.key].finish_reason != "stop" for q in questions)

    def add(
        self, answered: Sequence[tuple[questions_lib.Question, types.Generation]], judging: Sequence[Judging] = ()
    ) -> None:
        """Append answers. Where the text is withheld, the judges read it first and only its hash is stored."""
        lines = [self._line(q, g) for q, g in answered]
        if self._config.withhold_text:
            # Verdicts first: an answer whose text is gone can never be judged again.
            for judge, subsets in judging:
                pairs = [(q, line.response) for (q, _), line in zip(answered, lines, strict=True)]
                self._judge(judge, [(q, text) for q, text in pairs if q.item.subset in subsets])
            lines = [_withheld(line) for line in lines]
        self._generations.append(lines)
        self._answers |= {line.key: line for line in lines}

    def verdicts(self, judge: judge_lib.Judge, questions: Sequence[questions_lib.Question]) -> list[judge_lib.Verdict]:
        """One verdict per (answered) question; judges and appends what this judge has not seen yet.

        Raises:
          UserError: an answer's text was withheld, and this judge has not read it.
        """
        missing = set(self.unjudged(judge, questions))
        self.judge(judge, list({q.key: q for q in questions if q.key in missing}.values()))
        return [self._found[q.key, results.rule(judge)] for q in questions]

    def unjudged(self, judge: judge_lib.Judge, questions: Sequence[questions_lib.Question]) -> list[str]:
        """Keys of the (answered) questions whose answers this judge has not read yet, each once.

        Raises:
          UserError: the text of one of these was withheld.
        """
        missing = list(dict.fromkeys(q.key for q in questions if not self._seen(judge, q)))
        if late := sum(self._answers[key].withheld for key in missing):
            raise errors.UserError(
                f"{self._generations.path}: the text of {late} answers was withheld, {judge.name} can no longer read"
                " it; generate again in another --workdir with this judge in config.judges"
            )
        return missing

    def responses(self, questions: Iterable[questions_lib.Question]) -> list[str]:
        """The answers' texts."""
        return [self._answers[q.key].response for q in questions]

    def judge(self, judge: judge_lib.Judge, questions: Sequence[questions_lib.Question]) -> None:
        """Have the answers judged, and append the verdicts."""
        self._judge(judge, list(zip(questions, self.responses(questions), strict=True)))

    def judge_some(self, judge: judge_lib.RemoteJudge, questions: Sequence[questions_lib.Question]) -> None:
        """As `judge`, where some answers may be left without a verdict."""
        answers = list(zip(questions, self.responses(questions), strict=True))
        found = judge.judge_some([exchange(q, text) for q, text in answers])
        given = [(q, verdict) for q, verdict in zip(questions, found, strict=True) if verdict is not None]
        self.record(judge, [q for q, _ in given], [verdict for _, verdict in given])

    def _seen(self, judge: judge_lib.Judge, question: questions_lib.Question) -> bool:
        verdict = self._found.get((question.key, results.rule(judge)))
        # The expected answer may have been corrected since.
        return verdict is not None and judge_lib.of_reference(judge, verdict, question.item.reference)

    def _judge(self, judge: judge_lib.Judge, pairs: Sequence[tuple[questions_lib.Question, str]]) -> None:
        if not pairs:
            return
        verdicts = judge.judge([exchange(q, text) for q, text in pairs])
        self.record(judge, [q for q, _ in pairs], verdicts)

    def record(
        self,
        judge: judge_lib.Judge,
        questions: Sequence[questions_lib.Question],
        verdicts: Sequence[judge_lib.Verdict],
    ) -> None:
        """Append verdicts, one per question."""
        now, rule = _now(), results.rule(judge)
        lines = [
            results.VerdictLine(q.key, *rule, verdict.label, verdict.score, verdict.raw, now, verdict.by)
            for q, verdict in zip(questions, verdicts, strict=True)
        ]
        self._verdicts.append(lines)
        self._found |= {(line.key, line.rule): line.verdict for line in lines}

    def _line(self, question: questions_lib.Question, generation: types.Generation) -> results.GenerationLine:
        item, model = question.item, self._model
        return results.GenerationLine(
            key=question.key,
            subset=item.subset,
            item_id=item.id,
            pictures=question.pictures,
            image_mode=question.image_mode,
            stand_in=item.stand_in,
            category=item.category,
            subcategory=item.subcategory,
            prompt_sha256=question.prompt_sha256,
            question_sha256=results.sha256(item.question),
            n_prompt_tokens=len(question.ids),
            response=model.tokenizer.decode(generation.ids.tolist()),
            withheld=False,
            finish_reason=generation.finish_reason,
            n_new_tokens=len(generation.ids),
            model=model.name,
            versions=self._versions,
            run_id=self._run_id,
            time=_now(),
            question=item.question,
            benchmark_sha256=self._code_sha256,
            **self._made_with,
        )


def _withheld(line: results.GenerationLine) -> results.GenerationLine:
    return dataclasses.replace(line, response=results.sha256(line.response), question="", withheld=True)


def exchange(question: questions_lib.Question, response: str) -> judge_lib.Exchange:
    """What a judge reads about an answer; pictures only where they were shown."""
    item = question.item
    pictures = tuple(picture.path for picture in item.pictures) if question.image_mode == "real" else ()
    return judge_lib.Exchange(item.question, response, pictures, item.category, item.reference)


def _now() -> str:
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")

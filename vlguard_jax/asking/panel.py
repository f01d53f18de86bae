"""The models that are asked together, and the judges of their answers.

A question is made a prompt, and answered, by what `evaluate` uses: the same template, preprocessing and engine, with
the same settings. So the first answer of a conversation is the evaluation's, token for token; later prompts hold the
conversation so far, rendered as in training.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping, Sequence
import dataclasses
import typing

import numpy as np

from vlguard_jax import config as settings_lib
from vlguard_jax import errors
from vlguard_jax import types
from vlguard_jax.asking import given
from vlguard_jax.checkpoints import gate
from vlguard_jax.data import images
from vlguard_jax.families.chat import choice
from vlguard_jax.families.chat import conversations
from vlguard_jax.generation import engine as engine_lib
from vlguard_jax.safety import from_checkpoint
from vlguard_jax.safety import model as model_lib
from vlguard_jax.safety import reader
from vlguard_jax.safety import run
from vlguard_jax.safety.judges import judge as judge_lib
from vlguard_jax.safety.judges import registry

STEPS = 4  # tokens of an answer that come at a time
COMPILED = "programs are compiled before the first answer"


@typing.runtime_checkable
class Engine(typing.Protocol):
    """What answers a prompt, some tokens at a time (generation/engine.py)."""

    begun: Mapping[str, np.ndarray]

    def submit(self, prompt: types.Prompt) -> None: ...

    def step(self, steps: int) -> list[types.Generation | engine_lib.Failed]: ...

    def cancel(self) -> None: ...


@dataclasses.dataclass(frozen=True)
class Picture:
    """A picture as each model reads it."""

    name: str
    read: tuple[types.Picture, ...]


@dataclasses.dataclass(frozen=True)
class Question:
    """A question about the pictures that are shown with it."""

    text: str
    pictures: tuple[Picture, ...] = ()


@dataclasses.dataclass(frozen=True)
class Round:
    """A question with the answer of each model."""

    question: Question
    answers: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class Said:
    """What a model has said so far; `model` counts them."""

    model: int
    text: str


@dataclasses.dataclass(frozen=True)
class Judged:
    """What a judge, which measures `measures`, says of an answer."""

    judge: str
    measures: str
    verdict: judge_lib.Verdict


@dataclasses.dataclass(frozen=True)
class Answer:
    """A whole answer. ids, finish_reason: as in types.Generation. prompt_tokens: those of pictures included."""

    model: int
    text: str
    ids: tuple[int, ...]
    finish_reason: str
    prompt_tokens: int
    verdicts: tuple[Judged, ...]


class Speaker:
    """A model that is asked. Raises UserError where it has no such template or image mode."""

    def __init__(self, model: model_lib.Model, config: settings_lib.EvalConfig):
        self.config = run.resolved(config, model)
        self.model = model
        self.template = model.template(config.model)

    def picture(self, source: str | bytes, name: str) -> types.Picture:
        """As `images.load`."""
        return images.load(source, self.model.sizes, self.config.model.image_mode, name=name)

    def prompt(
        self, text: str, pictures: Sequence[types.Picture], new: int, before: Sequence[types.Round]
    ) -> tuple[types.Prompt, int]:
        """A prompt and its length. pictures: of the whole conversation; the last `new` come with this question.

        Raises:
          UserError: as `conversations.tokenize_prompt`, or prompt and answer exceed the model's context.
        """
        ids = conversations.tokenize_prompt(text, new, self.model.tokenizer, self.template, "the question", before)
        taken = len(ids) - len(pictures) + sum(one.extent.slots for one in pictures)
        most, context = self.config.decode.max_new_tokens, self.model.context
        if context is not None and taken + most > context:
            raise errors.UserError(
                f"the conversation takes {taken:,} tokens and up to {most:,} of the answer"
                f" (config.decode.max_new_tokens), and {self.model.name} has {context:,} positions: begin a new one, or"
                " lower max_new_tokens"
            )
        return types.Prompt("asked", ids, tuple(pictures), "the question"), taken

    @property
    def engine(self) -> Engine:
        """Made when it is first asked for."""
        return typing.cast(Engine, self.model.engine())


class Panel:
    """Models, and judges of their answers; one question at a time."""

    def __init__(self, speakers: Sequence[Speaker], judges: Sequence[judge_lib.Judge]):
        """Raises UserError: a judge cannot judge such answers here."""
        self._speakers, self._judges = tuple(speakers), tuple(judges)
        names = [one.model.name for one in speakers]
        self.names = tuple(
            f"{name} (weights {one.model.weights_sha256[:8]})" if names.count(name) > 1 else name
            for name, one in zip(names, speakers, strict=True)
        )
        for judge in judges:
            given.check_judge(judge)

    def picture(self, source: str | bytes, name: str = "") -> Picture:
        """A picture for a question: a path, or the content of a file of this name.

        Raises:
          UserError: one of the models cannot use it, or sees none.
        """
        return Picture(name or str(source), tuple(self._read(i, source, name) for i in range(len(self._speakers))))

    def _read(self, number: int, source: str | bytes, name: str) -> types.Picture:
        try:
            return self._speakers[number].picture(source, name)
        except errors.UserError as e:
            raise errors.UserError(f"{self.names[number]}: {e}" if len(self.names) > 1 else str(e)) from e

    def ask(self, question: Question, before: Sequence[Round] = ()) -> Generator[Said | Answer, None, None]:
        """Ask all models; yields what each says after every few tokens, and its whole answer at its end. Closing the
        generator ends their answers.

        Raises:
          UserError: as `Speaker.prompt`; or scores that are not finite.
        """
        asked = [self._prompt(i, question, before) for i in range(len(self._speakers))]
        going = dict(enumerate(one.engine for one in self._speakers))
        try:
            for i, engine in going.items():
                engine.submit(asked[i][0])
            while going:
                for i, engine in tuple(going.items()):
                    made = _step(engine)
                    if made is not None:
                        del going[i]
                        yield self._answer(i, made, asked[i][1], question, before)
                    else:
                        yield Said(i, self._so_far(i, engine))
        finally:
            for engine in going.values():
                engine.cancel()

    def _prompt(self, number: int, question: Question, before: Sequence[Round]) -> tuple[types.Prompt, int]:
        if any("\ud800" <= char <= "\udfff" for char in question.text):
            raise errors.UserError("the question holds half of a character, or is no UTF-8: type it again")
        questions = [*(one.question for one in before), question]
        pictures = [picture.read[number] for one in questions for picture in one.pictures]
        # answers without the spaces around them, as llava/serve/cli.py keeps them
        rounds = [
            types.Round(one.question.text, len(one.question.pictures), one.answers[number].strip()) for one in before
        ]
        return self._speakers[number].prompt(question.text, pictures, len(question.pictures), rounds)

    def _so_far(self, number: int, engine: Engine) -> str:
        """The text of an answer that goes on, without the beginning of a character."""
        (ids,) = engine.begun.values()
        return self._speakers[number].model.tokenizer.decode(ids.tolist()).rstrip("\ufffd")

    def _answer(
        self, number: int, made: types.Generation, tokens: int, question: Question, before: Sequence[Round]
    ) -> Answer:
        ids = made.ids.tolist()
        text = self._speakers[number].model.tokenizer.decode(ids)
        earlier = tuple((one.question.text, one.answers[number]) for one in before)
        exchange = judge_lib.Exchange(question.text, text, before=earlier)
        verdicts = tuple(Judged(one.name, one.measures, one.judge([exchange])[0]) for one in self._judges)
        return Answer(number, text, tuple(ids), made.finish_reason, tokens, verdicts)


def _step(engine: Engine) -> types.Generation | None:
    """The answer, if it has come to its end."""
    for one in engine.step(STEPS):
        if isinstance(one, engine_lib.Failed):
            raise errors.UserError(one.message)
        return one
    return None


def opened(configs: Sequence[settings_lib.EvalConfig], say: Callable[[str], None]) -> Panel:
    """Load models, and the judges of the first one's config. say: receives notices for the user.

    Raises:
      UserError: as `from_checkpoint.loaded`, `registry.of`, `reader.readers`, `Speaker` and `Panel`.
    """
    judges = registry.of(configs[0], reader.readers(configs[0]))
    return Panel([_speaker(config, say) for config in configs], judges)


def _speaker(config: settings_lib.EvalConfig, say: Callable[[str], None]) -> Speaker:
    checkpoint = from_checkpoint.loaded(config)
    made = from_checkpoint.as_model(checkpoint, config)
    speaker = Speaker(made, config)
    say(f"{made.name}: {choice.told(speaker.template)}, pictures {speaker.config.model.image_mode}, {made.dtype}")
    if checkpoint.extras.get("provenance", {}).get("stand_in"):
        say(f"{made.name} was trained on stand-in pictures")
    for line in (checkpoint.extras.get("note", ""), gate.told(checkpoint)):
        if line:
            say(f"{made.name}: {line}")
    return speaker

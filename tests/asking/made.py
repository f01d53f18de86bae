"""Panels of models whose engines answer by rule, some tokens at a time; all text is harmless."""

from __future__ import annotations

from collections.abc import Callable, Sequence
import dataclasses
import pathlib

import numpy as np

from tests.data import stand as data_stand
from vlguard_jax import config
from vlguard_jax import types
from vlguard_jax.asking import panel as panel_lib
from vlguard_jax.safety import model as model_lib
from vlguard_jax.safety.judges import judge as judge_lib
from vlguard_jax.safety.judges import keyword

REFUSAL = "No. I'm sorry, I cannot."


class Engine:
    """Says `answer(number of prompts before)`; asked: the prompts. at_step: called before every step."""

    def __init__(self, tokenizer, answer: Callable[[int], str], at_step: Callable[[], None] = lambda: None):
        self.tokenizer, self.answer, self.at_step = tokenizer, answer, at_step
        self.begun: dict[str, np.ndarray] = {}
        self.asked: list[types.Prompt] = []
        self.cancelled = 0
        self._left: tuple[str, list[int], int] | None = None

    def submit(self, prompt: types.Prompt) -> None:
        assert self._left is None, "two questions at a time"
        self._left = prompt.id, self.tokenizer.encode(self.answer(len(self.asked)), add_bos=False), 0
        self.asked.append(prompt)

    def step(self, steps: int) -> list:
        self.at_step()
        assert self._left is not None
        id_, ids, at = self._left
        self.begun = {id_: np.asarray(ids[: at + steps], np.int32)}
        self._left = (id_, ids, at + steps) if at + steps < len(ids) else None
        if self._left is not None:
            return []
        self.begun = {}
        return [types.Generation(id_, np.asarray(ids, np.int32), "stop", np.zeros(len(ids), np.float32))]

    def cancel(self) -> None:
        self.cancelled += 1
        self._left = None

    def text(self, number: int) -> str:
        """The text of a prompt, without its pictures."""
        ids = [int(i) for i in self.asked[number].ids if i != types.IMAGE_TOKEN]
        return self.tokenizer.decode(ids, skip_special=False)


@dataclasses.dataclass(frozen=True)
class Judge:
    """Finds harmful what holds `word`; remembers what it read."""

    word: str = "fox"
    name: str = "fox_v1"
    version: str = "1"
    prompt_sha256: str = ""
    measures: str = "harm"
    read: list[judge_lib.Exchange] = dataclasses.field(default_factory=list)

    def judge(self, exchanges: Sequence[judge_lib.Exchange]) -> list[judge_lib.Verdict]:
        self.read.extend(exchanges)
        return [judge_lib.Verdict("comply" if self.word in one.response else "refuse", 0.5) for one in exchanges]


def panel(
    folder: pathlib.Path,
    *answers: Callable[[int], str],
    judges: Sequence[judge_lib.Judge] = (keyword.VlguardKeywords(),),
    at_step: Callable[[], None] = lambda: None,
    context: int | None = None,
) -> tuple[panel_lib.Panel, list[Engine]]:
    """A panel of a model for each rule, named "fox", "dog", ..., and their engines."""
    tokenizer = data_stand.make_tokenizer(folder / "tokenizer")
    engines = [Engine(tokenizer, answer, at_step) for answer in answers]
    names = ("fox", "dog", "cat")
    settings = config.EvalConfig(model=config.ModelSettings(path="m", template="vicuna_v1"))
    models = [
        model_lib.Model(name, "w" * 64, "f" * 64, tokenizer, data_stand.sees(), "fp32", lambda one=one: one, context)
        for name, one in zip(names, engines, strict=False)
    ]
    return panel_lib.Panel([panel_lib.Speaker(one, settings) for one in models], judges), engines

"""A small benchmark on disk, and a model whose engine answers by rule. All text is harmless."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
import dataclasses
import json
import pathlib
from typing import Any

import numpy as np

from tests.data import stand as data_stand
from vlguard_jax import config
from vlguard_jax import types
from vlguard_jax.safety import model as model_lib
from vlguard_jax.safety import results
from vlguard_jax.safety import summary

UNSAFE, SAFE = 3, 4  # records of each kind


def write_benchmark(folder: pathlib.Path) -> pathlib.Path:
    """VLGuard's files in small: test.json and its pictures under `test`."""
    folder.mkdir(parents=True, exist_ok=True)
    values = [data_stand.vlguard_value(i, safe=i >= UNSAFE) for i in range(UNSAFE + SAFE)]
    for i, value in enumerate(values):
        data_stand.write_picture(folder / "test" / value["image"], seed=i)
    (folder / "test.json").write_text(json.dumps(values))
    return folder


@dataclasses.dataclass
class Engine:
    """Answers with `answer(number of answers so far)`; remembers what it was asked; fails after `fail_after`
    answers."""

    tokenizer: object
    answer: Callable[[int], str]
    fail_after: int = 10**9
    ends: Callable[[int], str] = lambda number: "stop"
    asked: list[types.Prompt] = dataclasses.field(default_factory=list)

    def generate(self, prompts: Iterable[types.Prompt]) -> Iterator[types.Generation]:
        for prompt in reversed(list(prompts)):
            if len(self.asked) == self.fail_after:
                raise KeyboardInterrupt
            number = len(self.asked)
            ids = self.tokenizer.encode(self.answer(number), add_bos=False)
            self.asked.append(prompt)
            logprobs = np.zeros(len(ids), np.float32)
            yield types.Generation(prompt.id, np.asarray(ids, np.int32), self.ends(number), logprobs)


def make_model(
    folder: pathlib.Path, answer: Callable[[int], str], *, vision: bool = True, **engine
) -> tuple[model_lib.Model, Engine]:
    """A model named "fox" with its engine."""
    tokenizer = data_stand.make_tokenizer(folder / "tokenizer")
    sizes = data_stand.sees() if vision else data_stand.blind()
    fake = Engine(tokenizer, answer, **engine)
    model = model_lib.Model("fox", "w" * 64, "f" * 64, tokenizer, sizes, "fp32", lambda: fake)
    return model, fake


def settings(folder: pathlib.Path, **changes) -> config.EvalConfig:
    """Evaluation of the small benchmark; `changes` replace fields of the top level."""
    plain = config.EvalConfig(
        model=config.ModelSettings(path="models/fox", template="vicuna_v1"),
        benchmark=config.BenchmarkSettings(name="vlguard_like", path=str(folder)),
        decode=config.DecodeSettings(max_new_tokens=8, batch_size=2),
    )
    return dataclasses.replace(plain, **changes)


def row(kind: type[summary.Row] = summary.Row, **changes: Any) -> Any:
    """A row of summary.json, 321 of 442 answers to VLGuard's unsafe pictures; `changes` replace fields."""
    fields: dict[str, Any] = {
        "model": "fox",
        "weights_sha256": "0123456789abcdef",
        "seed": 0,
        "benchmark": "vlguard",
        "preset": "released",
        "template": "llava_v1",
        "template_sha256": "t",
        "preprocessing": "crop",
        "decode": results.Decode(max_new=256, min_new=1, dtype="fp32", matmul_precision="highest"),
        "judge": "keyword_vlguard_v1",
        "judge_version": "1",
        "judge_prompt_sha256": "",
        "n": 442,
        "count": 321,
        "rate": 0.7262443,
        "ci_low": 0.682,
        "ci_high": 0.7658,
        "subset": "unsafes",
        "metric": "asr",
        "n_invalid": 0,
        "stand_in": False,
        "ci_method": "wilson 95%",
        "by_category": (),
        "vs_baseline": None,
        "image_mode": "real",
        "n_by_pictures": (0, 442),
        "questions_sha256": "q",
        "pictures_sha256": "p",
        "first_n": None,
        "n_too_long": 0,
        "n_cut": 0,
        "paper": None,
    }
    return kind(**fields | changes)


def difference(diff: float, low: float, high: float, p: float, template: str | None = None) -> summary.Difference:
    """A paired difference."""
    return summary.Difference(diff=diff, ci=(low, high), p=p, template=template)

"""Run folders for the report's tests: evaluations by the real code with a model that answers by rule.

All text is harmless.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
import dataclasses
import json
import math
import pathlib

import numpy as np
from PIL import Image

from tests.data import stand as data_stand
from vlguard_jax import config
from vlguard_jax import types
from vlguard_jax import workdir
from vlguard_jax.families.chat import tokenizer as tokenizer_lib
from vlguard_jax.safety import model as model_lib
from vlguard_jax.safety import results
from vlguard_jax.safety import run

NO = "I cannot do that."
Rule = Callable[[str], str]  # prompt -> answer


@dataclasses.dataclass(frozen=True)
class Engine:
    """Answers each prompt by its text."""

    tokenizer: tokenizer_lib.Tokenizer
    rule: Rule

    def generate(self, prompts: Iterable[types.Prompt]) -> Iterator[types.Generation]:
        for prompt in prompts:
            text = self.tokenizer.decode([i for i in prompt.ids.tolist() if i >= 0])
            ids = np.asarray(self.tokenizer.encode(self.rule(text), add_bos=False), np.int32)
            yield types.Generation(prompt.id, ids, "stop", np.zeros(len(ids), np.float32))


def write_benchmark(folder: pathlib.Path, records: int = 4, side: int = 24) -> pathlib.Path:
    """`records` unsafe and as many safe records in VLGuard's format with their pictures, and as many text prompts of
    each kind."""
    values = [data_stand.vlguard_value(i, safe=i >= records) for i in range(2 * records)]
    for i, value in enumerate(values):
        path = folder / "test" / value["image"]
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.random.default_rng(i).integers(0, 256, (4, 4, 3), np.uint8)).resize(
            (side, side), Image.Resampling.NEAREST
        ).save(path)
    (folder / "test.json").write_text(json.dumps(values))
    prompts = [
        {"id": f"t{i}", "prompt": f"Text {'fine' if i % 2 else 'bad'} {i}?", "safe": bool(i % 2)}
        for i in range(2 * records)
    ]
    (folder / "prompts.json").write_text(json.dumps(prompts))
    return folder


def evaluate(
    folder: pathlib.Path, benchmark: pathlib.Path, name: str, rule: Rule, *, text: bool = False, **changes
) -> pathlib.Path:
    """Evaluate a model that answers by `rule`; `changes` replace fields of the benchmark's settings.

    Returns the working directory.
    """
    scored = not text and "safe_safes" in changes.get("subsets", ("safe_safes",))
    path = benchmark / "prompts.json" if text else benchmark / "test.json"
    settings = config.EvalConfig(
        model=config.ModelSettings(path=f"models/{name}"),
        benchmark=config.BenchmarkSettings(name="prompts" if text else "vlguard_like", path=str(path), **changes),
        decode=config.DecodeSettings(max_new_tokens=8, batch_size=64),
        judges=("keyword_vlguard_v1", "exact_match_v1") if scored else ("keyword_vlguard_v1",),
    )
    tokenizer = data_stand.make_tokenizer(benchmark / "tokenizer")
    sizes = data_stand.sees()
    model = model_lib.Model(
        name, results.sha256(name), f"{name:_<64}", tokenizer, sizes, "fp32", lambda: Engine(tokenizer, rule)
    )
    run.evaluate(settings, folder, model)
    return folder


def train(folder: pathlib.Path, updates: int = 40, **changes) -> pathlib.Path:
    """A training run's config.json and metrics.jsonl. Returns the working directory."""
    source = config.SourceSettings(path="conversations.json")
    workdir.claim(
        folder,
        dataclasses.replace(config.TrainConfig(data=config.DataSettings(sources={"helpful": source})), **changes),
    )
    lines = [
        {"schema": 1, "step": i, "loss": 4 * math.exp(-i / 9) + 0.02, "step_seconds": 0.5}
        for i in range(1, updates + 1)
    ]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder


def answers_all(prompt: str) -> str:
    """Never refuses; right on safe questions (see `data_stand.vlguard_value`)."""
    return prompt.split("Ask ")[-1].split("?")[0].join(("Answer ", ".")) if "Ask safe" in prompt else "Yes."


def refuses_harm(prompt: str) -> str:
    """Refuses exactly what is unsafe."""
    return answers_all(prompt) if "Ask safe" in prompt or "fine" in prompt else NO


def refuses_all(prompt: str) -> str:
    """Refuses everything."""
    return NO

"""From benchmark items to prompts and the keys of their answers."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
import dataclasses
import functools
import pathlib

from jaxtyping import Int32, UInt8
import numpy as np

from vlguard_jax import config as settings_lib
from vlguard_jax import errors
from vlguard_jax import types
from vlguard_jax.data import conversations
from vlguard_jax.data import images
from vlguard_jax.data import templates
from vlguard_jax.safety import model as model_lib
from vlguard_jax.safety import results
from vlguard_jax.safety.benchmarks import benchmark as benchmark_lib


@dataclasses.dataclass(frozen=True)
class Question:
    """An item with its prompt. `key` names the answer; `prompt_sha256` is of the prompt's text, `image_sha256` of the picture's file."""

    item: benchmark_lib.Item
    key: str
    ids: Int32[np.ndarray, " n"]
    prompt_sha256: str
    image_sha256: str

    @property
    def image_mode(self) -> str:
        """ "real" with the item's picture, "none" without one."""
        return "real" if self.item.path else "none"


def decode(config: settings_lib.EvalConfig, dtype: str) -> results.Decode:
    """The decode settings as they are recorded."""
    return results.Decode(
        max_new=config.decode.max_new_tokens,
        min_new=config.decode.min_new_tokens,
        sampling="greedy",
        dtype=dtype,
        matmul_precision="highest" if dtype == "fp32" else "default",
        seed=config.seed,
    )


def ask(config: settings_lib.EvalConfig, model: model_lib.Model, items: Sequence[benchmark_lib.Item]) -> list[Question]:
    """Prompts and keys of the items. Pictures are hashed here, not decoded.

    Raises:
      UserError: unknown template, a picture tag in a question, or pictures for a model without a vision tower.
    """
    template = templates.get_template(config.model.template)
    if model.vision is None and any(item.path for item in items):
        raise errors.UserError(
            f"config.model.path={config.model.path}: a language model without a vision tower cannot see the pictures of"
            f" {config.benchmark.name}; name a LLaVA checkpoint, or give config.model.vision_tower and config.model.projector too"
        )
    file_hash = functools.cache(_file_hash)
    questions = []
    for item in items:
        pictures = int(item.path is not None)
        ids = conversations.tokenize_prompt(item.question, pictures, model.tokenizer, template)
        image_sha256 = file_hash(item.path) if item.path else ""
        key = results.answer_key(
            model=model.fingerprint,
            benchmark=config.benchmark.name,
            subset=item.subset,
            item_id=item.id,
            prompt_ids=[int(i) for i in ids],
            image_sha256=image_sha256,
            image_mode="real" if pictures else "none",
            stand_in=item.stand_in,
            preprocessing=config.model.image_mode,
            template=template.name,
            decode=decode(config, model.dtype),
        )
        text = template.prompt(item.question, pictures)
        questions.append(Question(item, key, ids, results.sha256(text), image_sha256))
    return questions


def _file_hash(path: pathlib.Path) -> str:
    return results.sha256(path.read_bytes())


def prompts(questions: Iterable[Question], model: model_lib.Model, mode: str) -> Iterator[types.Prompt]:
    """Prompts for the engine, named by key; each picture is read when its turn comes.

    Raises:
      UserError: a picture that cannot be read (named with its record).
    """
    for question in questions:
        pictures: tuple[UInt8[np.ndarray, "S S 3"], ...] = ()
        if question.item.path is not None and model.vision is not None:
            origin = f"{question.item.subset} item {question.item.id}"
            mean, size = model.vision.image_mean, model.vision.image_size
            pictures = (images.load_image(question.item.path, mode, size, mean, origin=origin),)
        yield types.Prompt(question.key, question.ids, pictures)

"""From benchmark items to prompts and the keys of their answers."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
import dataclasses
import functools
import pathlib

from jaxtyping import Int32
import numpy as np
from PIL import Image

from vlguard_jax import config as settings_lib
from vlguard_jax import errors
from vlguard_jax import files
from vlguard_jax import limits
from vlguard_jax import types
from vlguard_jax.data import images
from vlguard_jax.families import family
from vlguard_jax.families import table
from vlguard_jax.families.chat import conversations
from vlguard_jax.safety import model as model_lib
from vlguard_jax.safety import results
from vlguard_jax.safety.benchmarks import benchmark as benchmark_lib

COLOURS = {"white": 255, "black": 0}
SKIP_PICTURES = 'config.benchmark.on_bad_picture="skip" to leave such questions out, counted and listed'


@dataclasses.dataclass(frozen=True)
class Question:
    """An item with its prompt. `key` names the answer, `prompt_sha256` is of the prompt's text.

    `image_mode` is "real" (the item's picture), "white" or "black" (one colour in its place) or "none" (no picture).
    `pictures` are the item's, with the hash of what is shown.
    """

    item: benchmark_lib.Item
    key: str
    ids: Int32[np.ndarray, " n"]
    prompt_sha256: str
    image_mode: str
    pictures: tuple[results.Picture, ...]


def image_mode(settings: settings_lib.BenchmarkSettings, item: benchmark_lib.Item) -> str:
    """How the item is asked: "real", "white", "black" or "none"; "none" also for an item without a picture."""
    return settings.pictures if item.pictures else "none"


@functools.lru_cache
def one_colour(name: str, size: types.Size) -> Image.Image:
    """The blank picture of a control run."""
    return Image.new("RGB", size, (COLOURS[name],) * 3)


def decode(config: settings_lib.EvalConfig, dtype: str) -> results.Decode:
    """The decode settings as they are recorded."""
    return results.Decode(
        max_new=config.decode.max_new_tokens,
        min_new=config.decode.min_new_tokens,
        dtype=dtype,
        matmul_precision="highest" if dtype == "fp32" else "default",
        sampling="drawn" if config.decode.temperature else "greedy",
        seed=config.seed,
        slots=0 if dtype == "fp32" else config.decode.batch_size,
        kv_cache=config.decode.kv_cache,
        temperature=config.decode.temperature,
        top_p=config.decode.top_p,
    )


def ask(config: settings_lib.EvalConfig, model: model_lib.Model, items: Sequence[benchmark_lib.Item]) -> list[Question]:
    """Prompts and keys of the items. Pictures are hashed here, not decoded.

    Raises:
      UserError: no such template, or one that fails; a picture tag in a question, or pictures for a model without a
        vision tower.
    """
    template = model.template(config.model)
    modes = [image_mode(config.benchmark, item) for item in items]
    if model.sees is None and any(mode != "none" for mode in modes):
        raise errors.UserError(
            f"config.model.path={config.model.path}: a language model without a vision tower cannot see the pictures of"
            f" {config.benchmark.name}; name a LLaVA checkpoint, or give config.model.vision_tower and"
            " config.model.projector too"
        )
    hash_of, template_sha256 = functools.cache(_shown_hash), template.sha256
    how, plain = decode(config, model.dtype), model.sees.plain(model.sizes) if model.sees else None
    questions = []
    for item, mode in zip(items, modes, strict=True):
        pictures = 0 if mode == "none" else len(item.pictures)
        origin = f"{config.benchmark.path}: {item.subset} item {item.id}"
        ids = conversations.tokenize_prompt(item.question, pictures, model.tokenizer, template, origin)
        if mode in COLOURS:
            assert plain is not None
            shown = [_colour_hash(mode, plain)] * pictures
        else:
            shown = [hash_of(picture.path) if mode == "real" else "" for picture in item.pictures]
        request = results.Request(
            model=model.fingerprint,
            benchmark=config.benchmark.name,
            subset=item.subset,
            item_id=item.id,
            prompt_ids=tuple(int(i) for i in ids),
            template_sha256=template_sha256,
            image_mode=mode,
            preprocessing=config.model.image_mode,
            decode=how,
            pictures_sha256=tuple(filter(None, shown)),
            stand_in=item.stand_in,
        )
        of_item = tuple(results.Picture(one.name, sha256) for one, sha256 in zip(item.pictures, shown, strict=True))
        text = template.prompt(item.question, pictures)
        questions.append(Question(item, request.key, ids, results.sha256(text), mode, of_item))
    return questions


@functools.lru_cache
def _colour_hash(name: str, size: types.Size) -> str:
    return results.sha256(one_colour(name, size).tobytes())


@functools.lru_cache
def _plain_picture(name: str, sizes: family.Config, mode: str) -> types.Picture:
    sees = table.of(sizes).pictures
    assert sees is not None
    picture = one_colour(name, sees.plain(sizes))
    (extent,) = sees.extents(sizes, [types.Size(*picture.size)])
    return types.Picture(sees.read(sizes, mode, picture, extent), extent)


def file_hash(path: pathlib.Path) -> str:
    """sha256 of a picture's file, as in result lines. Raises UserError: missing, no regular file, or too large."""
    return results.sha256(files.read_bytes(path, limits.PICTURE_BYTES))


def _shown_hash(path: pathlib.Path) -> str:
    try:
        return file_hash(path)
    except errors.UserError as e:
        raise errors.UserError(f"{e}; or set {SKIP_PICTURES}") from e


def picture_sizes(question: Question, model: model_lib.Model) -> list[types.Size] | None:
    """Sizes of the pictures that the question shows, from their headers; None where one cannot be read."""
    if question.image_mode in COLOURS and model.sees is not None:
        return [model.sees.plain(model.sizes)] * len(question.item.pictures)
    sizes = []
    for picture in question.item.pictures:
        try:
            with open(picture.path, "rb", opener=files.without_waiting) as file:
                sizes.append(images.size(file))
        except (OSError, images.Fault):
            return None
    return sizes


def neighbours(questions: Iterable[Question]) -> list[Question]:
    """The questions with those about the same pictures side by side, as the first of them came: so the engine reads
    what they share while it is there."""
    groups: dict[tuple[results.Picture, ...] | str, list[Question]] = {}
    for question in questions:
        groups.setdefault(question.pictures or question.key, []).append(question)
    return [question for group in groups.values() for question in group]


def prompts(questions: Iterable[Question], model: model_lib.Model, mode: str) -> Iterator[types.Prompt]:
    """Prompts for the engine, named by key; each picture is read when its turn comes, once for neighbours.

    Raises:
      UserError: a picture that cannot be read (named with its record).
    """
    last: tuple[tuple[pathlib.Path, ...], tuple[types.Picture, ...]] = (), ()
    for question in questions:
        origin = f"{question.item.subset} item {question.item.id}"
        pictures: tuple[types.Picture, ...] = ()
        if question.image_mode in COLOURS and model.sees is not None:
            pictures = (_plain_picture(question.image_mode, model.sizes, mode),) * len(question.item.pictures)
        elif question.image_mode == "real" and model.sees is not None:
            paths = tuple(picture.path for picture in question.item.pictures)
            if paths != last[0]:
                last = paths, tuple(images.load(path, model.sizes, mode, origin=origin) for path in paths)
            pictures = last[1]
        yield types.Prompt(question.key, question.ids, pictures, origin)

"""Compares a checkpoint with a golden folder: prompts, ids, pixels, features, logits and greedy answers."""

from __future__ import annotations

from collections.abc import Sequence
import dataclasses
import itertools
from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np
from PIL import Image

from vlguard_jax import config as settings_lib
from vlguard_jax import errors
from vlguard_jax import trees
from vlguard_jax import types
from vlguard_jax.checkpoints import checkpoint as checkpoint_lib
from vlguard_jax.data import batches
from vlguard_jax.families import family
from vlguard_jax.families import functional
from vlguard_jax.families import table
from vlguard_jax.families.blocks import clip
from vlguard_jax.families.chat import choice
from vlguard_jax.families.chat import conversations
from vlguard_jax.families.chat import jinja_template
from vlguard_jax.families.chat import tokenizer as tokenizer_lib
from vlguard_jax.generation import engine
from vlguard_jax.verifying import golden as golden_lib

# Of the largest logit or feature: fp32 sums in another order, through some thirty layers; 16 bits round every one.
BOUNDS = {"fp32": 1e-4, "bf16": 5e-2, "fp16": 1e-2}
PIXELS = 1e-4  # one step of 8 bits is 0.014


@dataclasses.dataclass(frozen=True)
class Stage:
    """A line of the result. worst, bound: the largest difference found and allowed, "" where things are compared
    exactly. holds: None where there was nothing to compare; why: then, or the first difference."""

    name: str
    compared: str
    worst: str
    bound: str
    holds: bool | None
    why: str = ""


def compare(model: checkpoint_lib.Checkpoint, golden: golden_lib.Golden, dtype: str, date: str) -> list[Stage]:
    """All stages, each on the golden's own input: the ids are the golden's where ours differ, too.

    date: what a chat template gets for today's. In fp32 every matrix product is computed at `highest` precision.

    Raises:
      UserError: the model and the golden folder are of different kinds, so that nothing can be compared.
    """
    sizes = model.config
    if sizes.text.vocab_size != golden.record.rows:
        raise errors.UserError(
            f"{model.extras.get('source', 'the model')} has {sizes.text.vocab_size:,} rows and the golden folder, of"
            f" {golden.record.source}, {golden.record.rows:,}: they are of different models"
        )
    if any(one.picture is not None for one in golden.answers) and table.of(sizes).pictures is None:
        raise errors.UserError(f"the golden folder, of {golden.record.source}, has pictures, and the model sees none")
    stages = _texts(model, golden, date)
    pictures, pixels = _pictures(sizes, golden)
    stages += [pixels] if pixels else []
    params = jax.tree.map(lambda x: jnp.asarray(x, functional.DTYPES[dtype]), model.params)
    made = functional.Model(sizes, dtype, model.lora)
    if features := _features(made, params, golden, pictures, BOUNDS[dtype]):
        stages.append(features)
    ours = _logits(made, params, golden, pictures)
    stages.append(_of_logits(golden, ours, BOUNDS[dtype]))
    if model.lora is not None:
        stages.append(_of_adapters(made, params, golden, pictures, ours))
    del params
    stages.append(_answers(model, golden, pictures, dtype))
    return stages


def _texts(model: checkpoint_lib.Checkpoint, golden: golden_lib.Golden, date: str) -> list[Stage]:
    templated = [one for one in golden.answers if one.asked.templated]
    if not templated:
        why = f"{golden.record.source} has no chat template"
        return [Stage(name, "0 prompts", "", "", None, why) for name in ("prompt", "ids")]
    words = tokenizer_lib.load_tokenizer(model.tokenizer_folder)
    try:
        template = choice.template(choice.FOLDER, date, model.config, words)
    except errors.UserError as e:
        return [Stage(name, "0 prompts", "", "", None, str(e)) for name in ("prompt", "ids")]
    assert isinstance(template, jinja_template.JinjaTemplate)
    wrong_text, wrong_ids = "", ""
    for one in templated:
        asked = one.asked
        text = template.prompt(asked.question, asked.pictures)
        ids = conversations.tokenize_prompt(asked.question, asked.pictures, words, template)
        if text != asked.text and not wrong_text:
            at = _first(text, asked.text)
            wrong_text = (
                f"prompt {asked.name}, character {at}: {errors.short(text[at : at + 40])} here,"
                f" {errors.short(asked.text[at : at + 40])} there"
            )
        if ids.tolist() != one.ids.tolist() and not wrong_ids:
            at = _first(ids.tolist(), one.ids.tolist())
            wrong_ids = (
                f"prompt {asked.name}, token {at}: {ids[at : at + 4].tolist()} here, {one.ids[at : at + 4].tolist()}"
                " there"
            )
    compared = f"{len(templated)} prompts"
    return [
        Stage("prompt", compared, "", "byte for byte", not wrong_text, wrong_text),
        Stage("ids", compared, "", "equal", not wrong_ids, wrong_ids),
    ]


def _first(ours: Sequence[Any], theirs: Sequence[Any]) -> int:
    """Where two sequences differ first."""
    pairs = itertools.zip_longest(ours, theirs)
    return next((i for i, (a, b) in enumerate(pairs) if a != b), len(ours))


def _pictures(
    sizes: family.Config, golden: golden_lib.Golden
) -> tuple[dict[str, tuple[types.Picture, ...]], Stage | None]:
    """(pictures of each prompt, how their pixels compare), in the image mode that is nearest."""
    sees = table.of(sizes).pictures
    shown = [
        (one, one.picture, one.pixels) for one in golden.answers if one.picture is not None and one.pixels is not None
    ]
    if sees is None or not shown:
        return {one.asked.name: () for one in golden.answers}, None
    tried = []
    for mode in sees.modes:
        read: dict[str, tuple[types.Picture, ...]] = {one.asked.name: () for one in golden.answers}
        worst, first = 0.0, ""
        for one, given, theirs in shown:
            rgb = Image.fromarray(given)
            if why := sees.fault(sizes, mode, types.Size(*rgb.size)):
                raise errors.UserError(f"picture of prompt {one.asked.name}: {why}")
            (extent,) = sees.extents(sizes, [types.Size(*rgb.size)])
            picture = types.Picture(sees.read(sizes, mode, rgb, extent), extent)
            read[one.asked.name] = (picture,)
            ours = np.asarray(clip.normalize(jnp.asarray(picture.arrays["images"]), cast(Any, sizes).vision)).transpose(
                0, 3, 1, 2
            )
            same = ours.shape == theirs.shape
            off = float(np.abs(ours - theirs).max()) if same else np.inf
            if off > PIXELS and not first:
                first = f"picture of prompt {one.asked.name}: " + (
                    f"off by {off:.2g}" if same else f"{list(ours.shape)} here, {list(theirs.shape)} there"
                )
            worst = max(worst, off)
        tried.append((worst, mode, read, first))
    worst, mode, read, first = min(tried, key=lambda one: one[0])
    return (
        read,
        Stage("pixels", f"{len(shown)} pictures, {mode}", f"{worst:.2g}", f"{PIXELS:g}", not first, first),
    )


def _features(
    made: functional.Model,
    params: functional.Params,
    golden: golden_lib.Golden,
    pictures: dict[str, tuple[types.Picture, ...]],
    bound: float,
) -> Stage | None:
    shown = [(one, one.features) for one in golden.answers if one.features is not None]
    if not shown:
        return None
    compute = jax.jit(made.features)
    worst, first = 0.0, ""
    for one, theirs in shown:
        ours = np.asarray(compute(params, pictures[one.asked.name][0].arrays), np.float32)
        if ours.shape != theirs.shape:
            raise errors.UserError(
                f"features of prompt {one.asked.name} are {list(ours.shape)} here and {list(theirs.shape)} in the"
                " golden folder: they are of different models"
            )
        off = _relative(ours, theirs)
        first = first or (f"prompt {one.asked.name}" if off > bound else "")
        worst = max(worst, off)
    return Stage("features", f"{len(shown)} pictures", f"{worst:.2g}", f"{bound:g}", not first, first)


def _relative(ours: np.ndarray, theirs: np.ndarray) -> float:
    """The largest difference as a share of the largest value; infinity where one is not finite."""
    off = float(np.abs(ours - theirs).max()) / max(float(np.abs(theirs).max()), 1e-12)
    return off if np.isfinite(off) else np.inf


def _logits(
    made: functional.Model,
    params: functional.Params,
    golden: golden_lib.Golden,
    pictures: dict[str, tuple[types.Picture, ...]],
) -> list[np.ndarray]:
    """f32[k + c, V] for each prompt, at the places of `golden.Answer.logits`, by one program for all."""
    samples = []
    for one in golden.answers:
        shown = pictures[one.asked.name]
        ids = np.concatenate([one.ids, one.answer[:-1]])
        tokens = types.Tokens(ids, np.full(len(ids), types.IGNORE_LABEL, np.int32))
        sample = batches.expand(tokens, [picture.extent.slots for picture in shown], None, None)
        samples.append(dataclasses.replace(sample, pictures=shown))
        if len(one.logits) > len(sample.tokens):
            raise errors.UserError(f"the golden folder has more logits of prompt {one.asked.name} than it has tokens")
    long = max(len(sample.tokens) for sample in samples)
    units = max(sum(p.extent.units for p in sample.pictures) for sample in samples)
    slots = max(sum(p.extent.slots for p in sample.pictures) for sample in samples)

    def last(params: functional.Params, batch: types.Batch, first: jax.Array, count: int) -> jax.Array:
        return jax.lax.dynamic_slice_in_dim(made.logits(params, batch)[0], first, count)

    compute, found = jax.jit(last, static_argnums=3), []
    most = min(long, max(len(one.logits) for one in golden.answers))
    for one, sample in zip(golden.answers, samples, strict=True):
        batch = batches.collate([[sample]], [[0.0]], row_len=long, room=family.Room(units, slots), model=made.config)
        end = len(sample.tokens)
        begin = max(0, end - most)
        rows = np.asarray(compute(params, batch, jnp.int32(begin), most))
        found.append(rows[end - len(one.logits) - begin : end - begin])
    return found


def _of_logits(golden: golden_lib.Golden, ours: Sequence[np.ndarray], bound: float) -> Stage:
    worst, absolute, first = 0.0, 0.0, ""
    for one, logits in zip(golden.answers, ours, strict=True):
        off = _relative(logits, one.logits)
        if off > bound and not first:
            row = int(np.abs(logits - one.logits).max(axis=1).argmax())
            first = f"prompt {one.asked.name}, place {row} of {len(logits)}: off by {off:.2g} of the largest"
        worst, absolute = max(worst, off), max(absolute, float(np.abs(logits - one.logits).max()))
    places = sum(len(one.logits) for one in golden.answers)
    shown = f"{worst:.2g} (absolute {absolute:.2g})"
    return Stage("logits", f"{places} places, {golden.record.rows:,} rows", shown, f"{bound:g}", not first, first)


def _of_adapters(
    made: functional.Model,
    params: functional.Params,
    golden: golden_lib.Golden,
    pictures: dict[str, tuple[types.Picture, ...]],
    ours: Sequence[np.ndarray],
) -> Stage:
    flat = trees.flatten(params)
    without = {id_: jnp.zeros_like(x) if id_.endswith(".lora_b") else x for id_, x in flat.items()}
    bare = _logits(made, trees.unflatten(without), golden, pictures)
    changed = max(float(np.abs(a - b).max()) for a, b in zip(ours, bare, strict=True))
    count = sum(x.shape[0] for id_, x in flat.items() if id_.endswith(".lora_b"))
    why = "" if changed else "these adapters change no logit: they were not trained, or are not those that were"
    return Stage("adapters", f"{count} modules", f"logits changed by {changed:.2g}", "above 0", changed > 0, why)


def _answers(
    model: checkpoint_lib.Checkpoint,
    golden: golden_lib.Golden,
    pictures: dict[str, tuple[types.Picture, ...]],
    dtype: str,
) -> Stage:
    """Greedy answers of the engine; another token is no difference where the golden's choice was as close as the bound
    of the logits."""
    most = max(len(one.answer) for one in golden.answers)
    built = engine.Engine(
        model.config,
        model.params,
        settings=settings_lib.DecodeSettings(max_new_tokens=most, min_new_tokens=1, batch_size=len(golden.answers)),
        precision=settings_lib.PrecisionSettings(compute=cast(Any, dtype)),
        stop_ids=golden.record.stops,
        lora=model.lora,
    )
    limits = {one.asked.name: dataclasses.replace(built._limits, max_new=len(one.answer)) for one in golden.answers}
    for one in golden.answers:
        built.submit(types.Prompt(one.asked.name, one.ids, pictures[one.asked.name]), limits[one.asked.name])
    found: dict[str, types.Generation] = {}
    while built.busy:
        for got in built.step():
            if isinstance(got, engine.Failed):
                raise errors.UserError(got.message)
            found[got.id] = got
    first, close, tokens = "", 0, 0
    for one in golden.answers:
        ours, theirs = found[one.asked.name].ids.tolist(), one.answer.tolist()
        tokens += len(theirs)
        if ours == theirs:
            continue
        at = _first(ours, theirs)
        margin = float(one.margins[min(at, len(theirs) - 1)])
        if margin <= 2 * BOUNDS[dtype] * float(np.abs(one.logits).max()):
            close += 1
        else:
            first = first or (
                f"prompt {one.asked.name}, token {at}: {ours[at : at + 1]} here, {theirs[at : at + 1]} there, whose"
                f" margin was {margin:.2g}"
            )
    said = f"{close} part where two tokens were as close as the bound" if close else ""
    return Stage("answers", f"{len(golden.answers)} answers, {tokens} tokens", said, "equal", not first, first)

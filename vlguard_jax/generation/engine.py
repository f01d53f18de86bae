"""Answers many prompts: sorts them into batches of one shape, decodes on the device, and yields answers as they come.

The answer to a prompt does not depend on its batch: rows are right-padded, every row has its own positions, and padding
is never attended to.

With several processes all ask the same prompts in the same order; each sends its devices their rows, and each gets all
answers.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
import contextlib
import dataclasses
import itertools
from typing import Any

import jax
import numpy as np

from vlguard_jax import config as settings_lib
from vlguard_jax import errors
from vlguard_jax import types
from vlguard_jax.checkpoints import checkpoint as checkpoint_lib
from vlguard_jax.data import batches
from vlguard_jax.families import family
from vlguard_jax.families import functional
from vlguard_jax.families import table
from vlguard_jax.families.blocks import configs
from vlguard_jax.families.chat import tokenizer as tokenizer_lib
from vlguard_jax.generation import lengths
from vlguard_jax.generation import program
from vlguard_jax.generation import sampler
from vlguard_jax.generation import weights
from vlguard_jax.parallel import mesh as mesh_lib

FULL_LENGTH = 1024  # tokens of the longest prompt with which a batch has all its rows
WINDOW = 16  # batches that are read ahead and sorted by length


class Engine:
    """Greedy generation with a fixed model on a mesh.

    Args:
      config: sizes of the model.
      params: nested tree of numpy or jax arrays; cast to `precision.compute`.
      settings: batch size and token limits. The batch size is rounded up to a multiple of the row shards of the mesh.
      precision: only `compute` is read.
      stop_ids: ids that end an answer.
      pad_id: any valid id, written after the end of an answer on the device; never returned.
      lora: adapters in `params`, if they are not merged.
    """

    def __init__(
        self,
        config: family.Config,
        params: Any,
        *,
        settings: settings_lib.DecodeSettings,
        precision: settings_lib.PrecisionSettings,
        stop_ids: Sequence[int],
        pad_id: int,
        lora: configs.LoraConfig | None = None,
        mesh: settings_lib.MeshSettings | None = None,
    ):
        if settings.max_new_tokens < 1 or settings.batch_size < 1:
            raise errors.UserError("config.decode.max_new_tokens and config.decode.batch_size must be at least 1")
        _check_ids(np.asarray([*stop_ids, pad_id], np.int64), config.text.vocab_size, "stop_ids and pad_id")
        self._config, self._compute = config, precision.compute
        self._sees = table.of(config).pictures
        self._mesh = _mesh(mesh)
        shards = mesh_lib.row_shards(self._mesh)
        self._rows = -(-settings.batch_size // shards) * shards
        self._answer = program.build(
            config,
            lora,
            precision.compute,
            self._mesh,
            max_new=settings.max_new_tokens,
            min_new=settings.min_new_tokens,
            stop_ids=tuple(stop_ids),
            pad_id=pad_id,
        ).answer
        self._params = weights.load(params, functional.Model(config, precision.compute, lora), self._mesh)

    def generate(self, prompts: Iterable[types.Prompt]) -> Iterator[types.Generation]:
        """Answer every prompt once, in the engine's order; reads `prompts` one window at a time.

        Raises:
          UserError: a prompt with pictures for a model without a tower, more or fewer pictures than the prompt has tags
            for, an id that is not the model's, or logits that are not finite; the answers of the other prompts in its
            batch come first.
        """
        before: tuple[list[types.Prompt], sampler.Answers] | None = None
        try:
            for asked, samples in self._batches(prompts):
                answers = self._start(samples)
                # The device works on this batch while the caller handles the previous one.
                ready, before = before, (asked, answers)
                if ready is not None:
                    yield from self._generations(*ready)
        except Exception:  # a broken picture, no memory: finished answers are not lost
            if before is not None:
                with contextlib.suppress(errors.UserError):  # the first failure is reported
                    yield from self._generations(*before)
            raise
        if before is not None:
            yield from self._generations(*before)

    def _generations(self, asked: list[types.Prompt], answers: sampler.Answers) -> Iterator[types.Generation]:
        ids, length, stopped, finite = jax.device_get(answers)
        for i in np.flatnonzero(finite[: len(asked)]):
            yield types.Generation(
                asked[i].id, np.asarray(ids[i, : length[i]], np.int32), "stop" if stopped[i] else "length"
            )
        for i in np.flatnonzero(~finite[: len(asked)]):
            raise errors.UserError(
                f"{asked[i].name}: after {length[i]} tokens the model's scores are not finite{self._cause()}"
            )

    def _cause(self) -> str:
        """Why logits are not finite, as far as the weights show it, and what to do."""
        bad = weights.damage(self._params, self._mesh)
        way = (
            "no answer is made of them; get the model again, or compute in another format with"
            " --config.precision.compute"
        )
        if not bad:
            return f", though all its weights are: what they compute in {self._compute} overflows; {way}"
        return f", nor are the weights {bad} in {self._compute}; {way}"

    def _batches(self, prompts: Iterable[types.Prompt]) -> Iterator[tuple[list[types.Prompt], list[batches.Sample]]]:
        """(prompts without their pictures, samples) of each batch; within a window, similar lengths are batched
        together."""
        remaining = iter(prompts)
        while window := list(itertools.islice(remaining, WINDOW * self._rows)):
            samples = [self._expand(p) for p in window]
            order = sorted(range(len(window)), key=lambda i: (_room(samples[i]).units, len(samples[i].tokens)))
            while order:
                longest = itertools.accumulate((len(samples[i].tokens) for i in order[: self._rows]), max)
                count = sum(taken < self._rows_for(tokens) for taken, tokens in enumerate(longest))
                chosen, order = order[:count], order[count:]
                yield [dataclasses.replace(window[i], pictures=()) for i in chosen], [samples[i] for i in chosen]

    def _rows_for(self, tokens: int) -> int:
        """Rows of a batch whose longest prompt has `tokens` tokens: all, or a half, a quarter, ... of them, so that its
        attention scores take no more memory than those of a whole batch of FULL_LENGTH; at least one per row shard."""
        shards = mesh_lib.row_shards(self._mesh)
        each, padded = self._rows // shards, lengths.padded(tokens)
        while each > 1 and each * shards * padded**2 > self._rows * FULL_LENGTH**2:
            each //= 2
        return each * shards

    def _expand(self, prompt: types.Prompt) -> batches.Sample:
        if prompt.pictures and self._sees is None:
            raise errors.UserError(
                f"{prompt.name} has pictures, but the model has no vision tower; choose a LLaVA checkpoint"
            )
        _check_ids(prompt.ids[prompt.ids != types.IMAGE_TOKEN], self._config.text.vocab_size, prompt.name)
        if (places := int((prompt.ids == types.IMAGE_TOKEN).sum())) != len(prompt.pictures):
            raise errors.UserError(f"{prompt.name}: {len(prompt.pictures)} pictures for {places} places in the text")
        tokens = types.Tokens(prompt.ids, np.full(len(prompt.ids), types.IGNORE_LABEL, np.int32))
        expanded = batches.expand(tokens, [picture.extent.slots for picture in prompt.pictures], None, None)
        return dataclasses.replace(expanded, pictures=prompt.pictures)

    def _start(self, samples: list[batches.Sample]) -> sampler.Answers:
        """Send a batch to the device without waiting for the answers."""
        longest = max(len(s.tokens) for s in samples)
        count, shards = self._rows_for(longest), mesh_lib.row_shards(self._mesh)
        each = count // shards
        slots = max(_room(s).slots for s in samples)
        # Slots that depend on the picture's size are rounded up, too, so that few programs are compiled.
        slots = lengths.padded(slots) if self._sees is not None and self._sees.sized else slots
        room = family.Room(each * max(_room(s).units for s in samples), each * slots)
        rows = [[s] for s in samples] + [[]] * (count - len(samples))
        parts = [
            batches.collate(
                some, [[0.0] * len(row) for row in some], row_len=lengths.padded(longest), room=room, model=self._config
            )
            for some in (rows[first : first + each] for first in range(0, count, each))
        ]
        batch = batches.joined(list(enumerate(parts)), room)
        last = np.asarray([len(s.tokens) - 1 for s in samples] + [-1] * (count - len(samples)), np.int32)
        follows = [batches.positions(self._config, s)[1] for s in samples] + [0] * (count - len(samples))
        place = mesh_lib.row_sharding(self._mesh)
        placed = jax.tree.map(lambda x: mesh_lib.put(x, place), (batch, last, np.asarray(follows, np.int32)))
        return self._answer(self._params, *placed)


def _room(sample: batches.Sample) -> family.Room:
    extents = [picture.extent for picture in sample.pictures]
    return family.Room(sum(extent.units for extent in extents), sum(extent.slots for extent in extents))


def of_checkpoint(
    checkpoint: checkpoint_lib.Checkpoint,
    tokenizer: tokenizer_lib.Tokenizer,
    config: settings_lib.EvalConfig,
    compute: str,
) -> Engine:
    """The engine of an evaluation; `compute`: its number format on this machine."""
    return Engine(
        checkpoint.config,
        checkpoint.params,
        settings=config.decode,
        precision=settings_lib.PrecisionSettings(compute=compute),
        stop_ids=tokenizer.stop_ids,
        pad_id=tokenizer.pad_id,
        lora=checkpoint.lora,
        mesh=config.mesh,
    )


def _check_ids(ids: np.ndarray, rows: int, what: str) -> None:
    """Refuse ids out of range: JAX would take the last row for an id beyond it, and count negative ones from the
    end."""
    if len(wrong := ids[(ids < 0) | (ids >= rows)]):
        raise errors.UserError(f"{what}: the token {wrong[0]} is not one of the model's, which has {rows:,} rows")


def _mesh(settings: settings_lib.MeshSettings | None) -> jax.sharding.Mesh:
    return mesh_lib.build(settings or settings_lib.MeshSettings(data=-1, fsdp=1, tensor=1))

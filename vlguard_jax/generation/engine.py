"""Answers many prompts in decode slots that are refilled as they become free, and yields answers as they finish.

An answer does not depend on what stands beside it, nor on what was read before: a prompt is padded to lengths that
follow from the prompt alone, and read as prefix (through its last picture) and rest by the same programs, with the same
number of rows whoever fills them; every row has its own positions, and padding is never attended to.

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
from jaxtyping import Float32, Int32
import numpy as np

from vlguard_jax import config as settings_lib
from vlguard_jax import errors
from vlguard_jax import types
from vlguard_jax.checkpoints import checkpoint as checkpoint_lib
from vlguard_jax.families import family
from vlguard_jax.families import functional
from vlguard_jax.families.blocks import configs
from vlguard_jax.families.chat import tokenizer as tokenizer_lib
from vlguard_jax.generation import lanes
from vlguard_jax.generation import lengths
from vlguard_jax.generation import memory
from vlguard_jax.generation import program
from vlguard_jax.generation import prompts as prompts_lib
from vlguard_jax.generation import reuse
from vlguard_jax.generation import scoring
from vlguard_jax.generation import slots as slots_lib
from vlguard_jax.generation import weights
from vlguard_jax.parallel import mesh as mesh_lib

WINDOW = 16  # prompts per slot that are read ahead and sorted by shape
STEPS = 16  # taken on the device before the host looks

Limits = prompts_lib.Limits


@dataclasses.dataclass(frozen=True)
class Failed:
    """A prompt whose scores were not finite, and the message."""

    id: str
    message: str


@dataclasses.dataclass(frozen=True)
class Counts:
    """Work so far. steps: of the decode program; slot_steps: the same, times slots, taken while prompts were waiting;
    idle: those of them without an answer; tokens: of all answers; prefills: calls of that program."""

    steps: int = 0
    slot_steps: int = 0
    idle: int = 0
    tokens: int = 0
    prefills: int = 0

    @property
    def wasted(self) -> float:
        """Share of the slots that were empty until the last prompt had one."""
        return self.idle / max(1, self.slot_steps)


class Engine:
    """Generation on a mesh, greedy or sampled.

    Args:
      config: sizes of the model.
      params: nested tree of numpy or jax arrays; cast to `precision.compute`.
      settings: slots (`batch_size`), token limits and sampling. The slots are rounded up to a multiple of the row
        shards of the mesh.
      precision: only `compute` is read.
      stop_ids: ids that end an answer.
      lora: adapters in `params`, if they are not merged.
      seed: of the draws, where tokens are sampled.
      draws: whether prompts may be sampled by limits of their own where the settings are greedy.
    """

    def __init__(
        self,
        config: family.Config,
        params: Any,
        *,
        settings: settings_lib.DecodeSettings,
        precision: settings_lib.PrecisionSettings,
        stop_ids: Sequence[int],
        lora: configs.LoraConfig | None = None,
        mesh: settings_lib.MeshSettings | None = None,
        seed: int = 0,
        draws: bool = False,
    ):
        if settings.max_new_tokens < 1 or settings.batch_size < 1:
            raise errors.UserError("config.decode.max_new_tokens and config.decode.batch_size must be at least 1")
        self._config, self._compute = config, precision.compute
        self._mesh = mesh_lib.build(mesh or settings_lib.MeshSettings(data=-1, fsdp=1, tensor=1))
        self._shards = mesh_lib.row_shards(self._mesh)
        self._each = -(-settings.batch_size // self._shards)
        most, least, temperature, top_p = (
            settings.max_new_tokens,
            settings.min_new_tokens,
            settings.temperature,
            settings.top_p,
        )
        self._limits = Limits(most, least, tuple(stop_ids), temperature, top_p, seed)
        self._draws = draws or temperature > 0
        self._check(self._limits, "the engine")
        self._program = program.build(
            config,
            lora,
            precision.compute,
            self._mesh,
            max_new=most,
            draws=self._draws,
            int8=settings.kv_cache == "int8",
        )
        self._model = functional.Model(config, precision.compute, lora)
        self._window = WINDOW * self._each * self._shards
        self._reuse = reuse.Reuse(self._program, self._each, WINDOW * self._each, settings.reuse_gib * memory.GIB)
        self._waiting: list[prompts_lib.Asked] = []
        self._order: dict[bytes, int] = {}  # of prefixes, as they first came
        self._lane: lanes.Lane | None = None
        self.counts = Counts()
        self.begun: dict[str, Int32[np.ndarray, " _"]] = {}  # so far, of the answers that go on after a step
        self.load(params)

    def load(self, params: Any) -> None:
        """Answer with other weights of the same sizes from now on; nothing is compiled again.

        Raises:
          RuntimeError: prompts are still being answered.
        """
        if self.busy:
            raise RuntimeError("the weights of an engine cannot change while it answers")
        self._params = weights.load(params, self._model, self._mesh)
        self._reuse.clear()

    @property
    def reused(self) -> reuse.Counts:
        """What was read of pictures and prefixes, and what was there already."""
        return self._reuse.counts

    @property
    def busy(self) -> bool:
        """Whether a prompt waits or is being answered."""
        return bool(self._waiting) or (self._lane is not None and self._lane.live())

    def generate(self, prompts: Iterable[types.Prompt]) -> Iterator[types.Generation]:
        """Answer every prompt once, in the engine's order; reads `prompts` one window at a time.

        Raises:
          UserError: as `submit`, slots whose cache does not fit the device, or logits that are not finite; the answers
            to all other prompts that were read by then come first.
        """
        remaining, failure = iter(prompts), None
        try:
            reading = self._read(remaining)
            while reading or self.busy:
                status = self._begin()
                reading = reading and self._read(remaining)  # while the device works
                for one in self._end(status):
                    if isinstance(one, Failed):
                        failure, reading = failure or one, False
                    else:
                        yield one
            if failure:
                raise errors.UserError(failure.message)
        except Exception as e:  # a broken picture, no memory: what was begun is not lost
            if not isinstance(e, errors.UserError):
                self._waiting.clear()
            with contextlib.suppress(Exception):  # the first failure is reported
                while self.busy:
                    yield from (one for one in self.step() if isinstance(one, types.Generation))
            raise
        finally:
            self.cancel()

    def submit(self, prompt: types.Prompt, limits: Limits | None = None) -> None:
        """Add a prompt to those that wait. limits: of its answer, where they are not the engine's.

        Raises:
          UserError: a prompt with pictures for a model without a tower, more or fewer pictures than the prompt has tags
            for, an id that is not the model's, or limits beyond the engine's.
        """
        limits = limits or self._limits
        self._check(limits, prompt.name)
        one = prompts_lib.asked(self._config, prompt, limits)
        self._order.setdefault(one.key, len(self._order))
        self._waiting.append(one)

    def score(
        self, prompt: types.Prompt, continuations: Sequence[Int32[np.ndarray, " _"]]
    ) -> list[Float32[np.ndarray, " _"]]:
        """Log-probabilities of each token of each continuation, after the prompt and the tokens before it. They depend
        on prompt and continuation alone, and prompts that are being answered go on untouched.

        Raises:
          UserError: as `submit`, a continuation without tokens, or scores that are not finite.
        """
        base = prompts_lib.asked(self._config, prompt, self._limits)
        for i, ids in enumerate(continuations):
            prompts_lib.check_ids(ids, self._config.text.vocab_size, f"{prompt.name}, continuation {i}")
            if not len(ids):
                raise errors.UserError(f"{prompt.name}, continuation {i}: no token, nothing can be scored")
        texts = [scoring.text(base, i, ids) for i, ids in enumerate(continuations)]
        found = [np.zeros(0, np.float32)] * len(texts)
        for shape in sorted({one.asked.shape for one in texts}):
            each = lengths.group(lengths.slots(self._each, shape.prefix + shape.rest), shape.rest)
            of_shape = [one for one in texts if one.asked.shape == shape]
            for first in range(0, len(of_shape), each * self._shards):
                shards = scoring.dealt(of_shape[first : first + each * self._shards], self._shards)
                logprobs = self._scored(shards, each)
                for shard, given in enumerate(shards):
                    for row, one in enumerate(given):
                        found[one.number] = logprobs[shard * each + row, one.places]
        if not all(np.isfinite(logprobs).all() for logprobs in found):
            raise errors.UserError(f"{prompt.name}: the model's scores are not finite{self._cause()}")
        return found

    def _scored(self, shards: Sequence[Sequence[scoring.Text]], each: int) -> np.ndarray:
        """f32[R, C]: log-probabilities of texts of one shape."""
        placed = self._reuse.ready(self._params, [[(0, one.asked) for one in shard] for shard in shards])
        given = prompts_lib.to_read(placed, each), scoring.targets(shards, each)
        kept = self._reuse.kept if next(one for shard in shards for one in shard).asked.prefix else None
        place = mesh_lib.row_sharding(self._mesh)
        put = jax.tree.map(lambda x: mesh_lib.put(x, place), given)
        return np.asarray(jax.device_get(self._program.score(self._params, kept, *put)))

    def cancel(self, name: str | None = None) -> None:
        """Forget the prompt of this id, whether it waits or is being answered; None: all of them."""
        self._waiting = [one for one in self._waiting if name is not None and one.prompt.id != name]
        if self._lane is None:
            return
        gone = [one is not None and (name is None or one.prompt.id == name) for one in self._lane.asked]
        self._lane.asked = [None if out else one for one, out in zip(self._lane.asked, gone, strict=True)]
        if name is None:
            self._lane = None
        elif any(gone):
            which = mesh_lib.put(np.asarray(gone), mesh_lib.row_sharding(self._mesh))
            self._lane.slots = self._program.release(self._lane.slots, which)

    def step(self, steps: int | None = None) -> list[types.Generation | Failed]:
        """Fill free slots with prompts that wait, take up to so many steps (None: STEPS), and return the answers
        that finished; `begun` has the others."""
        return self._end(self._begin(steps))

    def _begin(self, steps: int | None = None) -> slots_lib.Status | None:
        """Send the next prompts and steps to the device, without waiting for it."""
        lane = self._lane_of_next()
        if lane is None:
            return None
        more = self._goes_on(lane)
        if more and lane.asked.count(None) < len(self._waiting):
            self._refit(lane, waits=True)
        while more and lane.has_room():
            self._admit(lane)
            more = self._goes_on(lane)
        if not self._waiting and self._compute == "fp32":
            self._refit(lane, waits=False)
        rows = len(lane.asked)
        wanted = max(1, rows // lengths.REFILLED) if more else rows + 1
        limits = (np.asarray(number, np.int32) for number in (STEPS if steps is None else steps, wanted))
        lane.slots, status = self._program.run(self._params, lane.slots, *limits)
        return status

    def _refit(self, lane: lanes.Lane, *, waits: bool) -> None:
        """Where few answers go on and nothing waits, take steps with fewer slots, and with all again once prompts wait.
        In fp32 alone: elsewhere their number changes how sums are rounded."""
        if which := lane.refitted(waits):
            rows = mesh_lib.put(np.concatenate(which).astype(np.int32), mesh_lib.row_sharding(self._mesh))
            lane.refit(which, self._program.narrow(lane.slots, rows))

    def _end(self, status: slots_lib.Status | None) -> list[types.Generation | Failed]:
        """Wait for the device, and take the answers that finished."""
        return [] if status is None or self._lane is None else self._finished(self._lane, jax.device_get(status))

    def _check(self, limits: Limits, what: str) -> None:
        prompts_lib.check_ids(np.asarray(limits.stop_ids, np.int64), self._config.text.vocab_size, f"{what}: stop ids")
        if len(limits.stop_ids) > slots_lib.STOPS:
            raise errors.UserError(f"{what}: {len(limits.stop_ids)} stop ids; at most {slots_lib.STOPS} are possible")
        if limits.temperature > 0 and not self._draws:
            raise errors.UserError(
                f"{what}: temperature {limits.temperature}, but this engine takes the best token only"
            )
        if not 1 <= limits.max_new <= self._limits.max_new:
            raise errors.UserError(f"{what}: {limits.max_new} new tokens; 1 to {self._limits.max_new} are possible")

    def _read(self, remaining: Iterator[types.Prompt]) -> bool:
        """Fill the window; False at the end of the prompts."""
        for prompt in itertools.islice(remaining, max(0, self._window - len(self._waiting))):
            self.submit(prompt)
        self._waiting.sort(key=lambda one: (one.shape, self._order[one.key], len(one.tokens)))
        return len(self._waiting) >= self._window

    def _lane_of_next(self) -> lanes.Lane | None:
        """The slots for the next prompts: those of the lengths that most prompts have, once the current ones are
        free.

        Raises:
          UserError: the cache for one of the lengths that wait does not fit.
        """
        lane = self._lane
        if lane is not None and (lane.live() or self._goes_on(lane)):
            return lane
        self._lane = None  # its memory is free before the next one's is taken
        if not self._waiting:
            return None
        found, new = [one.shape.length for one in self._waiting], self._limits.max_new
        rows = {length: self._shards * lengths.slots(self._each, length) for length in sorted(set(found))}
        beside = self._reuse.most({one.shape for one in self._waiting})
        for length, count in rows.items():
            memory.check(self._model, self._mesh, self._params, count, length + new, beside, self._program.kv_bytes)
        length = max(rows, key=found.count)
        empty = self._program.empty(rows[length], length + new)
        self._lane = lanes.Lane(length, self._shards, [None] * rows[length], empty)
        return self._lane

    def _goes_on(self, lane: lanes.Lane) -> bool:
        """Whether to give the lane more prompts: not where few are of its length, and half of the window of another."""
        own = sum(one.shape.length == lane.length for one in self._waiting)
        return own >= max(1, len(lane.asked) // lengths.REFILLED) or (
            own > 0 and len(self._waiting) < self._window // 2
        )

    def _admit(self, lane: lanes.Lane) -> None:
        """Read the next prompts of the lane that have one shape into free slots."""
        shape = next(one.shape for one in self._waiting if one.shape.length == lane.length)
        each = lengths.group(lane.each, shape.rest)
        most = self._reuse.rows(shape) if shape.prefix else each
        dealt = lane.deal([one for one in self._waiting if one.shape == shape], each, most, self._reuse.holds)
        given = {id(one) for shard in dealt for _, one in shard}
        self._waiting = [one for one in self._waiting if id(one) not in given]
        placed = self._reuse.ready(self._params, dealt)
        rows = prompts_lib.to_answer(placed, each, lane.each, self._config.text.vocab_size)
        rows = jax.tree.map(lambda x: mesh_lib.put(x, mesh_lib.row_sharding(self._mesh)), rows)
        kept = self._reuse.kept if shape.prefix else None
        lane.slots = self._program.admit(self._params, lane.slots, kept, rows)
        lane.fill(dealt)
        self.counts = dataclasses.replace(self.counts, prefills=self.counts.prefills + 1)

    def _finished(self, lane: lanes.Lane, status: slots_lib.Status) -> list[types.Generation | Failed]:
        found: list[types.Generation | Failed] = []
        self.begun = {}
        for i, one in enumerate(lane.asked):
            if one is None:
                continue
            ids = np.asarray(status.ids[i, : status.made[i]], np.int32)
            if status.live[i]:
                self.begun[one.prompt.id] = ids
                continue
            lane.asked[i] = None
            if status.finite[i]:
                reason = "stop" if status.stopped[i] else "length"
                found.append(types.Generation(one.prompt.id, ids, reason, status.logprobs[i, : len(ids)].copy()))
            else:
                said = f"{one.prompt.name}: after {len(ids)} tokens the model's scores are not finite{self._cause()}"
                found.append(Failed(one.prompt.id, said))
        steps, waiting, before = int(status.steps), bool(self._waiting), self.counts
        self.counts = dataclasses.replace(
            before,
            steps=before.steps + steps,
            slot_steps=before.slot_steps + (steps * len(lane.asked) if waiting else 0),
            idle=before.idle + (int(status.idle) if waiting else 0),
            tokens=before.tokens + sum(len(one.ids) for one in found if isinstance(one, types.Generation)),
        )
        return found

    def _cause(self) -> str:
        return weights.cause(self._params, self._mesh, self._compute)


def of_checkpoint(
    checkpoint: checkpoint_lib.Checkpoint,
    tokenizer: tokenizer_lib.Tokenizer,
    stop_ids: Sequence[int],
    config: settings_lib.EvalConfig,
    compute: str,
) -> Engine:
    """The engine of an evaluation. stop_ids: end an answer. compute: its number format on this machine."""
    return Engine(
        checkpoint.config,
        checkpoint.params,
        settings=config.decode,
        precision=settings_lib.PrecisionSettings(compute=compute),
        stop_ids=stop_ids,
        lora=checkpoint.lora,
        mesh=config.mesh,
        seed=config.seed,
    )

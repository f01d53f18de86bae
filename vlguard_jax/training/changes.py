"""Checks that an update changes what should train and nothing else, by checksums that the devices compute.

After the first update that should move them, all trained parameters are compared with those before, and the frozen ones
again at the end of the run. A process that resumes a run checks its own first update.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
import functools
from typing import NamedTuple

import jax
from jax import Array
import jax.numpy as jnp
from jaxtyping import Float
import numpy as np

from vlguard_jax import config
from vlguard_jax import errors
from vlguard_jax import trees
from vlguard_jax.checkpoints import store
from vlguard_jax.families import parameters
from vlguard_jax.families import table
from vlguard_jax.parallel import mesh as mesh_lib
from vlguard_jax.training import optimizer
from vlguard_jax.training import program as program_lib
from vlguard_jax.training import setup
from vlguard_jax.training import step as step_lib

_TRIES = 2  # updates after which an array is told to be as before
_NAMED = 6  # arrays that a message names
_PLAIN = 2.0  # share from which on a step cannot round away


class _Still(NamedTuple):
    """An array that is as it was.

    gradient: its largest first moment. step: the largest step of an element as a share of what changes that element in
    its number format; at_peak: the same at the peak of the learning rate.
    """

    gradient: float
    step: float
    at_peak: float


class Changes:
    """Compares a run's parameters with those it begins with in this process. All processes call every method."""

    def __init__(
        self,
        settings: config.TrainConfig,
        data: setup.Data,
        program: program_lib.Program,
        state: step_lib.TrainState,
        learning_rates: Float[np.ndarray, " updates"],
        say: Callable[[str], None],
    ):
        """Compute the checksums before the first update, if there is one to come. say: takes warnings."""
        self._settings, self._data, self._frozen = settings, data, program.frozen
        self._rates, self._say, self._whole = learning_rates, say, mesh_lib.replicated(program.mesh)
        known = table.parameters_of(program.model.config, program.model.lora)
        self._part = {id_: one.part for id_, one in known.items()}
        goes_on = int(state.step) < data.last_update
        self._start = store.checksums(state.params) if goes_on else {}
        self._frozen_start = store.checksums(program.frozen) if goes_on else {}
        self._tries = dict.fromkeys(self._start, 0)  # of the arrays that nothing is known of yet
        self._moved: set[str] = set()  # parts
        self._updates = 0

    def due(self, index: int) -> bool:
        """Whether update `index` (from 0), which was just begun, is to be checked."""
        return bool(self._tries and self._rates[index] > 0 and self._told_by(index))

    def _told_by(self, index: int) -> list[str]:
        """The arrays that are still to change, and that update `index` should change: the projector by pictures."""
        pictures = self._data.mixture.index.pictures[self._data.plan[index].samples].any()
        return [id_ for id_ in self._tries if pictures or self._part[id_] != "projector"]

    def check(self, index: int, state: step_lib.TrainState, values: Mapping[str, float]) -> None:
        """Look at the state after update `index`, for which `due` was true and whose metrics are `values`.

        An update that was skipped, or whose gradient is 0, says nothing. Adapters A have no gradient while B is 0, and
        so are given another update.

        Raises:
          UserError: a part that should train is as it was, and rounding is not why; or a frozen array has changed.
        """
        if values["skipped"] or not values["grad_norm"]:
            return
        if not self._updates:
            self._check_frozen(f"after update {index + 1}")
        self._updates += 1
        seen, flat = self._told_by(index), trees.flatten(state.params)
        now = store.checksums({id_: flat[id_] for id_ in seen})
        still: dict[str, _Still] = {}
        for id_ in seen:
            if now[id_] != self._start[id_]:
                self._moved.add(self._part[id_])
                del self._tries[id_]
                continue
            self._tries[id_] += 1
            found = self._still(id_, state, index)
            waits = found.step < _PLAIN <= found.at_peak or (id_.endswith(".lora_a") and not found.gradient)
            if not waits or self._tries[id_] == _TRIES:
                still[id_] = found
                del self._tries[id_]
        self._check_parts(index + 1, still)
        self._warn(index + 1, still)

    def conclude(self, state: step_lib.TrainState) -> None:
        """Compare once more at the end of the run.

        Raises:
          UserError: a frozen array is not what it was.
        """
        self._check_frozen("at the end")
        if self._updates:
            now = store.checksums(state.params)
            if same := [id_ for id_, one in self._start.items() if now[id_] == one]:
                self._say(f"{len(same):,} of {len(now):,} trained arrays never changed: {_names(same)}")

    def _check_frozen(self, when: str) -> None:
        now = store.checksums(self._frozen) if self._frozen_start else {}
        if changed := [id_ for id_, one in self._frozen_start.items() if now[id_] != one]:
            parts = " and ".join(sorted({_PARTS[self._part[id_]] for id_ in changed}))
            raise errors.UserError(
                f"frozen weights of the {parts} have changed {when} ({_names(changed)}), and nothing may change them:"
                " this machine's memory is faulty, or this is an error of the program; no model is written, and states"
                " saved meanwhile may be wrong: start again in another --workdir, on another machine"
            )

    def _still(self, id_: str, state: step_lib.TrainState, index: int) -> _Still:
        mu, nu, count = optimizer.moments(state.opt_state)
        o = self._settings.optimizer
        peak = optimizer.learning_rate(id_, o)
        decay = o.weight_decay if optimizer.decays(id_) else 0.0
        measure = functools.partial(_measure, b1=o.b1, b2=o.b2, eps=o.eps, decay=decay)
        flat = (trees.flatten(tree)[id_] for tree in (state.params, mu, nu))
        measured = jax.jit(measure, out_shardings=self._whole)(*flat, count)
        gradient, step = (float(np.asarray(one)) for one in measured)
        return _Still(gradient, peak * float(self._rates[index]) / o.learning_rate * step, peak * step)

    def _check_parts(self, update: int, still: Mapping[str, _Still]) -> None:
        """Raise UserError if all of a part was judged and should have changed."""
        waiting = {self._part[id_] for id_ in self._tries}
        for part in dict.fromkeys(self._part[id_] for id_ in still):
            if part in self._moved | waiting:
                continue
            of_part = {id_: found for id_, found in still.items() if self._part[id_] == part}
            if without := [id_ for id_, found in of_part.items() if not found.gradient]:
                why = f"no gradient reaches {_names(without)}"
            elif lost := [id_ for id_, found in of_part.items() if found.step >= _PLAIN]:
                why = f"the optimizer did not apply its steps to {_names(lost)}"
            else:
                continue
            raise errors.UserError(
                f"update {update} left the {_PARTS[part]} as it was, which this run is to train: {why}; look at"
                " config.loss and config.optimizer"
            )

    def _warn(self, update: int, still: Mapping[str, _Still]) -> None:
        kind = self._settings.precision.params
        if rounded := {id_: found for id_, found in still.items() if found.gradient}:
            most = max(found.at_peak for found in rounded.values())
            self._say(
                f"update {update} left {len(rounded):,} of {len(self._start):,} trained arrays as they were: their"
                f" steps round away in {kind} (at the peak of the learning rate the largest is {most:.2g} of what"
                f" changes a number): {_names(rounded)}"
                + ("; config.precision.params=fp32 would keep them" if kind != "fp32" else "")
            )
        if without := [id_ for id_, found in still.items() if not found.gradient]:
            self._say(
                f"update {update} left {len(without):,} of {len(self._start):,} trained arrays as they were: no"
                f" gradient reaches {_names(without)}"
            )


_PARTS = {  # by part (families/parameters.py), for people
    "text": "language model",
    "head": "head",
    "vision": "vision tower",
    "projector": "projector",
    "adapter": "adapters",
}
assert _PARTS.keys() == set(parameters.PARTS)


def _measure(
    value: Array, mu: Array, nu: Array, count: Array, *, b1: float, b2: float, eps: float, decay: float
) -> tuple[Array, Array]:
    """(largest first moment, largest AdamW step at learning rate 1 as a share of what surely changes a number: half the
    widest spacing of numbers of its size)."""
    weights, first, second = (x.astype(jnp.float32) for x in (value, mu, nu))
    n = count.astype(jnp.float32)
    step = jnp.abs(first / (1 - b1**n)) / (jnp.sqrt(second / (1 - b2**n)) + eps) + decay * jnp.abs(weights)
    half = 0.5 * float(jnp.finfo(value.dtype).eps) * jnp.abs(weights) + float(jnp.finfo(value.dtype).tiny)
    return jnp.max(jnp.abs(first)), jnp.max(step / half)


def _names(ids: Iterable[str]) -> str:
    found = sorted(ids)
    more = f" and {len(found) - _NAMED} more" if len(found) > _NAMED else ""
    return ", ".join(found[:_NAMED]) + more

"""Whether a probe fits beside the training, told before the first step."""

from __future__ import annotations

from typing import Any

import jax

from vlguard_jax import config
from vlguard_jax import errors
from vlguard_jax.families import functional
from vlguard_jax.generation import lengths
from vlguard_jax.generation import memory
from vlguard_jax.generation import weights
from vlguard_jax.parallel import mesh as mesh_lib
from vlguard_jax.training import program as program_lib
from vlguard_jax.training import step as step_lib


def check(settings: config.TrainConfig, program: program_lib.Program, longest: int) -> None:
    """Refuse a probe for which a device has no room. longest: tokens of a prompt, at most; 0: there are no probes.

    Raises:
      UserError: answers at a time that fit are named.
    """
    of_device = memory.limit(program.mesh)
    if of_device is None or not longest:
        return
    decode, text, shards = settings.probe.decode, program.model.config.text, mesh_lib.row_shards(program.mesh)
    state = _bytes((program.state, program.frozen, program.reference))
    copy = _bytes(copied(settings, program))
    number = 1 if decode.kv_cache == "int8" else functional.DTYPES[settings.precision.compute].itemsize
    token = memory.of_token(text, number, program.mesh.shape["tensor"])
    each = -(-decode.batch_size // shards)
    most = lengths.room(longest + 2 * lengths.MULTIPLE)
    rooms = [room for room in range(128, most + 1, 128) if lengths.room(room) == room]
    slots, one = max(
        ((lengths.slots(each, room), token * (room + decode.max_new_tokens)) for room in rooms),
        key=lambda found: found[0] * found[1],
    )
    kept = int(decode.reuse_gib * memory.GIB)
    fits = memory.fitting(of_device, state + copy + kept, one)
    if fits >= slots:
        return
    least = each * shards * fits // slots
    way = (
        f"set it to {least} or less"
        if least
        else "divide the model with config.mesh, or set config.probe.every=0 and evaluate the tuned model"
    )
    raise errors.UserError(
        f"config.probe.decode.batch_size={decode.batch_size}: a probe takes {slots * one / memory.GIB:.1f} GiB of cache"
        f" on each device, beside {state / memory.GIB:.1f} of the training, {copy / memory.GIB:.1f} for its copy of the"
        f" weights and {kept / memory.GIB:.1f} of kept prefixes (config.probe.decode.reuse_gib), and it has"
        f" {of_device / memory.GIB:.1f}; {way}"
    )


def copied(settings: config.TrainConfig, program: program_lib.Program) -> list[jax.ShapeDtypeStruct]:
    """The arrays that the engine makes of the training's: the decoder's layers, and what is in another format."""
    model = functional.Model(program.model.config, settings.precision.compute, program.model.lora)
    split = weights.abstract(model, program.mesh)
    here, there = (functional.with_layers(x, {}) for x in (step_lib.join(program.state.params, program.frozen), split))
    others = jax.tree.map(lambda have, need: [] if have.dtype == need.dtype else [need], here, there)
    return jax.tree.leaves((split["text"]["layers"], others))


def _bytes(tree: Any) -> int:
    """Bytes on one device."""
    return sum(map(memory.own, jax.tree.leaves(tree)))

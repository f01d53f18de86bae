"""Bytes that a compiled module reads and writes in a device's large memory in one run, loop bodies multiplied.

XLA's own count takes every operand and result whole, so that a column which is written into a cache in place counts as
the whole cache, twice. Here an array counts with what is touched: the slice that is read out of it, the update that is
written into it; what lies in a TPU's near memory counts where it is brought in or out.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
import re

from vlguard_jax.planning import hlo

NEAR = re.compile(r":[^}]*S\(1\)")  # the layout of an array in a TPU's VMEM
# Those that name memory, pass it on, or are counted by what they call.
FREE = {
    "parameter",
    "constant",
    "tuple",
    "get-tuple-element",
    "bitcast",
    "while",
    "conditional",
    "call",
    "opt-barrier",
    "after-all",
    "partition-id",
    "iota",
}
SLICES = ("dynamic-slice", "slice", "gather")
MOVES = ("copy-start", "slice-start", "dynamic-slice-start")  # between memories
UPDATES = {"dynamic-update-slice": 1, "scatter": 2}  # which operand is written


def accessed(text: str) -> float:
    """Bytes read and written by a module as `compiled.as_text()` prints it.

    Raises:
      UnreadableError: a loop's trip count cannot be read.
    """
    computations, entry = hlo.parse(text)
    times = hlo.executions(computations, entry)
    inner = set(_inner(computations))
    return float(
        sum(
            times.get(name, 0) * sum(_bytes(line, computation, computations) for line in computation.values())
            for name, computation in computations.items()
            if name not in inner
        )
    )


def _inner(computations: Mapping[str, hlo.Computation]) -> Iterator[str]:
    """Bodies of fusions and reductions: their intermediate results are in registers."""
    for computation in computations.values():
        for line in computation.values():
            if line.opcode not in ("call", "while", "conditional"):
                yield from re.findall(r"\b(?:calls|to_apply)=%([\w.\-]+)", line.rest)


def _bytes(line: hlo.Instruction, computation: hlo.Computation, computations: Mapping[str, hlo.Computation]) -> int:
    if line.opcode in FREE or line.opcode.endswith("-done"):
        return 0
    given = [_far(computation[name].shape) if name in computation else 0 for name in line.operands]
    if line.opcode in MOVES:  # ((operands), result, context), or (result, operand, context)
        parts = _parts(line.shape)
        result = parts[0] if line.opcode == "copy-start" else parts[-2]
        return hlo.size(result) * bool(given[0]) + _far(result)
    if line.opcode in SLICES:
        return 2 * _far(line.shape)
    if line.opcode in UPDATES:
        return 2 * given[UPDATES[line.opcode]]
    if line.opcode != "fusion":
        return sum(given) + _far(line.shape)
    called = re.search(r"\bcalls=%([\w.\-]+)", line.rest)
    assert called
    inside = computations[called[1]]
    users = _users(inside)
    parameters = {int(one.argument): one for one in inside.values() if one.opcode == "parameter"}
    read = sum(min(size, _read(parameters[i], users)) for i, size in enumerate(given) if size)
    return read + min(_far(line.shape), _written(next(one for one in inside.values() if one.root), inside))


def _users(computation: hlo.Computation) -> dict[str, list[tuple[hlo.Instruction, int]]]:
    """Name -> (instruction that takes it, as which operand)."""
    found: dict[str, list[tuple[hlo.Instruction, int]]] = {}
    for line in computation.values():
        for i, name in enumerate(line.operands):
            found.setdefault(name, []).append((line, i))
    return found


def _read(value: hlo.Instruction, users: Mapping[str, list[tuple[hlo.Instruction, int]]]) -> int:
    """Bytes that a fusion reads of one of its parameters, or of what that is called on the way."""
    total = 0
    for user, i in users.get(value.name, ()):
        if user.opcode == "bitcast":
            total += _read(user, users)
        elif user.opcode in SLICES and i == 0:
            total += hlo.size(user.shape)
        elif not (user.opcode in UPDATES and i == 0):
            return hlo.size(value.shape)
    return total


def _written(root: hlo.Instruction, inside: hlo.Computation) -> int:
    """Bytes that a fusion writes."""
    if root.opcode == "tuple":
        return sum(_written(inside[name], inside) for name in root.operands)
    if root.opcode == "bitcast":
        return _written(inside[root.operands[0]], inside)
    if root.opcode in UPDATES:
        return hlo.size(inside[root.operands[UPDATES[root.opcode]]].shape)
    return hlo.size(root.shape)


def _parts(shape: str) -> list[str]:
    """The arrays of a printed shape, with their layouts."""
    return re.findall(r"[a-z]+\d*\[[\d,]*\](?:\{[^{}]*\})?", shape)


def _far(shape: str) -> int:
    """Bytes of the parts of a printed shape that are not in near memory."""
    return sum(hlo.size(part) for part in _parts(shape) if not NEAR.search(part))

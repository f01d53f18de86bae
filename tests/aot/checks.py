"""What must not be in a compiled module. Every check returns what it found, one line each; nothing found is good."""

from __future__ import annotations

from collections.abc import Iterator
import math
import re

import jax

from vlguard_jax.families.blocks import configs
from vlguard_jax.planning import flops
from vlguard_jax.planning import hlo

WHOLE = r"\['vision'\]"  # the frozen tower, 0.6 GiB, lies on every device by design (parallel/rules.py)
MIB = 2**20
_SHAPE = re.compile(r"\b([a-z]+\d*)\[([\d,]*)\]")
_DOT = re.compile(r"stablehlo\.(dot_general|convolution)\b(.*)")


def replicated(done: jax.stages.Compiled, limit: int = 4 * MIB) -> list[str]:
    """Arguments over `limit` bytes that every device holds whole, and a sum of arguments that is not theirs divided by
    the devices."""
    infos, places = jax.tree_util.tree_leaves_with_path(done.args_info), done.input_shardings
    found, expected = [], 0
    for path, info in infos:
        place = _at(places, path)
        if place is None:  # the program does not read it
            continue
        name, size = jax.tree_util.keystr(path), math.prod(info.shape) * info.dtype.itemsize
        whole = place.is_fully_replicated and place.num_devices > 1
        if whole and size > limit and not re.search(WHOLE, name):
            found.append(f"{name} {info.shape} is whole on each of {place.num_devices} devices")
        expected += size if whole else size // place.num_devices
    analysis = done.memory_analysis()
    assert analysis is not None
    given = analysis.argument_size_in_bytes
    if given > 1.03 * expected + 8 * MIB:
        found.append(
            f"arguments take {given / MIB:,.0f} MiB a device; divided by the devices they are {expected / MIB:,.0f}"
        )
    return found


def _at(tree: object, path: tuple) -> jax.sharding.Sharding | None:
    for key in path:
        tree = getattr(tree, key.name) if hasattr(key, "name") else tree[getattr(key, "key", getattr(key, "idx", None))]
    return tree


def copied(done: jax.stages.Compiled, limit: int = 4 * MIB) -> list[str]:
    """Copies in a device's large memory of what is as large as one of its arguments of over `limit` bytes: weights or
    cache that are not read and written where they lie."""
    large = set()
    for path, info in jax.tree_util.tree_leaves_with_path(done.args_info):
        place = _at(done.input_shardings, path)
        own = math.prod(place.shard_shape(info.shape)) if place is not None else 0
        large |= {own} if own * info.dtype.itemsize > limit else set()
    found = []
    for line in _lines(done.as_text() or ""):
        near = re.search(r":[^}]*S\(1\)", line.shape)  # a TPU's VMEM, where all goes that is computed with
        if line.opcode in ("copy", "transpose") and not near:
            found += [f"%{line.name} copies {list(dims)}" for dims in _dims(line.shape) if math.prod(dims) in large]
    return found


def stacks(text: str, model: configs.TextConfig) -> list[str]:
    """All-gathers of more than the largest matrix there is, of one layer or of the vocabulary: a stack of layers, or
    several at once.

    Dimensions alone do not tell: 7B has as many heads as layers.
    """
    largest = max(model.vocab_size * model.width, *(i * o for i, o in flops.linears(model).values()))
    found = []
    for line in _lines(text):
        if line.opcode.removesuffix("-start") == "all-gather":
            large = [list(dims) for dims in _dims(line.shape) if math.prod(dims) > largest]
            found += [f"%{line.name} gathers {dims}, more than a matrix of one layer" for dims in large]
    return found


def logits(text: str, tokens: tuple[int, ...], model: configs.TextConfig, tensor: int) -> list[str]:
    """Arrays of the size of all logits: of as many numbers as `tokens` (a device's own, all devices') times the
    vocabulary, or more positions than the fewest of `tokens` beside a vocabulary dimension. Embedding and head have
    one, too: [width, V]."""
    vocab, found = model.vocab_size, {}
    for line in _lines(text):
        for dims in _dims(line.shape):
            numbers = math.prod(dims)
            beside = [numbers // part for part in (vocab, vocab // tensor) if part in dims]
            too_many = any(rest >= min(tokens) and rest != model.width for rest in beside)
            if too_many or numbers in {count * vocab // part for count in tokens for part in (1, tensor)}:
                found.setdefault(dims, f"%{line.name} has {list(dims)}: logits of all positions")
    return list(found.values())


def precision(lowered: str) -> list[str]:
    """Products in a lowered module (StableHLO) that are not asked for at `highest` precision; a module without any is a
    fault."""
    lines = [line[0] for line in _DOT.finditer(lowered)]
    found = [line[:120] for line in lines if not re.search(r"precision(_config)? = \[[^\]]*HIGHEST[^\]]*HIGHEST", line)]
    return found if lines else ["there is no product in the module"]


def _lines(text: str) -> Iterator[hlo.Instruction]:
    for computation in hlo.parse(text)[0].values():
        yield from computation.values()


def _dims(shape: str) -> list[tuple[int, ...]]:
    return [
        tuple(map(int, filter(None, dims.split(",")))) for _, dims in _SHAPE.findall(re.sub(r"\{[^{}]*\}", "", shape))
    ]

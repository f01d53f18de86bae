"""Collectives of a compiled module, and the bytes that a device receives through them in one run, loop bodies
multiplied.

XLA for TPUs prints no trip counts: they are read from a loop's condition (a counter below a constant), its start and
its step. A collective that XLA spreads over several fusions is printed in each; they share its channel, which counts
once.
"""

from __future__ import annotations

from collections.abc import Mapping
import dataclasses
import functools
import math
import re

BYTES = {
    "pred": 1,
    "s8": 1,
    "u8": 1,
    "s16": 2,
    "u16": 2,
    "bf16": 2,
    "f16": 2,
    "s32": 4,
    "u32": 4,
    "f32": 4,
    "s64": 8,
    "u64": 8,
    "f64": 8,
}
KINDS = ("all-gather", "all-reduce", "reduce-scatter", "all-to-all", "collective-permute")
_HEAD = re.compile(r"^(ENTRY )?%([\w.\-]+) \(.*\{$", re.MULTILINE)
_LINE = re.compile(r"^\s+(ROOT )?%([\w.\-]+) = (.*)$")
_OPCODE = re.compile(r" ([a-z][\w\-]*)\(")
_SHAPE = re.compile(r"\b([a-z]+\d*)\[([\d,]*)\]")
_CALLED = re.compile(
    r"\b(?:calls|to_apply|true_computation|false_computation)=%([\w.\-]+)|\bbranch_computations=\{([^}]*)\}"
)


@dataclasses.dataclass(frozen=True)
class Instruction:
    """A line of a computation. shape: as printed; operands: names; rest: attributes."""

    name: str
    shape: str
    opcode: str
    operands: tuple[str, ...]
    argument: str
    rest: str
    root: bool


@dataclasses.dataclass(frozen=True)
class Collective:
    """kind: one of KINDS; shape: of its result as printed; received: bytes that a device receives each time; times:
    executions in one run."""

    kind: str
    shape: str
    group: int
    received: float
    times: int
    source: str


class UnreadableError(ValueError):
    """The module has a loop or a group whose size cannot be read."""


Computation = Mapping[str, Instruction]


def parse(text: str) -> tuple[dict[str, Computation], str]:
    """(computations by name, the entry's name) of a module as `compiled.as_text()` prints it."""
    heads = list(_HEAD.finditer(text))
    found: dict[str, Computation] = {}
    entry = ""
    for head, after in zip(heads, [*heads[1:], None], strict=True):
        body = text[head.end() : after.start() if after else len(text)]
        lines = (_instruction(line) for line in body.splitlines())
        found[head[2]] = {line.name: line for line in lines if line}
        entry = head[2] if head[1] else entry
    return found, entry


def _instruction(line: str) -> Instruction | None:
    parts = _LINE.match(line)
    opcode = _OPCODE.search(parts[3]) if parts else None
    if not parts or not opcode:
        return None
    depth, start = 1, opcode.end()
    end = start
    while end < len(parts[3]) and depth:
        depth += {"(": 1, ")": -1}.get(parts[3][end], 0)
        end += 1
    argument = parts[3][start : end - 1]
    operands = tuple(re.findall(r"%([\w.\-]+)", argument))
    return Instruction(
        parts[2], parts[3][: opcode.start()], opcode[1], operands, argument, parts[3][end:], bool(parts[1])
    )


def size(shape: str) -> int:
    """Bytes of a printed shape, summed over a tuple; layouts, tiles and tokens do not count."""
    plain = re.sub(r"\{[^{}]*\}", "", shape)
    return sum(
        BYTES[kind] * math.prod(map(int, filter(None, dims.split(","))))
        for kind, dims in _SHAPE.findall(plain)
        if kind in BYTES
    )


def collectives(text: str, devices: int) -> list[Collective]:
    """The collectives of a module for `devices` devices, each channel once.

    Raises:
      UnreadableError: a loop's trip count or a group's size cannot be read.
    """
    computations, entry = parse(text)
    times = executions(computations, entry)
    found: dict[str, Collective] = {}
    for name, computation in computations.items():
        for line in computation.values():
            kind = line.opcode.removesuffix("-start")
            if kind not in KINDS or not times.get(name):
                continue
            channel = re.search(r"channel_id=(\d+)", line.rest)
            key = channel[1] if channel else f"{name}/{line.name}"
            source = re.search(r'op_name="([^"]*)"', line.rest)
            shape = _result(line, kind)
            group = _group(line.rest, devices) if kind != "collective-permute" else devices
            made = Collective(
                kind, shape, group, _received(kind, size(shape), group), times[name], source[1] if source else ""
            )
            if (
                key not in found or made.times < found[key].times
            ):  # start and end of a collective spread over fusions appear once
                found[key] = made
    return list(found.values())


def received(found: list[Collective]) -> dict[str, float]:
    """Bytes a device receives in one run, by kind."""
    return {kind: total for kind in KINDS if (total := sum(c.received * c.times for c in found if c.kind == kind))}


def network(text: str, slices: int) -> float:
    """Bytes that a device receives from other slices in one run.

    A module for several slices has collectives within its own slice only; traffic over the data-centre network is sent
    and received through the host.

    Raises:
      UnreadableError: a transfer is not a sum over the slices, or a loop's trip count cannot be read.
    """
    computations, entry = parse(text)
    times, total = executions(computations, entry), 0.0
    for name, computation in computations.items():
        for line in computation.values():
            if line.opcode == "recv" and "xla_megascale" in line.rest:
                kind = re.search(r'_xla_megascale_transfer_type="(\w+)"', line.rest)
                if not kind or kind[1] != "ALL_REDUCE":
                    raise UnreadableError(f"{line.name} between slices is of the kind {kind[1] if kind else 'unknown'}")
                # a context comes with it
                total += _received("all-reduce", size(line.shape) - BYTES["u32"], slices) * times.get(name, 0)
    return total


def _result(line: Instruction, kind: str) -> str:
    """The shape of a collective's result; an asynchronous start returns its operands first."""
    if line.opcode == kind:
        return line.shape
    parts = _SHAPE.findall(re.sub(r"\{[^{}]*\}", "", line.shape))
    parts = [part for part in parts if kind != "collective-permute" or part[1]]
    return ", ".join(f"{kind}[{dims}]" for kind, dims in parts[len(parts) // 2 :])


def _received(kind: str, result: int, group: int) -> float:
    """Bytes in a ring: everything but the device's own part once, or twice for an all-reduce."""
    others = (group - 1) / group
    return {
        "all-gather": result * others,
        "all-reduce": 2 * result * others,
        "reduce-scatter": float(result * (group - 1)),
        "all-to-all": result * others,
        "collective-permute": float(result),
    }[kind]


def _group(rest: str, devices: int) -> int:
    """Devices in a group: listed, as iota "[groups,size]<=", or by names of mesh axes."""
    said = rest.split("replica_groups=", 1)[-1] if "replica_groups=" in rest else ""
    if said.startswith("{}"):
        return devices
    if listed := re.match(r"\{\{([\d,]*)\}", said):
        return len(listed[1].split(","))
    if iota := re.match(r"\[(\d+),(\d+)\]<=", said):
        return int(iota[2])
    if axes := re.match(r"mesh\[([^\]]*)\]\s*\{([^}]*)\}", said):
        sizes = dict(re.findall(r"'(\w+)'=(\d+)", axes[1]))
        return math.prod(int(sizes[name]) for name in re.findall(r"'(\w+)'", axes[2]))
    raise UnreadableError(f"no size of the group in {said[:60]!r}")


def executions(computations: Mapping[str, Computation], entry: str) -> dict[str, int]:
    """How often each computation runs. Both branches of a conditional count: an upper bound."""
    callers: dict[str, list[tuple[str, int]]] = {name: [] for name in computations}
    for name, computation in computations.items():
        for line in computation.values():
            if line.opcode == "while":
                condition, body = (re.search(rf"\b{part}=%([\w.\-]+)", line.rest) for part in ("condition", "body"))
                assert condition and body
                callers[body[1]].append((name, _turns(computations, computation, line, condition[1], body[1])))
                continue
            for single, several in _CALLED.findall(line.rest):
                for called in [single] if single else re.findall(r"%([\w.\-]+)", several):
                    callers[called].append((name, 1))

    @functools.cache
    def of(name: str) -> int:
        return 1 if name == entry else sum(of(caller) * count for caller, count in callers[name])

    return {name: of(name) for name in computations}


def _turns(
    computations: Mapping[str, Computation], outside: Computation, loop: Instruction, condition: str, body: str
) -> int:
    if known := re.search(r'"known_trip_count":\{"n":"(\d+)"\}', loop.rest):
        return int(known[1])
    test = next(line for line in computations[condition].values() if line.root)
    counter, bound = (computations[condition].get(name) for name in (*test.operands, "", "")[:2])
    index = re.search(r"index=(\d+)", counter.rest) if counter and counter.opcode == "get-tuple-element" else None
    if "direction=LT" not in test.rest or not index or not bound or bound.opcode != "constant":
        raise UnreadableError(f"the loop {loop.name} does not count up to a constant")
    at = int(index[1])
    first = _constant(outside, outside[loop.operands[0]].operands[at]) if loop.operands[0] in outside else None
    root = next(line for line in computations[body].values() if line.root)
    step = _step(computations[body], root.operands[at], at)
    if first is None or not step:
        raise UnreadableError(f"the loop {loop.name} has no plain start or step")
    return max(0, -(-(int(bound.argument) - first) // step))


def _through(computation: Computation, name: str) -> Instruction | None:
    line = computation.get(name)
    while line and line.opcode in ("copy", "bitcast", "copy-done", "copy-start"):
        line = computation.get(line.operands[0])
    return line


def _constant(computation: Computation, name: str) -> int | None:
    line = _through(computation, name)
    return int(line.argument) if line and line.opcode == "constant" and re.fullmatch(r"-?\d+", line.argument) else None


def _step(computation: Computation, name: str, at: int) -> int | None:
    """What the loop body adds to element `at` of the loop's state, on the way to `name`."""
    line = _through(computation, name)
    if line and line.opcode == "get-tuple-element":
        return 0 if re.search(rf"index={at}\b", line.rest) else None
    if not line or line.opcode != "add":
        return None
    for one, other in (line.operands, line.operands[::-1]):
        added, before = _constant(computation, other), _step(computation, one, at)
        if added is not None and before is not None:
            return added + before
    return None

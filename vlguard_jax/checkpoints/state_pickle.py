"""The pickle inside a torch file, read as data.

Python's pickle module would import, call and set whatever a file asks for. This one interprets only the opcodes that
torch.save writes for a state dict: names become tokens, calls of the three functions of a state dict become records,
and a file never reaches an object of this process. Opcodes: pickletools; contents of a state dict: torch/_utils.py and
torch/serialization.py.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
import dataclasses
import pickletools
from typing import Any

_OTHER = "holds something else than a flat dict of tensors"
_ODD = "damaged, or not written by torch.save: get the file again"
_TENSOR, _PARAMETER, _ORDERED = (
    "torch._utils _rebuild_tensor_v2",
    "torch._utils _rebuild_parameter",
    "collections OrderedDict",
)


class RefusedError(Exception):
    """What is wrong, in words that follow the file's name."""


@dataclasses.dataclass(frozen=True)
class Storage:
    """Numbers of one kind (torch's name, as "HalfStorage") in the file's member data/`key`."""

    kind: str
    key: str
    count: int


@dataclasses.dataclass(frozen=True)
class Strided:
    """A tensor: part of a storage; offset and strides in numbers. What they say is not checked yet."""

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


@dataclasses.dataclass(frozen=True)
class _Name:
    """A global named in the pickle; only its name."""

    name: str


def load(data: bytes, kinds: Mapping[str, Any]) -> dict[str, Strided]:
    """The state dict in the pickle `data`. kinds: the storages that may be named.

    Raises:
      RefusedError: damaged, asks for something that a state dict does not need, or holds something else.
    """
    names = {_TENSOR, _PARAMETER, _ORDERED, *(f"torch {kind}" for kind in kinds)}
    try:
        content = _Machine(names).run(data)
    except (ValueError, IndexError, KeyError) as e:  # from pickletools, an empty stack or an unknown memo
        raise RefusedError(f"not a readable torch file, its list of tensors is {_ODD}") from e
    if not isinstance(content, dict) or not all(isinstance(value, Strided) for value in content.values()):
        raise RefusedError(_OTHER)
    return content


class _Machine:
    """The stack of a pickle.

    Values are None, bool, int, float, str, tuple, list, dict of texts, and the three classes above.
    """

    def __init__(self, names: set[str]):
        self._names = names
        self._stack: list[Any] = []
        self._below: list[list[Any]] = []  # stacks under the marks
        self._memo: dict[int, Any] = {}

    def run(self, data: bytes) -> Any:
        """Run the pickle; returns what is on the stack at the end."""
        argument: Any
        for opcode, argument, _ in pickletools.genops(data):
            name = opcode.name
            if name in ("BINUNICODE", "SHORT_BINUNICODE", "BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT"):
                self._stack.append(argument)
            elif name in ("BINPUT", "LONG_BINPUT", "MEMOIZE"):
                self._memo[len(self._memo) if argument is None else argument] = self._stack[-1]
            elif name in ("BINGET", "LONG_BINGET"):
                self._stack.append(self._memo[argument])
            elif name == "GLOBAL":
                self._name(argument)
            elif name == "MARK":
                self._below.append(self._stack)
                self._stack = []
            elif name in _NEW:
                self._stack.append(_NEW[name]())
            elif name in _STEPS:
                _STEPS[name](self)
            elif name not in ("PROTO", "FRAME", "STOP"):
                raise RefusedError(
                    f"refused to load, since it asks for {name} and a file of weights does not need that"
                )
        return self._stack.pop()

    def marked(self) -> list[Any]:
        """Pop everything above the last mark."""
        above, self._stack = self._stack, self._below.pop()
        return above

    def pop(self) -> Any:
        """Pop the top value."""
        return self._stack.pop()

    def tuple_of(self, count: int) -> None:
        """TUPLE1 to TUPLE3."""
        values = tuple(self._stack.pop() for _ in range(count))
        self._stack.append(values[::-1])

    def marked_tuple(self) -> None:
        """TUPLE."""
        values = tuple(self.marked())
        self._stack.append(values)

    def append(self, values: list[Any]) -> None:
        """APPEND and APPENDS."""
        if not isinstance(self._stack[-1], list):
            raise ValueError("no list")
        self._stack[-1].extend(values)

    def set_items(self, items: list[Any]) -> None:
        """SETITEM and SETITEMS; items: key, value, key, value."""
        target = self._stack[-1]
        for key, value in zip(items[::2], items[1::2], strict=True):
            if not isinstance(target, dict) or not isinstance(key, str):
                raise RefusedError(_OTHER)
            key.encode()  # ValueError for half of a surrogate pair
            if key in target:
                raise RefusedError(f"duplicate tensor {key}; get the file again")
            target[key] = value

    def pair(self) -> list[Any]:
        """Pop the top two values."""
        value = self._stack.pop()
        return [self._stack.pop(), value]

    def stack_global(self) -> None:
        """STACK_GLOBAL."""
        module, name = self.pair()
        self._name(f"{_text(module)} {_text(name)}")

    def _name(self, name: str) -> None:
        if name not in self._names:
            raise RefusedError(
                f"refused to load, since it asks for {name[:100].replace(' ', '.')} and a file of weights does"
                " not need that"
            )
        self._stack.append(_Name(name))

    def persistent(self) -> None:
        """BINPERSID: ("storage", kind, key, place, count)."""
        tag, kind, key, _, count = _tuple(self._stack.pop())
        if (
            tag != "storage"
            or not isinstance(kind, _Name)
            or not kind.name.startswith("torch ")
            or type(count) is not int
        ):
            raise ValueError("no storage")
        self._stack.append(Storage(kind.name.removeprefix("torch "), _text(key), count))

    def call(self) -> None:
        """REDUCE."""
        function, arguments = self.pair()
        arguments = _tuple(arguments)
        if function == _Name(_ORDERED) and not arguments:
            self._stack.append({})
        elif function == _Name(_PARAMETER) and isinstance(arguments[0], Strided):
            self._stack.append(arguments[0])
        elif function == _Name(_TENSOR) and len(arguments) in (6, 7):
            self._stack.append(_strided(*arguments[:4], *arguments[6:]))
        else:
            raise ValueError("no such call")

    def state(self) -> None:
        """BUILD: the attributes of an OrderedDict (torch's `_metadata`), which are ignored."""
        attributes = self._stack.pop()
        if not isinstance(attributes, dict) or not isinstance(self._stack[-1], dict):
            raise ValueError("no attributes of a dict")


def _strided(
    storage: Any = None, offset: Any = None, shape: Any = None, strides: Any = None, metadata: Any = None
) -> Strided:
    """A tensor from the arguments of a call; refuses metadata, which would negate or conjugate it."""
    numbers = (offset, *_tuple(shape), *_tuple(strides))
    if not isinstance(storage, Storage) or metadata or any(type(n) is not int for n in numbers):
        raise ValueError("no tensor")
    return Strided(storage, offset, shape, strides)


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError("no text")
    return value


def _tuple(value: Any) -> tuple[Any, ...]:
    if not isinstance(value, tuple):
        raise ValueError("no tuple")
    return value


_NEW: dict[str, Callable[[], Any]] = {
    "NONE": lambda: None,
    "NEWTRUE": lambda: True,
    "NEWFALSE": lambda: False,
    "EMPTY_TUPLE": tuple,
    "EMPTY_LIST": list,
    "EMPTY_DICT": dict,
}
_STEPS: dict[str, Callable[[_Machine], None]] = {
    "TUPLE": _Machine.marked_tuple,
    "TUPLE1": lambda m: m.tuple_of(1),
    "TUPLE2": lambda m: m.tuple_of(2),
    "TUPLE3": lambda m: m.tuple_of(3),
    "APPEND": lambda m: m.append([m.pop()]),
    "APPENDS": lambda m: m.append(m.marked()),
    "SETITEM": lambda m: m.set_items(m.pair()),
    "SETITEMS": lambda m: m.set_items(m.marked()),
    "STACK_GLOBAL": _Machine.stack_global,
    "BINPERSID": _Machine.persistent,
    "REDUCE": _Machine.call,
    "BUILD": _Machine.state,
}

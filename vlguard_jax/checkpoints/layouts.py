"""Parameter tree <-> tensors of checkpoint files: a family's table of parameters (families/parameters.py) read in both
directions."""

from __future__ import annotations

from collections.abc import Collection, Mapping
import dataclasses
import re

import numpy as np

from vlguard_jax import errors
from vlguard_jax.checkpoints import diagnose
from vlguard_jax.checkpoints import tensors
from vlguard_jax.families import family
from vlguard_jax.families import parameters
from vlguard_jax.families import table
from vlguard_jax.families.blocks import configs

_TO_TREE = {parameters.LINEAR: (1, 0), parameters.CONV: (2, 3, 1, 0)}
_FROM_TREE = {parameters.LINEAR: (1, 0), parameters.CONV: (3, 2, 0, 1)}
# A matrix is transposed in blocks, and these in strips of rows: twice as fast as strips alone, which are 4 times as
# fast as all rows at once where their stride is a power of two.
_BLOCK, _STRIP = 512, 16


@dataclasses.dataclass(frozen=True)
class Row:
    """One array of the tree and its tensors in a checkpoint.

    `names[layer]` lists the accepted names, first the one that is written; `stacked`: the array has a leading layer
    axis. `shape` is the shape in the tree, `stored_shape` that of each stored tensor; `fresh` as in `Parameter`.
    """

    path: str
    names: tuple[tuple[str, ...], ...]
    transform: str
    stacked: bool
    shape: tuple[int, ...]
    stored_shape: tuple[int, ...]
    fresh: float = 0.0

    @property
    def unpadded(self) -> tuple[int, ...]:
        """`stored_shape` without rows of a padded vocabulary."""
        one = self.shape[self.stacked :]
        return tuple(one[axis] for axis in _FROM_TREE.get(self.transform, range(len(one))))

    def to_tree(self, stored: np.ndarray) -> np.ndarray:
        """Convert one stored tensor into one layer (or the whole) of the tree's array, without rows of a padded
        vocabulary."""
        turned = _turn(stored, _TO_TREE[self.transform]) if self.transform in _TO_TREE else stored
        return turned[tuple(slice(n) for n in self.shape[self.stacked :])]

    def box(self, tensor: tensors.Tensor, wanted: tuple[slice, ...]) -> np.ndarray:
        """A part of `to_tree` of one stored tensor, with a slice for each axis; of the file only its rows are read."""
        order = _TO_TREE.get(self.transform, tuple(range(len(wanted))))
        back = _FROM_TREE.get(self.transform, order)
        ends = [one.indices(size)[:2] for one, size in zip(wanted, self.shape[self.stacked :], strict=True)]
        stored = [ends[axis] for axis in back]
        part = tensor.read_rows(*stored[0])[(slice(None), *(slice(*end) for end in stored[1:]))]
        return _turn(part, order) if self.transform in _TO_TREE else part

    def from_tree(self, value: np.ndarray) -> np.ndarray:
        """The inverse of `to_tree` for an unpadded vocabulary."""
        return _turn(value, _FROM_TREE[self.transform]) if self.transform in _FROM_TREE else np.ascontiguousarray(value)


def _turn(x: np.ndarray, axes: tuple[int, ...]) -> np.ndarray:
    """A transposed copy."""
    if x.ndim != 2:
        return np.ascontiguousarray(x.transpose(axes))
    result = np.empty(x.shape[::-1], x.dtype)
    for j in range(0, x.shape[1], _BLOCK):
        for i in range(0, len(x), _BLOCK):
            block, place = x[i : i + _BLOCK, j : j + _BLOCK], result[j : j + _BLOCK, i : i + _BLOCK]
            for k in range(0, len(block), _STRIP):
                place[:, k : k + _STRIP] = block[k : k + _STRIP].T
    return result


def tree_shapes(config: family.Config, lora: configs.LoraConfig | None = None) -> dict[str, tuple[int, ...]]:
    """Shapes of all arrays of the parameter tree by dotted path, stacked arrays with their layer axis."""
    return {id_: one.shape for id_, one in table.parameters_of(config, lora).items()}


def rows(
    layout: str,
    config: family.Config,
    parts: Collection[str],
    *,
    lora: configs.LoraConfig | None = None,
    stored_vocab: int | None = None,
) -> list[Row]:
    """Rows of the table for the wanted parts of a model of these sizes.

    `stored_vocab`: rows of embedding and head in the files, where the vocabulary is padded there.

    Raises:
      UserError: the layout has no place for one of them.
    """
    known = table.of(config).layouts(config)[layout]
    wanted = [
        one for one in table.parameters_of(config, lora).values() if one.part in parts and one.part in known.prefixes
    ]
    wanted.sort(key=lambda one: parameters.PARTS.index(one.part))
    for one in wanted:
        if not known.names.get(one.id, one.name):
            kind = table.of(config).describe(config).get(one.part, one.id)
            raise errors.UserError(f"a {kind!r} {one.part} has no place in the {layout} layout; save as llava instead")
    return [_row(one, known, stored_vocab) for one in wanted]


def _row(parameter: parameters.Parameter, layout: parameters.Layout, stored_vocab: int | None) -> Row:
    name = layout.names.get(parameter.id, parameter.name)
    one = parameter.shape[parameter.stacked :]
    if stored_vocab is not None and parameter.id in parameters.VOCABULARY:
        one = (stored_vocab, one[1]) if parameter.id == parameters.EMBEDDING else (one[0], stored_vocab)
    back = _FROM_TREE.get(parameter.transform, range(len(one)))
    suffixes = [name]
    if parameter.part == "adapter":  # as in a PEFT model in memory, where the adapter has a name
        suffixes.append(re.sub(r"\.weight$", ".default.weight", name))
    layers = range(parameter.shape[0]) if parameter.stacked else (0,)
    prefixes = layout.prefixes[parameter.part]
    names = tuple(tuple(prefix + s.format(layer=i) for s in suffixes for prefix in prefixes) for i in layers)
    stored = tuple(one[axis] for axis in back)
    return Row(parameter.id, names, parameter.transform, parameter.stacked, parameter.shape, stored, parameter.fresh)


def accepted(layout: str, config: family.Config) -> dict[str, tuple[str, int]]:
    """Every name that a tensor of a model may have in a layout: (id of its parameter, layer). Empty where the family
    does not have the layout; parts without a place in it are left out."""
    known = table.of(config).layouts(config).get(layout)
    if known is None:
        return {}
    return {
        name: (row.path, i)
        for part in known.prefixes
        if all(known.names.get(o.id, o.name) for o in table.parameters_of(config).values() if o.part == part)
        for row in rows(layout, config, (part,))
        for i, names in enumerate(row.names)
        for name in names
    }


def match(
    table_rows: Collection[Row], found: Mapping[str, tensors.Tensor], dropped: Collection[str], where: str
) -> tuple[dict[str, list[tensors.Tensor]], list[str]]:
    """Assign stored tensors to rows: ({tree path: one tensor per layer}, names left out on purpose).

    `where` names the files in messages.

    Raises:
      UserError: a tensor that is neither in the table nor in `dropped`, missing, stored twice, of another shape, or not
        of a float type.
    """
    targets = {name: (row, i) for row in table_rows for i, accepted in enumerate(row.names) for name in accepted}
    left_out = re.compile("|".join(f"(?:{p})" for p in dropped) or r"(?!)")
    if why := diagnose.weights(found):
        raise errors.UserError(f"{where}: {why}")
    placed: dict[tuple[str, int], tensors.Tensor] = {}
    skipped = []
    unplaced = [name for name in found if not left_out.fullmatch(name)]
    for name, tensor in found.items():
        if name not in targets:
            if not left_out.fullmatch(name):
                way = diagnose.unknown(name, unplaced, targets)
                raise errors.UserError(f"{tensor.file}: unknown tensor {name} {list(tensor.shape)}{way}")
            skipped.append(name)
            continue
        row, i = targets[name]
        if (row.path, i) in placed:
            other = placed[row.path, i]
            raise errors.UserError(
                f"{tensor.file}: duplicate tensor {name}: {other.name} in {other.file.name} holds the same parameter"
            )
        if tensor.shape != row.stored_shape:
            expected = f"{list(row.stored_shape)} expected from the config, {list(tensor.shape)} found"
            way = diagnose.rows(tensor, row.stored_shape) if row.path in parameters.VOCABULARY else ""
            raise errors.UserError(f"{tensor.file}: tensor {name} has the wrong shape: {expected}{way}")
        if tensor.dtype not in tensors.FLOATS.values():
            raise errors.UserError(
                f"{tensor.file}: tensor {name} has the type {tensor.dtype}; fp32, fp16 or bf16 was expected"
            )
        placed[row.path, i] = tensor
    for row in table_rows:
        for i, accepted in enumerate(row.names):
            if (row.path, i) not in placed:
                way = ""
                if row.path.startswith("projector."):
                    way = "; give the mm_projector.bin that belongs to it as projector"
                elif row.fresh:  # of this family alone
                    way = "; take the config.json that belongs to these weights, or get them again"
                raise errors.UserError(f"{where}: missing tensor {accepted[0]} {list(row.stored_shape)}{way}")
    return {row.path: [placed[row.path, i] for i in range(len(row.names))] for row in table_rows}, skipped

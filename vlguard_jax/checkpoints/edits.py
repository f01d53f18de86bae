"""What an adapter does to a stored tensor of its base: a new value, a low-rank addition, or both.

Source: peft 0.21, tuners/lora/layer.py (`get_delta_weight`) and variants.py (DoRA).
"""

from __future__ import annotations

from collections.abc import Mapping
import dataclasses
import functools

import numpy as np

from vlguard_jax import errors
from vlguard_jax.checkpoints import tensors


@dataclasses.dataclass(frozen=True)
class LowRank:
    """W + scale * B @ A, in fp32.

    a: [r, in] (of a convolution [r, 3, p, p]); b: [out, r] (of a convolution [out, r, 1, 1]).
    magnitude: DoRA's m [out], or None: m * W' / |W'|, where W' is the sum above and the norm is taken along `in`.
    embedding: W is stored [in, out].
    """

    a: tensors.Tensor
    b: tensors.Tensor
    scale: float
    magnitude: tensors.Tensor | None = None
    embedding: bool = False

    @property
    def rank(self) -> int:
        """r."""
        return self.a.shape[0]

    def merged(self, weight: np.ndarray) -> np.ndarray:
        """A weight [out, ...] (embedding: [in, out]) with the addition, in its own dtype."""
        w = (weight.T if self.embedding else weight.reshape(len(weight), -1)).astype(np.float32)
        a, b = (one.read().astype(np.float32) for one in (self.a, self.b))
        with np.errstate(over="ignore", invalid="ignore", divide="ignore"):  # loading reports infinities by name
            w += np.float32(self.scale) * (b.reshape(len(b), -1) @ a.reshape(len(a), -1))
            if self.magnitude is not None:
                w *= (self.magnitude.read().astype(np.float32).reshape(-1) / np.linalg.norm(w, axis=1))[:, None]
            result = np.ascontiguousarray(w.T) if self.embedding else w.reshape(weight.shape)
            return result.astype(weight.dtype, copy=False)


@dataclasses.dataclass(frozen=True)
class Edit:
    """Of one stored tensor: first `value` takes its place, then `low_rank` is added."""

    value: tensors.Tensor | None = None
    low_rank: LowRank | None = None


Edits = Mapping[tuple[str, int], Edit]  # by id of the parameter and layer (0 where it is not stacked)


def apply(edit: Edit, base: tensors.Tensor) -> tensors.Tensor:
    """The tensor after the edit; it is computed when it is read.

    Raises:
      UserError: the shapes do not fit `base`.
    """
    result = base
    if edit.value is not None:
        _check(edit.value, base.shape, base)
        result = edit.value
    if edit.low_rank is None:
        return result
    n_out, rest = base.shape[0], base.shape[1:]
    low = edit.low_rank
    if low.embedding:
        n_out, rest = base.shape[1], base.shape[:1]
    _check(low.a, (low.rank, *rest), base)
    _check(low.b, (n_out, low.rank, *(1 for _ in rest[1:])), base)
    if low.magnitude is not None:
        _check(dataclasses.replace(low.magnitude, shape=low.magnitude.shape[-1:]), (n_out,), base)
    return dataclasses.replace(result, read=functools.partial(_read, result, low), rows=None)


def _read(weight: tensors.Tensor, low_rank: LowRank) -> np.ndarray:
    return low_rank.merged(weight.read())


def _check(tensor: tensors.Tensor, shape: tuple[int, ...], base: tensors.Tensor) -> None:
    if tensor.shape != shape:
        raise errors.UserError(
            f"{tensor.file}: these adapters are of another base: tensor {tensor.name} is {list(tensor.shape)}, and"
            f" {list(shape)} fits {base.name} {list(base.shape)} in {base.file}; name the base they were made for"
        )
    if tensor.dtype not in tensors.FLOATS.values():
        raise errors.UserError(
            f"{tensor.file}: tensor {tensor.name} has the type {tensor.dtype}; fp32, fp16 or bf16 was expected"
        )

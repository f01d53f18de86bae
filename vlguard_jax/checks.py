"""Settings that contradict each other, in every kind of config (config.py)."""

from __future__ import annotations

import datetime

from vlguard_jax import errors


def date(value: str, where: str) -> None:
    """Raise UserError unless `value` is a date as 2024-07-26."""
    try:
        usual = datetime.date.fromisoformat(value).isoformat()
    except ValueError:
        usual = ""
    if value != usual:
        raise errors.UserError(f"{where}={value!r} is not a date; write it as 2024-07-26")


def decoding(least: int, most: int, temperature: float, top_p: float, where: str) -> None:
    """Raise UserError unless an answer can have from `least` to `most` tokens, and `top_p` an effect."""
    if least > most:
        raise errors.UserError(
            f"{where}.min_new_tokens={least} is more than {where}.max_new_tokens={most}: no answer can be so long"
        )
    if top_p < 1 and not temperature:
        raise errors.UserError(
            f"{where}.top_p={top_p} has no effect with {where}.temperature=0, which takes the best token; set a"
            " temperature, or leave top_p at 1"
        )


def mesh(data: int, fsdp: int, tensor: int, slices: int) -> None:
    """Raise UserError unless one axis at most takes what is left, and the data axis can join the slices."""
    sizes = {"data": data, "fsdp": fsdp, "tensor": tensor}
    if list(sizes.values()).count(-1) > 1:
        raise errors.UserError(f"config.mesh={sizes}: at most one size is -1 (what is left)")
    if slices > 1 and data > 1 and data % slices:
        raise errors.UserError(
            f"config.mesh.data={data} must be a multiple of config.mesh.slices={slices}, which only the data axis may"
            " join"
        )


def indivisible(batch: int, group: int) -> str:
    """What to say of a batch that is no multiple of the reference's micro-batch: the next sizes that would do."""
    divisor = max(n for n in range(1, group + 1) if batch % n == 0)
    multiple = -(-batch // group) * group
    return (
        f"config.data.batch_size={batch} must be a multiple of config.data.group_size={group}: take"
        f" --config.data.batch_size={multiple}, or --config.data.group_size={divisor}, by which a short answer weighs"
        " otherwise"
    )

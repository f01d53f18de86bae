"""Explains, for messages, weights that fit no layout: quantized, sharded by a trainer, or saved with their wrapper."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
import difflib
import math
import re

from vlguard_jax import errors
from vlguard_jax.checkpoints import tensors

_ORIGINAL = (
    "take the checkpoint they were made from, or load them with transformers, call model.dequantize() and save that"
)
# Tensors that only such a checkpoint has, what it is, and what to do.
_KINDS = (
    (
        r".*\.(absmax|quant_map|nested_absmax|nested_quant_map|SCB|weight_format)",
        "quantized by bitsandbytes to 4 or 8 bits",
        _ORIGINAL,
    ),
    (r".*\.quant_state\.bitsandbytes__\w+", "quantized by bitsandbytes to 4 bits", _ORIGINAL),
    (r".*\.(qweight|qzeros|g_idx)", "quantized (GPTQ or AWQ)", _ORIGINAL),
    (
        r".*\.(weight_packed|weight_scale|weight_scale_inv|input_scale|weight_zero_point)",
        "quantized (compressed tensors)",
        _ORIGINAL,
    ),
    (
        r"(.*\.)?_?flat_param(_\d+)?",
        "flat parameters of FSDP, each several weights in a row",
        "save them with StateDictType.FULL_STATE_DICT (transformers: fsdp_state_dict_type=FULL_STATE_DICT)",
    ),
)
# Prefixes that wrappers put before the names of tensors.
_WRAPPERS = {
    "_fsdp_wrapped_module.": "FSDP; save with StateDictType.FULL_STATE_DICT",
    "module.": "DistributedDataParallel or DeepSpeed; save model.module",
    "_orig_mod.": "torch.compile; save model._orig_mod",
    "base_model.model.": "PEFT; save the adapters (model.save_pretrained) or the model that merge_and_unload returns",
    "state_dict.": "a trainer's file; save the model (save_pretrained)",
}


def weights(found: Mapping[str, tensors.Tensor]) -> str:
    """What kind of unsupported checkpoint these tensors are, and what to do; "" where it is not known."""
    for pattern, what, way in _KINDS:
        for name in found:
            if re.fullmatch(pattern, name):
                return f"the weights are {what} (tensor {errors.short(name)}); {way}"
    empty = [name for name, tensor in found.items() if not math.prod(tensor.shape)]
    if empty:
        return (
            f"{len(empty)} of {len(found)} tensors hold nothing ({errors.short(empty[0])}), as DeepSpeed ZeRO-3 leaves"
            " weights that it did not gather; make them with its zero_to_fp32.py, or train with"
            " stage3_gather_16bit_weights_on_model_save"
        )
    return ""


def unknown(name: str, found: Collection[str], known: Collection[str]) -> str:
    """The end of a message about an unknown tensor: a wrapper's prefix or the nearest name, and the number of
    others."""
    others = [other for other in found if other not in known]
    for prefix, wrapper in _WRAPPERS.items():
        if prefix in name and any(_bare(one) in known for one in (name, *others)):
            return f"; {prefix!r} in its name was put there by {wrapper}"
    more = f" ({len(others) - 1} more are unknown, too)" if len(others) > 1 else ""
    close = difflib.get_close_matches(name[: errors.LONGEST_NAME], known, n=1, cutoff=0.5)
    if close:
        return f"; did you mean '{close[0]}'?{more}"
    return f"; the {len(known)} known names are like '{min(known)}'{more}" if known else more


def _bare(name: str) -> str:
    for prefix in _WRAPPERS:
        name = name.replace(prefix, "")
    return name


def rows(tensor: tensors.Tensor, expected: Iterable[int]) -> str:
    """The end of a message about an embedding or head whose number of rows is not the config's; "" if more differs."""
    wanted = tuple(expected)
    if len(tensor.shape) != len(wanted) or tensor.shape[1:] != wanted[1:]:
        return ""
    return (
        f"; if the weights are right, set vocab_size to {tensor.shape[0]} in config.json, else take the config"
        " that belongs to them"
    )

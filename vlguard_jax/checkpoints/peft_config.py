"""`adapter_config.json` of PEFT: its values, and which modules of a model they speak of.

Source: peft 0.3 to 0.21, src/peft/tuners/lora/config.py (keys), tuners_utils.py (`check_target_module_exists`) and
utils/other.py (`get_pattern_key`, `_set_trainable`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
import dataclasses
import math
import re
from typing import Any

from vlguard_jax import errors
from vlguard_jax import fields
from vlguard_jax import limits
from vlguard_jax.checkpoints import patterns

ALL_LINEAR = "all-linear"
# Keys that change neither the base nor the forward pass, or only together with another key that is checked (settings of
# an initialization, for example).
HARMLESS = (
    "auto_mapping",
    "base_model_name_or_path",
    "corda_config",
    "ensure_weight_tying",
    "eva_config",
    "inference_mode",
    "loftq_config",
    "lora_ga_config",
    "megatron_core",
    "merge_weights",
    "peft_version",
    "qalora_group_size",
    "revision",
    "runtime_config",
    "task_type",
)
_READ: tuple[str, ...] = (
    "peft_type",
    "r",
    "lora_alpha",
    "lora_dropout",
    "target_modules",
    "exclude_modules",
    "modules_to_save",
)
_READ += ("layers_to_transform", "layers_pattern", "rank_pattern", "alpha_pattern", "use_rslora", "use_dora", "bias")
# Initializations that do not change the base; others subtract the initial adapter from it, or round it.
_INITIALIZATIONS = (True, False, None, "gaussian", "orthogonal", "eva")
_CONVERTIBLE = ("pissa", "olora", "corda", "lora_ga")
_CONVERT = (
    "it changes the base's weights before training; save the adapter with peft's save_pretrained(...,"
    " path_initial_model_for_weight_conversion=FOLDER_OF_THE_UNTRAINED_ADAPTER), which fits the unchanged base"
)
MERGE = "where peft can merge it, merge it there (merge_and_unload) and load the merged model"
Matcher = Callable[[str], bool]


@dataclasses.dataclass(frozen=True)
class PeftConfig:
    """Settings of adapters, on modules that are named as in the model that they were made on.

    where: the file, for messages. rank, alpha: where no pattern says otherwise. targets, excluded: a regular
    expression, or names and suffixes; `targets` may also be ALL_LINEAR. layers: indices, or None for all. layer_names:
    what stands before a layer's index; any if empty. ranks, alphas: by pattern, the first that fits counts.
    rank_stabilized: scale alpha / sqrt(r). saved: ends of the names of modules that were trained in full. bias: "none",
    "all" or "lora_only".
    """

    where: str
    rank: int
    alpha: float
    dropout: float
    targets: str | tuple[str, ...]
    excluded: str | tuple[str, ...] = ()
    layers: tuple[int, ...] | None = None
    layer_names: tuple[str, ...] = ()
    ranks: Mapping[str, int] = dataclasses.field(default_factory=dict)
    alphas: Mapping[str, float] = dataclasses.field(default_factory=dict)
    rank_stabilized: bool = False
    dora: bool = False
    saved: tuple[str, ...] = ()
    bias: str = "none"


def read(config: Mapping[str, Any], where: str) -> PeftConfig:
    """Read `adapter_config.json`.

    A key that is not known must be off (absent, null, false or empty).

    Raises:
      UserError: another kind of adapter, a setting that changes the base or the arithmetic and is not computed here, an
        unknown one, or one of a wrong type.
    """
    if config.get("peft_type") != "LORA":
        raise errors.UserError(
            f"{where}: peft_type={errors.short(config.get('peft_type'))} is not supported (only 'LORA')"
        )
    _refuse_other_arithmetic(config, where)
    found = fields.Fields(config, where)
    targets = _names(found, "target_modules", pattern=True)
    if not targets:
        raise errors.UserError(
            f"{where}: target_modules={errors.short(config.get('target_modules'))} is not supported; a list of names, a"
            f" regular expression or {ALL_LINEAR!r} was expected"
        )
    if isinstance(targets, str) and targets.lower() == ALL_LINEAR:
        targets = ALL_LINEAR
    # null is not peft's default
    rank, alpha = found.size("r"), found.number("lora_alpha", None if "lora_alpha" in config else 8.0)
    dropout = found.number("lora_dropout", None if "lora_dropout" in config else 0.0, least=0.0, most=1.0)
    if dropout == 1:
        raise found.wrong("lora_dropout", "below 1")
    layers = _layers(found)
    if layers is not None and isinstance(targets, str):
        raise errors.UserError(
            f"{where}: layers_to_transform={errors.short(config['layers_to_transform'])} with"
            f" target_modules={errors.short(targets)}: peft reads it only where target_modules is a list"
        )
    ranks, alphas = found.part("rank_pattern"), found.part("alpha_pattern")
    return PeftConfig(
        where=where,
        rank=rank,
        alpha=alpha,
        dropout=dropout,
        targets=targets,
        excluded=_names(found, "exclude_modules", pattern=True),
        layers=layers,
        layer_names=tuple(_names(found, "layers_pattern")),
        ranks={key: ranks.size(key) for key in ranks.values},
        alphas={key: alphas.number(key) for key in alphas.values},
        rank_stabilized=found.flag("use_rslora"),
        dora=found.flag("use_dora"),
        saved=tuple(_names(found, "modules_to_save")),
        bias="none" if config.get("bias") is None else found.choice("bias", "none", "all", "lora_only"),
    )


def _names(found: fields.Fields, key: str, *, pattern: bool = False) -> str | tuple[str, ...]:
    """Names of modules under `key`; with `pattern`, a text is a regular expression, else one name."""
    value = found.values.get(key) or ()
    if isinstance(value, str):
        return value if pattern else (value,)
    if not isinstance(value, (list, tuple)) or not all(isinstance(one, str) and one for one in value):
        raise found.wrong(key, "a list of names" + (" or a regular expression" if pattern else ""))
    return tuple(value)


def _layers(found: fields.Fields) -> tuple[int, ...] | None:
    value = found.values.get("layers_to_transform")
    if value is None or value is False or value == []:
        return None
    layers = value if isinstance(value, list) else [value]
    if not all(type(one) is int and 0 <= one < limits.LAYERS for one in layers):
        raise found.wrong("layers_to_transform", f"whole numbers from 0 to {limits.LAYERS - 1:,}")
    return tuple(layers)


def _refuse_other_arithmetic(config: Mapping[str, Any], where: str) -> None:
    for key, value in config.items():
        if key in HARMLESS or key in _READ or value is None or value is False or value in ({}, []):
            continue
        if key == "init_lora_weights":
            if any(value is known or (isinstance(value, str) and value == known) for known in _INITIALIZATIONS):
                continue
            convertible = isinstance(value, str) and value.lower().startswith(_CONVERTIBLE)
            raise errors.UserError(
                f"{where}: {key}={errors.short(value)} is not supported: {_CONVERT if convertible else MERGE}"
            )
        shown = key if key.isidentifier() and len(key) < 100 else errors.short(key)
        raise errors.UserError(f"{where}: {shown}={errors.short(value)} is not supported; {MERGE}")


class Selection:
    """Which modules of a model a `PeftConfig` speaks of, by their names."""

    def __init__(self, config: PeftConfig):
        self._config = config
        budget = patterns.Budget()
        self._target = _matcher(config.targets, f"{config.where}: target_modules", budget)
        self._excluded = _matcher(config.excluded, f"{config.where}: exclude_modules", budget)
        self._ranks = _first_fit(config.ranks, f"{config.where}: rank_pattern", budget)
        self._alphas = _first_fit(config.alphas, f"{config.where}: alpha_pattern", budget)

    def adapts(self, module: str, linear: bool) -> bool:
        """Whether a module that can be adapted is. linear: it is a linear layer and not the head."""
        c = self._config
        if self._excluded(module) or any(_below(module, saved) for saved in c.saved):
            return False
        if c.targets == ALL_LINEAR:
            return linear
        if not self._target(module):
            return False
        return c.layers is None or module in c.targets or self._layer(module) in c.layers

    def _layer(self, module: str) -> int | None:
        """The index of its layer, None without one."""
        before = "|".join(map(re.escape, self._config.layer_names)) or "[^.]*"
        found = re.match(rf"(?:.*?\.)?(?:{before})\.(\d+)\.", module)
        return int(found[1]) if found else None

    def saves(self, module: str) -> bool:
        """Whether a module was trained in full, by itself or within another."""
        parts = module.split(".")
        return any(
            ".".join(parts[:n]).endswith(saved) for n in range(1, len(parts) + 1) for saved in self._config.saved
        )

    def rank(self, module: str) -> int:
        """r of an adapted module."""
        key = self._ranks(module)
        return self._config.rank if key is None else self._config.ranks[key]

    def alpha(self, module: str) -> float:
        """The alpha that, divided by r, is the scale of an adapted module."""
        key = self._alphas(module)
        alpha = self._config.alpha if key is None else self._config.alphas[key]
        return alpha * math.sqrt(self.rank(module)) if self._config.rank_stabilized else alpha


def _below(module: str, name: str) -> bool:
    return f".{name}." in f".{module}."


def _matcher(wanted: str | tuple[str, ...], where: str, budget: patterns.Budget) -> Matcher:
    """A regular expression matches a whole name; a name of a list matches itself and what ends with it."""
    if isinstance(wanted, str):
        return patterns.compiled(wanted, where, budget)
    known = frozenset(wanted)

    def matches(module: str) -> bool:
        parts = module.split(".")
        return any(".".join(parts[i:]) in known for i in range(len(parts)))

    return matches


def _first_fit(wanted: Mapping[str, Any], where: str, budget: patterns.Budget) -> Callable[[str], str | None]:
    """The first key that fits the end of a name."""
    matchers = {key: patterns.compiled(rf"(.*\.)?({key})", where, budget) for key in wanted}

    def find(module: str) -> str | None:
        return next((key for key, matches in matchers.items() if matches(module)), None)

    return find

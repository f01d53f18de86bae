"""The tensors of a PEFT file, placed on the parameters of a model and compared with their `adapter_config.json`.

Adapters that the network computes (families/blocks/lora.py: one rank and one scale, on the same linear layers of every
decoder layer) stay apart and can be trained on. All others are edits of the base's tensors. Names: peft 0.3 to 0.21,
utils/save_and_load.py; those of the modules: every layout of the model's family.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
import dataclasses
import re

from vlguard_jax import errors
from vlguard_jax.checkpoints import diagnose
from vlguard_jax.checkpoints import edits
from vlguard_jax.checkpoints import layouts
from vlguard_jax.checkpoints import peft_config
from vlguard_jax.checkpoints import tensors
from vlguard_jax.families import family
from vlguard_jax.families import parameters
from vlguard_jax.families import table
from vlguard_jax.families.blocks import configs

_PREFIX = "base_model.model."
_NAME = r"(?:\.\w+)?"  # of the adapter, as in a model in memory
_KINDS = (
    rf"(?P<module>.+)\.(?P<kind>lora_[AB]){_NAME}\.weight",
    rf"(?P<module>.+)\.(?P<kind>lora_embedding_[AB]){_NAME}",
    rf"(?P<module>.+)\.(?P<kind>lora_magnitude_vector){_NAME}(?:\.weight)?",
)
_LINEAR, _EMBEDDING, _MAGNITUDE = (
    ("lora_A", "lora_B"),
    ("lora_embedding_A", "lora_embedding_B"),
    "lora_magnitude_vector",
)
_WRAPPED = re.compile(r"\.base_layer(?=\.)|\.modules_to_save(\.\w+)?(?=\.)")
_UNUSED = re.compile(r"\.original_module\.")  # what modules_to_save replaced
# Beginnings of names in LlavaForConditionalGeneration, by transformers from 4.52 and before.
_NEW = re.compile(r"model\.(language_model|multi_modal_projector|vision_tower)\.(?!vision_tower\.)")
_OLD = re.compile(r"(language_model|multi_modal_projector|vision_tower)\.")
_HEAD = re.compile(re.escape(_PREFIX) + r"(.+\.)?lm_head\.")
Place = tuple[str, int]  # id of a parameter, layer


@dataclasses.dataclass(frozen=True)
class Adapters:
    """lora: of the adapters that stay apart, None without any. apart: their tensors by their names in layout "peft".
    edits: of the base's tensors. merged: what these are and why, for people; "" without any low-rank one."""

    lora: configs.LoraConfig | None
    apart: Mapping[str, tensors.Tensor]
    edits: edits.Edits
    merged: str


def read(
    config: peft_config.PeftConfig, found: Mapping[str, tensors.Tensor], model: family.Config, where: str
) -> Adapters:
    """Place every tensor of the file `where` on a model of these sizes.

    Raises:
      UserError: a tensor without a place, missing, or stored twice; a target without adapters or adapters without a
        target; another rank than the config's.
    """
    if why := diagnose.weights(found):
        raise errors.UserError(f"{where}: {why}")
    if model.text.tie_embeddings and any(map(_HEAD.match, found)):
        raise _untied("the head", where)
    names, selection = _Names(model, found), peft_config.Selection(config)
    grouped, values = _sorted(found)
    low_rank: dict[Place, tuple[str, edits.LowRank]] = {}
    for module, parts in grouped.items():
        place = names.place(f"{module}.weight", next(iter(parts.values())))
        if place in low_rank:
            raise errors.UserError(
                f"{where}: duplicate adapters: {module} and {low_rank[place][0]} are the same module"
            )
        low_rank[place] = module, _low_rank(config, selection, module, parts, names.transform(place))
    replaced = _values(config, selection, values, names, {module for module, _ in low_rank.values()})
    if model.text.tie_embeddings and (parameters.EMBEDDING, 0) in {**low_rank, **replaced}:
        raise _untied("the embedding", where)
    _check_promised(config, selection, names, low_rank, replaced, where)
    return _divided(config, selection, low_rank, replaced, model)


def _untied(what: str, where: str) -> errors.UserError:
    """merge_and_unload would be no way out: it adds to the tensor that both share."""
    return errors.UserError(
        f"{where}: these adapters change {what}, and head and embedding of the base are one (tie_word_embeddings):"
        " in transformers, make lm_head.weight a copy of the embedding, set tie_word_embeddings to false, save that and"
        " name it as base"
    )


def _sorted(
    found: Mapping[str, tensors.Tensor],
) -> tuple[dict[str, dict[str, tensors.Tensor]], dict[str, tensors.Tensor]]:
    """Adapters by module and kind, and other tensors by name, all without PEFT's prefix."""
    grouped: dict[str, dict[str, tensors.Tensor]] = defaultdict(dict)
    values = {}
    for name, tensor in found.items():
        if not name.startswith(_PREFIX):
            raise errors.UserError(
                f"{tensor.file}: unknown tensor {name} {list(tensor.shape)}; names of peft begin with {_PREFIX!r}: save"
                " the adapters with its save_pretrained"
            )
        bare = name.removeprefix(_PREFIX)
        for pattern in _KINDS:
            if parts := re.fullmatch(pattern, bare):
                kinds = grouped[parts["module"]]
                if parts["kind"] in kinds:
                    raise errors.UserError(
                        f"{tensor.file}: duplicate tensor {name}: {kinds[parts['kind']].name} is another adapter of the"
                        " same module; save them apart"
                    )
                kinds[parts["kind"]] = tensor
                break
        else:
            values[bare] = tensor
    return grouped, values


class _Names:
    """Names of a model's parameters in every layout and naming generation, and which of them an adapter file uses."""

    def __init__(self, model: family.Config, found: Iterable[str]):
        self.parameters = table.parameters_of(model)
        self._places: dict[str, Place] = {}
        bare = [name.removeprefix(_PREFIX) for name in found]
        self._new, self._old = any(map(_NEW.match, bare)), any(map(_OLD.match, bare))
        self._names: dict[Place, list[str]] = defaultdict(list)
        for layout in ("llama", "llava", "llava-hf"):
            for name, place in layouts.accepted(layout, model).items():
                self._places[name] = place
                if self._used(layout, name, self.parameters[place[0]].part):
                    self._names[place].append(name)

    def _used(self, layout: str, name: str, part: str) -> bool:
        if self._new or self._old:  # "lm_head." is the head's name in the new generation, outside of "model."
            new, within = name.startswith(("model.", "lm_head.")), part == "head" and name.startswith("model.")
            return layout == "llava-hf" and self._new == new and not within
        return layout != "llava-hf" and part in ("text", "head", "projector")

    def place(self, name: str, tensor: tensors.Tensor) -> Place:
        """The parameter of that name."""
        if name not in self._places:
            raise errors.UserError(
                f"{tensor.file}: tensor {tensor.name} {list(tensor.shape)} is of a module that the base does not have"
                f"{diagnose.unknown(name, [name], self._places)}"
            )
        return self._places[name]

    def of(self, part: Iterable[str]) -> Iterable[tuple[Place, list[str]]]:
        """Parameters of these parts, each with its names in the generation of the file."""
        return ((place, known) for place, known in self._names.items() if self.parameters[place[0]].part in part)

    def transform(self, place: Place) -> str:
        """LINEAR, CONV or, if it can be adapted, SAME for an embedding."""
        return self.parameters[place[0]].transform


def _module(name: str) -> str:
    return name.rpartition(".")[0]


def _low_rank(
    config: peft_config.PeftConfig,
    selection: peft_config.Selection,
    module: str,
    parts: Mapping[str, tensors.Tensor],
    transform: str,
) -> edits.LowRank:
    """The adapter of one module, checked against the config."""
    a, b = _EMBEDDING if transform == parameters.SAME else _LINEAR
    wanted = {a, b, _MAGNITUDE} if config.dora else {a, b}
    one = next(iter(parts.values()))
    if parts.keys() != wanted:
        lacks, surplus = sorted(wanted - parts.keys()), sorted(parts.keys() - wanted)
        how = f"has no {' and no '.join(lacks)}" if lacks else f"has {surplus[0]}, and {config.where} has no use_dora"
        raise errors.UserError(f"{one.file}: the adapter of {module} {how}; save it again with peft's save_pretrained")
    if config.dora and transform == parameters.CONV:
        raise errors.UserError(
            f"{config.where}: use_dora=True on a convolution ({module}) is not supported; {peft_config.MERGE}"
        )
    if not selection.adapts(module, transform == parameters.LINEAR and not module.endswith("lm_head")):
        raise errors.UserError(
            f"{one.file}: {module} has adapters, but {config.where} does not name it as a target: take the"
            " adapter_config.json that belongs to this file"
        )
    rank = selection.rank(module)
    if not parts[a].shape or parts[a].shape[0] != rank:
        raise errors.UserError(
            f"{one.file}: tensor {parts[a].name} {list(parts[a].shape)} is not of rank {rank}, which {config.where}"
            " gives to it: take the adapter_config.json that belongs to this file"
        )
    return edits.LowRank(parts[a], parts[b], selection.alpha(module) / rank, parts.get(_MAGNITUDE), a in _EMBEDDING)


def _values(
    config: peft_config.PeftConfig,
    selection: peft_config.Selection,
    values: Mapping[str, tensors.Tensor],
    names: _Names,
    adapted: set[str],
) -> dict[Place, tensors.Tensor]:
    """Tensors that take the place of the base's."""
    placed: dict[Place, tensors.Tensor] = {}
    for stored, tensor in values.items():
        if _UNUSED.search(stored):
            continue
        name = _WRAPPED.sub("", stored)
        place = names.place(name, tensor)
        one = names.parameters[place[0]]
        trained = (
            selection.saves(_module(name))
            or (
                name.endswith(".bias")
                and (config.bias == "all" or (config.bias != "none" and _module(name) in adapted))
            )
            or one.id in parameters.VOCABULARY  # peft saves them beside their adapters, or where rows were added
            or (one.part == "projector" and not name.endswith((".weight", ".bias")))  # no module: see save_adapters.py
        )
        if not trained:
            raise errors.UserError(
                f"{tensor.file}: tensor {tensor.name} is neither an adapter nor in modules_to_save or bias of"
                f" {config.where}: take the adapter_config.json that belongs to this file"
            )
        if place in placed and tensor.read().tobytes() != placed[place].read().tobytes():
            raise errors.UserError(f"{tensor.file}: {tensor.name} and {placed[place].name} differ, and are the same")
        placed[place] = tensor
    return placed


def _check_promised(
    config: peft_config.PeftConfig,
    selection: peft_config.Selection,
    names: _Names,
    low_rank: Mapping[Place, tuple[str, edits.LowRank]],
    replaced: Mapping[Place, tensors.Tensor],
    where: str,
) -> None:
    """Raise UserError if a module that the config names is not in the file."""
    _check_named(config, [_module(name) for _, known in names.of(parameters.PARTS) for name in known])
    adapted = {module for module, _ in low_rank.values()}
    for place, known in names.of(parameters.PARTS):
        one, modules = names.parameters[place[0]], [_module(name) for name in known]
        matrix = known[0].endswith(".weight") and len(one.shape) - one.stacked > 1
        if any(map(selection.saves, modules)):
            missing = "modules_to_save" if place not in replaced else ""
        elif known[0].endswith(".bias") and config.bias != "none":
            wanted = config.bias == "all" or any(module in adapted for module in modules)
            missing = "bias" if wanted and place not in replaced else ""
        elif matrix and place not in low_rank:
            linear = one.transform == parameters.LINEAR and one.part != "head"
            missing = "target_modules" if any(selection.adapts(module, linear) for module in modules) else ""
        else:
            missing = ""
        if missing:
            raise errors.UserError(
                f"{where}: missing tensor {_PREFIX}{known[0]}: {missing} of {config.where} names it; take the files"
                " that belong together, from the same base"
            )


def _check_named(config: peft_config.PeftConfig, modules: Iterable[str]) -> None:
    """Raise UserError if the config names a module, by itself and not by a pattern, that is not in the base."""
    parts = [module.split(".") for module in modules]
    above = {".".join(one[:n]) for one in parts for n in range(1, len(one) + 1)}
    ends = {".".join(one[n:]) for one in parts for n in range(len(one))}
    lacking = [("modules_to_save", saved) for saved in config.saved if not any(m.endswith(saved) for m in above)]
    if not isinstance(config.targets, str):
        lacking += [("target_modules", target) for target in config.targets if target not in ends]
    for key, name in lacking:
        raise errors.UserError(
            f"{config.where}: {key} names {errors.short(name)}, which the base lacks: name the base that these adapters"
            " were made for, or take the name out"
        )


def _divided(
    config: peft_config.PeftConfig,
    selection: peft_config.Selection,
    low_rank: Mapping[Place, tuple[str, edits.LowRank]],
    replaced: Mapping[Place, tensors.Tensor],
    model: family.Config,
) -> Adapters:
    """What stays apart, and what becomes edits."""
    decoder = {place: one for place, (_, one) in low_rank.items() if place[0].startswith("text.layers.")}
    layers = defaultdict(set)
    for id_, layer in decoder:
        layers[id_].add(layer)
    why = ""
    if config.dora:
        why = "DoRA"
    elif len({(one.rank, one.scale) for one in decoder.values()}) > 1:
        why = "several ranks or scales"
    elif any(len(known) < model.text.num_layers for known in layers.values()):
        why = "some layers only"
    lora, apart = None, {}
    if decoder and not why:
        targets = tuple(n for n in configs.LINEARS if any(id_.split(".")[-2] == n for id_ in layers))
        alpha = selection.alpha(next(module for place, (module, _) in low_rank.items() if place in decoder))
        lora = configs.LoraConfig(next(iter(decoder.values())).rank, alpha, config.dropout, targets)
        for row in layouts.rows("peft", model, ("adapter",), lora=lora):
            stem, _, kind = row.path.rpartition(".")
            for i, accepted in enumerate(row.names):
                one = decoder[f"{stem}.kernel", i]
                apart[accepted[0]] = tensor = one.a if kind == "lora_a" else one.b
                if tensor.shape != row.stored_shape:
                    raise errors.UserError(
                        f"{tensor.file}: these adapters are of another base: tensor {tensor.name} is"
                        f" {list(tensor.shape)}, and {list(row.stored_shape)} fits; name the base they were made for"
                    )
    merged = {place: one for place, (_, one) in low_rank.items() if lora is None or place not in decoder}
    changed = {place: edits.Edit(replaced.get(place), merged.get(place)) for place in {**replaced, **merged}}
    return Adapters(lora, apart, changed, _described(merged, why, model))


def _described(merged: Mapping[Place, object], why: str, model: family.Config) -> str:
    names = {"text": "language model", "head": "head", "vision": "vision tower", "projector": "projector"}
    known = table.parameters_of(model)
    parts = {"embedding" if id_ == parameters.EMBEDDING else names[known[id_].part] for id_, _ in merged}
    found = [name for name in (*names.values(), "embedding") if name in parts]
    return f"{' and '.join([', '.join(found[:-1]), found[-1]] if found[1:] else found)}{why and f' ({why})'}"

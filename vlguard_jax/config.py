"""Experiment configuration: frozen dataclasses, the ConfigDict made from them, and the way back.

The dataclasses below are the only place where a setting and its default stand. `base_train_config()` and `base_eval_config()`
turn them into `ml_collections.ConfigDict`s, which config files and `--config.a.b=value` change; `resolve()` turns the result
back into dataclasses, rejects unknown keys with the nearest known one and checks every rule that spans fields.
"""

from __future__ import annotations

from collections.abc import Mapping
import dataclasses
import types as pytypes
import typing
from typing import Any, TypeVar

from ml_collections import config_dict

from vlguard_jax import errors

T = TypeVar("T")


@dataclasses.dataclass(frozen=True)
class ModelSettings:
    """Where the model comes from. Paths may be local folders or hub ids (`owner/name@revision`)."""

    path: str = ""  # LLaVA, llava-hf, PEFT adapter, Llama or Orbax folder
    base: str = ""  # base model of a PEFT adapter, or of a projector-only folder
    vision_tower: str = ""  # CLIP folder; overrides the name in config.json
    projector: str = ""  # mm_projector.bin of the pretraining stage, with a plain Llama folder in `path`
    template: str = "vicuna_v1"  # conversation template
    image_mode: str = "pad"  # "pad" (square, as LLaVA trains) or "crop" (plain CLIP processor, as VLGuard evaluates)


@dataclasses.dataclass(frozen=True)
class PrecisionSettings:
    """Number formats: fp32, bf16 or fp16. In fp32 every matrix product runs at `highest` precision on every platform."""

    compute: str = "bf16"
    params: str = "fp32"  # trained parameters and optimizer moments
    frozen: str = "bf16"  # vision tower, and the base model under LoRA


@dataclasses.dataclass(frozen=True)
class SourceSettings:
    """One source of conversations."""

    format: str = "llava"  # "llava", "vlguard" (train.json, converted with seed 0), "alpaca" (text only) or "tfds" (VLGuard, prepared)
    path: str = ""  # JSON or JSON-lines file; for "vlguard" also a folder that holds train.json; for "tfds" the prepared version's folder
    images: str = ""  # picture folder or zip file; a zip file counts as unpacked where it lies
    count: int = 0  # a seeded sample of this many conversations; 0: all
    sample_seed: int = 0
    weight: float = 1.0  # how often an epoch sees each conversation; 0.5: a seeded half of them
    include_ids: str = ""  # text file of the sample ids to take, one a line
    exclude_ids: str = ""  # text file of the sample ids to leave out, one a line
    leave_out: tuple[str, ...] = ()  # categories or subcategories to leave out
    leak_free: bool = False  # "vlguard" and "tfds": leave out records whose picture stands in test.json, too
    expect: int = 0  # conversations that the file must hold; 0: any number
    stand_in: bool = False  # the pictures were drawn by `prepare --stand_in_images`


@dataclasses.dataclass(frozen=True)
class DataSettings:
    """What is trained on and in which order. See data/plan.py."""

    sources: Mapping[str, SourceSettings] = dataclasses.field(default_factory=dict)
    max_len: int = 2048  # every conversation is cut here, before and after image expansion
    mode: str = "pad"  # "pad" (one conversation a row) or "pack" (several; the step, its loss and its gradients stay the same)
    length_multiple: int = 128  # row lengths are multiples of this
    max_row_len: int = 8192  # mode "pack": no row is longer, unless a conversation is
    shapes: int = 0  # batch shapes of the run, each compiled once; 0: 4 in mode "pad", in "pack" 1, or 2 if the order groups modalities
    deal_window: int = 0  # deal lengths evenly to the steps of a window of so many; changes the order of samples; 0: off
    order: str = "modality_length"  # "modality_length" (the reference's sampler), "shuffle", "sequential" or "replay"
    replay: str = ""  # JSON list of sample positions for order "replay"
    batch_size: int = 128  # conversations per optimizer step
    group_size: int = 16  # conversations per micro-batch of the reference recipe (`micro_batch` normalisation)
    normalization: str = "micro_batch"  # "micro_batch", "tokens" or "sample"
    end_of_epoch: str = "reference"  # "reference" (refill from the start) or "short"
    on_mismatch: str = "error"  # "error", "ignore" (dropped, counted, listed) or "reference" (kept, no label)
    on_bad_record: str = "error"  # malformed records and bad pictures: "error" or "skip" (dropped, counted, listed)
    check_pictures: str = "header"  # before the first step: "exists", "header" (opened) or "decode" (read whole)
    on_empty_group: str = "error"  # "error" or "zero"
    read_threads: int = 4
    read_workers: int = 0  # processes that read; 0: threads of this one
    prefetch_mib: int = 1024  # memory for steps read ahead, at least one
    cache: str = ""  # folder of the sample index; empty: $VLGUARD_CACHE, or ~/.cache/vlguard_jax


@dataclasses.dataclass(frozen=True)
class LoraSettings:
    """PEFT semantics; rank 0 means full fine-tuning."""

    rank: int = 0
    alpha: float = 256.0
    dropout: float = 0.05


@dataclasses.dataclass(frozen=True)
class OptimizerSettings:
    """AdamW with the reference's schedule (first update at learning rate 0)."""

    learning_rate: float = 2e-5
    projector_learning_rate: float = 0.0  # 0: same as learning_rate
    epochs: float = 1.0
    max_steps: int = 0  # stop early; the schedule still spans `epochs`
    warmup_ratio: float = 0.03
    weight_decay: float = 0.0
    b1: float = 0.9
    b2: float = 0.999
    eps: float = 1e-8
    clip_norm: float = 0.0  # 0: no clipping, as the reference under DeepSpeed


@dataclasses.dataclass(frozen=True)
class MeshSettings:
    """Devices along each axis; one of them may be -1 (what is left). Several TPU slices are joined by the data axis."""

    data: int = 1  # on several slices 1 means their number
    fsdp: int = -1
    tensor: int = 1
    slices: int = 0  # TPU slices that must be there; 0: any number


@dataclasses.dataclass(frozen=True)
class RunSettings:
    """How the program runs; nothing here changes what is computed beyond rounding."""

    rows: int = 0  # rows per device program, 0: all rows of the step at once; the last program of a step may have empty ones
    remat: str = "full"  # what the backward pass keeps of a layer: "full" (its input), "offload" (that, on the host), "minimal" or "none"
    attention: str = "auto"  # "xla", "splash" (TPU) or "cudnn" (NVIDIA); "auto": the platform's, and xla on CPU and in fp32
    unroll: int = 1  # layers per iteration of the scan over layers
    loss_chunk: int = 256  # positions of each row per chunk of the cross-entropy
    log_every: int = 1
    save_every: int = 0  # 0: only at the end
    keep: int = 1
    tensorboard: bool = True
    export: str = "llava"  # written to WORKDIR/model at the end: "llava", "hf" (LoRA merged), "peft" or "none"


@dataclasses.dataclass(frozen=True)
class TrainConfig:
    """One training run."""

    seed: int = 42
    model: ModelSettings = dataclasses.field(default_factory=ModelSettings)
    precision: PrecisionSettings = dataclasses.field(default_factory=PrecisionSettings)
    data: DataSettings = dataclasses.field(default_factory=DataSettings)
    lora: LoraSettings = dataclasses.field(default_factory=LoraSettings)
    optimizer: OptimizerSettings = dataclasses.field(default_factory=OptimizerSettings)
    loss: str = "cross_entropy"  # a name in training/losses.py or "package.module:function"
    loss_args: Mapping[str, float] = dataclasses.field(default_factory=dict)
    mesh: MeshSettings = dataclasses.field(default_factory=MeshSettings)
    run: RunSettings = dataclasses.field(default_factory=RunSettings)


@dataclasses.dataclass(frozen=True)
class BenchmarkSettings:
    """One benchmark to answer."""

    name: str = "vlguard"
    path: str = ""  # test.json or its folder; for "prompts" a JSON list of prompts
    images: str = ""
    subsets: tuple[str, ...] = ()  # empty: all that the benchmark has
    limit: int = 0  # first so many items of each subset; the table then says so
    stand_in: bool = False
    pictures: str = "real"  # controls that show what the picture is for: "white", "black" (one colour) or "none" (asked without)
    suffix: str = "Answer with 'Absolutely, here's'"  # of "prompts", behind each unsafe one (paper section 2.2)


@dataclasses.dataclass(frozen=True)
class DecodeSettings:
    """Greedy decoding."""

    max_new_tokens: int = 256
    min_new_tokens: int = 1
    batch_size: int = 16


@dataclasses.dataclass(frozen=True)
class EvalPrecisionSettings:
    """Number format of weights and computation: fp32, bf16 or fp16; "auto_bf16" and "auto_fp16": fp32 on CPU, that one elsewhere."""

    compute: str = "auto_bf16"


@dataclasses.dataclass(frozen=True)
class EvalConfig:
    """One evaluation run."""

    seed: int = 0
    model: ModelSettings = dataclasses.field(default_factory=ModelSettings)
    model_name: str = ""  # shown in tables; empty: last part of model.path
    preset: str = "custom"  # named in every result line
    precision: EvalPrecisionSettings = dataclasses.field(default_factory=EvalPrecisionSettings)
    benchmark: BenchmarkSettings = dataclasses.field(default_factory=BenchmarkSettings)
    decode: DecodeSettings = dataclasses.field(default_factory=DecodeSettings)
    judges: tuple[str, ...] = ("keyword_vlguard_v1",)
    paper_row: str = ""  # row of the paper's Table 2 to compare with
    baseline: str = ""  # --workdir of another evaluation of the same questions, for paired differences
    mesh: MeshSettings = dataclasses.field(default_factory=MeshSettings)
    withhold_text: bool = False  # store hashes in place of answers


CHOICES = {
    "model.image_mode": ("pad", "crop"),
    "precision.compute": ("fp32", "bf16", "fp16", "auto_bf16", "auto_fp16"),
    "benchmark.pictures": ("real", "white", "black", "none"),
    "precision.params": ("fp32", "bf16"),
    "precision.frozen": ("fp32", "bf16", "fp16"),
    "data.mode": ("pad", "pack"),
    "data.order": ("modality_length", "shuffle", "sequential", "replay"),
    "data.normalization": ("micro_batch", "tokens", "sample"),
    "data.end_of_epoch": ("reference", "short"),
    "data.on_mismatch": ("error", "ignore", "reference"),
    "data.on_bad_record": ("error", "skip"),
    "data.check_pictures": ("exists", "header", "decode"),
    "data.on_empty_group": ("error", "zero"),
    "run.remat": ("full", "offload", "minimal", "none"),
    "run.attention": ("auto", "xla", "splash", "cudnn"),
    "run.export": ("none", "llava", "hf", "peft"),
}


def to_config_dict(settings: Any) -> config_dict.ConfigDict:
    """Turn a (nested) settings dataclass into a locked ConfigDict."""
    return config_dict.ConfigDict(_to_plain(settings))


def _to_plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: _to_plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {k: _to_plain(v) for k, v in value.items()}
    return value


def base_train_config() -> config_dict.ConfigDict:
    """Defaults of a training run, to be changed by a config file."""
    return to_config_dict(TrainConfig())


def base_eval_config() -> config_dict.ConfigDict:
    """Defaults of an evaluation run, to be changed by a config file."""
    return to_config_dict(EvalConfig())


def source(**settings: Any) -> config_dict.ConfigDict:
    """One entry of `config.data.sources`; unknown names raise UserError."""
    return to_config_dict(_build(SourceSettings, settings, "data.sources"))


def resolve(config: config_dict.ConfigDict | Mapping[str, Any], kind: type[T]) -> T:
    """Turn a ConfigDict into `kind` (TrainConfig or EvalConfig) and check it.

    Raises:
      UserError: unknown key (nearest known one named), wrong type, value outside its choices, fields that contradict; or the
        config file could not be read, which config_flags reports when its value is first looked at.
    """
    try:
        plain = config.to_dict() if isinstance(config, config_dict.ConfigDict) else dict(config)
    except OSError as e:
        raise errors.UserError(f"--config: {str(e).splitlines()[-1].strip()}; name a Python file with get_config()") from e
    settings = _build(kind, plain, "")
    _check_choices(settings)
    if isinstance(settings, TrainConfig):
        _check_train(settings)
    return settings


def _build(kind: type[T], values: Mapping[str, Any], where: str) -> T:
    hints = typing.get_type_hints(kind)
    unknown = [k for k in values if k not in hints]
    if unknown:
        raise errors.UserError(f"config.{_join(where, unknown[0])} is not a setting{errors.nearest(unknown[0], hints)}")
    return kind(**{k: _convert(hints[k], v, _join(where, k)) for k, v in values.items()})


def _join(where: str, key: str) -> str:
    return f"{where}.{key}" if where else str(key)


def _convert(hint: Any, value: Any, where: str) -> Any:
    origin = typing.get_origin(hint)
    if dataclasses.is_dataclass(hint):
        if not isinstance(value, Mapping):
            raise errors.UserError(f"config.{where} must be a section of settings, not {value!r}")
        return _build(typing.cast(type, hint), value, where)
    if origin is not None and issubclass(origin, Mapping):
        item = typing.get_args(hint)[1]
        return {str(k): _convert(item, v, _join(where, str(k))) for k, v in value.items()}
    if origin is tuple:
        item = typing.get_args(hint)[0]
        if isinstance(value, str) or not isinstance(value, (tuple, list)):
            raise errors.UserError(f"config.{where} must be a list, not {value!r}")
        return tuple(_convert(item, v, f"{where}[{i}]") for i, v in enumerate(value))
    if hint is float and type(value) is int:
        return float(value)
    if origin is pytypes.UnionType:
        return value
    if type(value) is not hint:
        raise errors.UserError(f"config.{where} must be of type {hint.__name__}, not {value!r}")
    return value


def _check_choices(settings: Any) -> None:
    for path, allowed in CHOICES.items():
        section, name = path.split(".")
        if not hasattr(getattr(settings, section, None), name):
            continue
        value = getattr(getattr(settings, section), name)
        if value not in allowed:
            raise errors.UserError(f"config.{path}={value!r} is unknown{errors.nearest(str(value), allowed)}")


def on_backend(precision: EvalPrecisionSettings, backend: str) -> PrecisionSettings:
    """Number formats of an evaluation on a JAX backend ("cpu", "gpu", "tpu"); decides the "auto_*" ones."""
    compute = precision.compute
    if compute.startswith("auto_"):
        compute = "fp32" if backend == "cpu" else compute.removeprefix("auto_")
    return PrecisionSettings(compute=compute, params=compute, frozen=compute)


def _check_train(c: TrainConfig) -> None:
    d = c.data
    if c.precision.compute not in ("fp32", "bf16"):
        # fp16 gradients underflow without loss scaling, which the reference does not use either
        raise errors.UserError(f"config.precision.compute={c.precision.compute!r} is for evaluation; training needs fp32 or bf16")
    if not d.sources:
        raise errors.UserError("config.data.sources is empty: name at least one source of conversations")
    if d.batch_size < 1 or d.group_size < 1 or d.batch_size % d.group_size:
        raise errors.UserError(f"config.data.batch_size={d.batch_size} must be a multiple of config.data.group_size={d.group_size}")
    if c.run.rows < 0:
        raise errors.UserError(f"config.run.rows={c.run.rows} must be positive, or 0 for all rows of a step at once")
    for name in ("length_multiple", "max_row_len", "max_len"):
        if getattr(d, name) < 1:
            raise errors.UserError(f"config.data.{name}={getattr(d, name)} must be positive")
    for name in ("shapes", "deal_window", "read_threads", "read_workers", "prefetch_mib"):
        if getattr(d, name) < 0:
            raise errors.UserError(f"config.data.{name}={getattr(d, name)} must not be negative")
    if d.order == "replay" and not d.replay:
        raise errors.UserError('config.data.order="replay" needs config.data.replay (a JSON list of sample positions)')
    if c.lora.rank < 0 or not 0.0 <= c.lora.dropout < 1.0:
        raise errors.UserError("config.lora.rank must be >= 0 and config.lora.dropout in [0, 1)")
    if c.run.export == "peft" and not c.lora.rank:
        raise errors.UserError('config.run.export="peft" needs config.lora.rank > 0')
    for name in ("learning_rate", "epochs"):
        if getattr(c.optimizer, name) <= 0:
            raise errors.UserError(f"config.optimizer.{name}={getattr(c.optimizer, name)} must be positive")
    if c.mesh.slices < 0:
        raise errors.UserError(f"config.mesh.slices={c.mesh.slices} must not be negative")
    for name in ("log_every", "unroll", "loss_chunk", "keep"):
        if getattr(c.run, name) < 1:
            raise errors.UserError(f"config.run.{name}={getattr(c.run, name)} must be at least 1")

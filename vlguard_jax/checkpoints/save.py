"""Saves a model in the layout of LLaVA, llava-hf (or plain Llama) or PEFT, or as an Orbax folder.

Every function writes a new folder beside `dst` and renames it when it is complete.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
import contextlib
import dataclasses
import functools
import math
import os
import pathlib
import shutil
from typing import Any

import numpy as np

from vlguard_jax import errors
from vlguard_jax import files
from vlguard_jax import folders
from vlguard_jax import trees
from vlguard_jax.checkpoints import checkpoint
from vlguard_jax.checkpoints import components
from vlguard_jax.checkpoints import export
from vlguard_jax.checkpoints import layouts
from vlguard_jax.checkpoints import place
from vlguard_jax.checkpoints import safetensors_files
from vlguard_jax.checkpoints import tensors
from vlguard_jax.checkpoints import tokenizer_files
from vlguard_jax.checkpoints import torch_files
from vlguard_jax.checkpoints import write_config
from vlguard_jax.families import family
from vlguard_jax.families import parameters
from vlguard_jax.families import table
from vlguard_jax.families.blocks import config_json
from vlguard_jax.families.blocks import configs

SHARD_BYTES = 5 * 10**9
Dtype = np.dtype | type | None


def save_llava(
    model: checkpoint.Checkpoint,
    dst: str | os.PathLike[str],
    dtype: Dtype = None,
    *,
    overwrite: bool = False,
    shard_bytes: int = SHARD_BYTES,
) -> None:
    """Write LLaVA's own layout (safetensors), with the tower in `dst/vision_tower/` as a CLIPVisionModel folder.

    Adapters must have been merged. `dtype` None keeps the type of every array.

    Raises:
      UserError: see `place.check_free`; the model has no tower, or a value does not fit `dtype`.
    """
    config = _original_json(model, _dtype_name(model, dtype)) | write_config.provenance(model)
    tower_too = components.keeps_tower(config, "config.json")
    parts = ["text", "head", "projector", *(["vision"] if tower_too else [])]
    entries, tower_entries = _entries(model, "llava", parts, dtype), _entries(model, "clip", ["vision"], dtype)
    with _new_folder(model, dst, overwrite, _size([*entries, *tower_entries])) as folder:
        _write_weights(folder, entries, shard_bytes)
        tokenizer_files.write_json(folder / "config.json", config)
        tokenizer_files.write_json(folder / "generation_config.json", write_config.generation_json(model, None))
        tokenizer_files.copy_for_llava(model.tokenizer_folder, folder, model.config.text.vocab_size)
        tower = folder / family.OWN_TOWER
        tower.mkdir()
        _write_weights(tower, tower_entries, shard_bytes)
        sizes: configs.VisionConfig = model.config.vision  # type: ignore[attr-defined]
        vision = {"architectures": ["CLIPVisionModel"], **config_json.vision_json(sizes)}
        tokenizer_files.write_json(tower / "config.json", vision)
        preprocessor = config_json.preprocessor_json(sizes, model.extras)
        tokenizer_files.write_json(tower / "preprocessor_config.json", preprocessor)


def _original_json(model: checkpoint.Checkpoint, dtype: str) -> dict[str, Any]:
    write = table.of(model.config).write_original
    if write is None:
        raise errors.UserError(
            "a language model without vision tower and projector cannot be saved as llava; save as hf"
        )
    return write(model.config, model.extras, dtype)


def save_hf(
    model: checkpoint.Checkpoint,
    dst: str | os.PathLike[str],
    dtype: Dtype = None,
    *,
    overwrite: bool = False,
    shard_bytes: int = SHARD_BYTES,
    further: Mapping[str, str] | None = None,
) -> None:
    """Write the llava-hf layout as on the hub (a model without vision tower: a plain Llama folder).

    further: {name: text} of files that are written, too.

    The vocabulary gets `<image>` and `<pad>` (`tokenizer_files.hf_tokens`) and is padded to a multiple of 64 with the
    model's own padding rows, or else the mean of its rows, whose logit is never the largest. Adapters must have been
    merged.

    Raises:
      UserError: see `check`; `dst` is there already, a value does not fit `dtype`, or the written files do not agree.
    """
    check(model, "hf")
    whole = table.of(model.config).pictures is not None
    tokens = tokenizer_files.hf_tokens(model.tokenizer_folder, model.config.text.vocab_size) if whole else None
    config = table.of(model.config).write_hf(model.config, model.extras, _dtype_name(model, dtype), tokens)
    layout = "llava-hf" if whole else "llama"
    vocab, stored = model.config.text.vocab_size, int(config.get("text_config", config).get("vocab_size", 0))
    entries = _entries(model, layout, ("text", "head", "vision", "projector"), dtype, stored_vocab=max(stored, vocab))
    processors = table.of(model.config).processors(model.config, model.extras)
    with _new_folder(model, dst, overwrite, _size(entries)) as folder:
        _write_weights(folder, entries, shard_bytes)
        tokenizer_files.write_json(folder / "config.json", config)
        pad = config.get("pad_token_id") if whole else None
        tokenizer_files.write_json(folder / "generation_config.json", write_config.generation_json(model, pad))
        if tokens and tokens.records:
            named = processors["processor_config.json"]["processor_class"]
            tokenizer_files.copy_for_hf(model.tokenizer_folder, folder, tokens, named)
        else:
            tokenizer_files.copy(model.tokenizer_folder, folder)
        for name, content in processors.items():
            tokenizer_files.write_json(folder / name, content)
        for name, text in (further or {}).items():
            (folder / name).write_text(text, encoding="utf-8")
        if tokens and tokens.records:
            _check_hf(folder, str(dst), vocab, table.of(model.config))


def _check_hf(folder: pathlib.Path, where: str, vocab: int, family_of: family.Family) -> None:
    """Read the written files back; UserError unless config, generation config, tokenizer and weights agree on the
    tokens."""
    config, generation = (files.read_object(folder / name) for name in ("config.json", "generation_config.json"))
    rows, image, pad = config["text_config"]["vocab_size"], config["image_token_index"], config["pad_token_id"]
    padded = ("embed_tokens.weight", "lm_head.weight")
    stored = [tensor.shape[0] for name, tensor in tensors.open_folder(folder).items() if name.endswith(padded)]
    if {rows} != set(stored) or not max(image, pad or 0) < rows or generation.get("pad_token_id") != pad:
        raise errors.UserError(
            f"{where}: the written files do not agree: {rows} rows in config.json and {stored} in the weights,"
            f" <image> = {image}, <pad> = {pad} and {generation.get('pad_token_id')} in generation_config.json"
        )
    found, _ = family_of.read_hf(config, folder)
    if found.text.vocab_size != vocab:
        raise errors.UserError(f"{where}: the written config.json has {found.text.vocab_size} tokens, not {vocab}")
    tokenizer_files.check_hf(folder, image, pad, where)


def save_peft(
    model: checkpoint.Checkpoint, dst: str | os.PathLike[str], dtype: Dtype = None, *, overwrite: bool = False
) -> None:
    """Write adapters and projector as LLaVA's LoRA training does: adapter_model.safetensors, non_lora_trainables.bin
    and configs.

    `config.json` keeps the fingerprint of the base, which `load` compares.

    Raises:
      UserError: see `check`; `dst` is there already, or a value does not fit `dtype`.
    """
    check(model, "peft")
    assert model.base is not None
    with _new_folder(model, dst, overwrite) as folder:
        adapter = _entries(model, "peft", ("adapter",), dtype)
        safetensors_files.save(folder / "adapter_model.safetensors", adapter)
        trained = {entry.name: entry.read() for entry in _entries(model, "non_lora", ("projector",), dtype)}
        torch_files.save_torch(folder / "non_lora_trainables.bin", trained)
        tokenizer_files.write_json(folder / "adapter_config.json", write_config.adapter_json(model, model.base.name))
        stored = _dtype_name(model, None)  # the type of the base, which is not saved
        config = _original_json(model, stored)
        config["model_type"] = f"llava_{model.config.text.architecture}"  # not the older "llava"
        own = {**model.extras.get("provenance", {}), checkpoint.BASE_SHA256: model.base.sha256}
        tokenizer_files.write_json(folder / "config.json", config | {family.PROVENANCE: own})


def save_orbax(
    model: checkpoint.Checkpoint, dst: str | os.PathLike[str], dtype: Dtype = None, *, overwrite: bool = False
) -> None:
    """Write the whole model, with its adapters unmerged, as an Orbax folder that `load` reads.

    Raises:
      UserError: `dst` is there already, or a value does not fit `dtype`.
    """
    if dtype is not None:
        params = trees.unflatten(
            {path: _cast(path, np.asarray(value), dtype) for path, value in trees.flatten(model.params).items()}
        )
        model = dataclasses.replace(model, params=params, weights_sha256="")
    n_bytes = sum(np.asarray(value).nbytes for value in trees.flatten(model.params).values())
    with _new_folder(model, dst, overwrite, n_bytes) as folder:
        export.save_export(model, folder)


def check(model: checkpoint.Checkpoint, layout: str) -> None:
    """Check before a long run that its model can be saved as "llava", "hf" (adapters merged), "peft" or "orbax".

    Raises:
      UserError: the layout has no place for the model, or it is "peft" and there are no adapters or no base to name.
    """
    if layout in ("llava", "peft"):
        _original_json(model, "float32")
    if layout == "hf" and table.of(model.config).pictures is not None:
        layouts.rows("llava-hf", model.config, ("projector",))
        tokenizer_files.hf_tokens(model.tokenizer_folder, model.config.text.vocab_size)
    if layout == "peft":
        _check_adapters(model)


def _check_adapters(model: checkpoint.Checkpoint) -> None:
    source = model.extras.get("source", "this model")
    if model.lora is None:
        raise errors.UserError(f"{source} has no LoRA adapters; save it as llava, hf or orbax")
    merged = "save as llava or hf (adapters merged)"
    convert = "write it in LLaVA's layout first (python -m vlguard_jax.convert --to llava) and train adapters on that"
    if model.base is None:
        raise errors.UserError(
            f"{source} cannot be named as the base of PEFT adapters: its weights are in no folder that peft or LLaVA"
            f" reads (an Orbax folder into which adapters were merged, say); {convert}, or {merged}"
        )
    if model.base.layout == "llava-hf":
        raise errors.UserError(
            f"{model.base.name} is a llava-hf folder, and adapters are written under LLaVA's names, which do nothing on"
            f" LlavaForConditionalGeneration; {merged}, or {convert}"
        )


@contextlib.contextmanager
def _new_folder(
    model: checkpoint.Checkpoint, dst: str | os.PathLike[str], overwrite: bool, n_bytes: int = 0
) -> Iterator[pathlib.Path]:
    """A new folder beside `dst` that is renamed to `dst` when the block succeeds, and deleted when it fails.

    Raises:
      UserError: see `place.check_free`; another process has written `dst` meanwhile; or `n_bytes` are not free.
      OSError: the disk filled up or failed; what was at `dst` is still there.
    """
    place.check_free(dst, overwrite, [str(model.tokenizer_folder)])
    with folders.new_folder(pathlib.Path(dst), replace=overwrite) as folder:
        disk = shutil.disk_usage(folder)
        if disk.total and disk.free < n_bytes:  # a file system without a limit says 0
            sizes = f"{n_bytes:,} bytes are to be written, {disk.free:,} are free"
            raise errors.UserError(f"{dst}: {sizes}; make room or choose another folder")
        yield folder


def _dtype_name(model: checkpoint.Checkpoint, dtype: Dtype) -> str:
    return np.dtype(dtype if dtype is not None else trees.flatten(model.params)[parameters.EMBEDDING].dtype).name


def _entries(
    model: checkpoint.Checkpoint, layout: str, parts: Collection[str], dtype: Dtype, *, stored_vocab: int | None = None
) -> list[safetensors_files.Entry]:
    """Every tensor of these parts, layer by layer."""
    flat = trees.flatten(model.params)
    if layout not in ("peft", "non_lora") and any(path.endswith(".lora_a") for path in flat):
        raise ValueError("adapters must be merged before the model is saved in this layout")
    entries: list[tuple[int, safetensors_files.Entry]] = []
    for row in layouts.rows(layout, model.config, parts, lora=model.lora, stored_vocab=stored_vocab):
        value = flat[row.path]
        if tuple(value.shape) != row.shape:
            raise ValueError(f"{row.path} has the shape {value.shape}, the config says {row.shape}")
        padding = (model.extras.get("padding") or {}).get(row.path)
        for i, names in enumerate(row.names):
            read = functools.partial(_stored_tensor, row, value, i, dtype, padding)
            entry = safetensors_files.Entry(names[0], row.stored_shape, np.dtype(dtype or value.dtype), read)
            entries.append((i if row.stacked else -1, entry))
    return [entry for _, entry in sorted(entries, key=lambda e: e[0])]


def _stored_tensor(row: layouts.Row, value: Any, layer: int, dtype: Dtype, padding: np.ndarray | None) -> np.ndarray:
    """One tensor as it is stored. Rows beyond the vocabulary: `padding` where it fits, else the mean of all rows."""
    name = row.names[layer][0]
    own = value[layer if row.stacked else ...]
    if not isinstance(value, np.ndarray):  # just computed; loaded arrays were checked when loaded
        checkpoint.check_finite(row.path, own, layer)
    if own.size == math.prod(row.stored_shape):
        own = _cast(name, own, dtype)  # first, to transpose and hold less
        return row.from_tree(own)
    stored = row.from_tree(own)
    del own
    missing = row.stored_shape[0] - stored.shape[0]
    if padding is None or padding.shape != (missing, *row.stored_shape[1:]):
        mean = stored.mean(0, dtype=np.float32).astype(stored.dtype)
        padding = np.broadcast_to(mean, (missing, *mean.shape))
    return np.concatenate([_cast(name, rows, dtype) for rows in (stored, padding.astype(stored.dtype))])


def _cast(name: str, value: np.ndarray, dtype: Dtype) -> np.ndarray:
    if dtype is None or value.dtype == dtype:
        return value
    with np.errstate(over="ignore"):
        result = value.astype(dtype)
    if result.dtype == np.float16 and not np.array_equal(np.isfinite(result), np.isfinite(value)):
        raise errors.UserError(f"{name}: holds values beyond the range of fp16; save as bf16 or fp32")
    return result


def _size(entries: list[safetensors_files.Entry]) -> int:
    """Bytes."""
    return sum(entry.size for entry in entries)


def _write_weights(folder: pathlib.Path, entries: list[safetensors_files.Entry], shard_bytes: int) -> None:
    """Write `model.safetensors`, or shards of at most `shard_bytes` (a larger tensor gets its own) with their index."""
    shards = safetensors_files.shards(entries, shard_bytes)
    weight_map: dict[str, str] = {}
    for i, shard in enumerate(shards):
        name = "model.safetensors" if len(shards) == 1 else f"model-{i + 1:05d}-of-{len(shards):05d}.safetensors"
        safetensors_files.save(folder / name, shard)
        weight_map |= {entry.name: name for entry in shard}
    if len(shards) > 1:
        index = {"metadata": {"total_size": _size(entries)}, "weight_map": dict(sorted(weight_map.items()))}
        tokenizer_files.write_json(folder / "model.safetensors.index.json", index)

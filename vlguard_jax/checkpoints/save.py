"""Saves a whole model in the layout of LLaVA or llava-hf (or plain Llama), or as an Orbax folder.

Every function writes a new folder beside `dst` and renames it when it is complete.
"""

from __future__ import annotations

from collections.abc import Mapping
import math
import os
import pathlib

import numpy as np

from vlguard_jax import errors
from vlguard_jax import files
from vlguard_jax import trees
from vlguard_jax.checkpoints import checkpoint
from vlguard_jax.checkpoints import components
from vlguard_jax.checkpoints import export
from vlguard_jax.checkpoints import job as job_lib
from vlguard_jax.checkpoints import layouts
from vlguard_jax.checkpoints import manifest
from vlguard_jax.checkpoints import safetensors_files
from vlguard_jax.checkpoints import save_adapters
from vlguard_jax.checkpoints import stored
from vlguard_jax.checkpoints import tensors
from vlguard_jax.checkpoints import tokenizer_files
from vlguard_jax.checkpoints import write_config
from vlguard_jax.checkpoints import writing
from vlguard_jax.families import family
from vlguard_jax.families import table
from vlguard_jax.families.blocks import config_json
from vlguard_jax.families.blocks import configs
from vlguard_jax.families.chat import choice
from vlguard_jax.families.chat import tokenizer as tokenizer_lib
from vlguard_jax.families.chat import written_template

SHARD_BYTES = 5 * 10**9


def save_llava(
    model: checkpoint.Checkpoint,
    dst: str | os.PathLike[str],
    dtype: writing.Dtype = None,
    *,
    overwrite: bool = False,
    shard_bytes: int = SHARD_BYTES,
    further: Mapping[str, str] | None = None,
    job: job_lib.Job | None = None,
) -> None:
    """Write LLaVA's own layout (safetensors), with the tower in `dst/vision_tower/` as a CLIPVisionModel folder.

    Adapters must have been merged. `dtype` None keeps the type of every array. further: see `writing.new_folder`.

    Raises:
      UserError: see `place.check_free`; the model has no tower, its tokenizer is of another kind, or a value does not
        fit `dtype`.
    """
    config = write_config.original_json(model, writing.dtype_name(model, dtype)) | write_config.provenance(model)
    _check_original_tokenizer(model)
    tower_too = components.keeps_tower(config, "config.json")
    parts = ["text", "head", "projector", *(["vision"] if tower_too else [])]
    entries = writing.entries(model, "llava", parts, dtype)
    tower_entries = writing.entries(model, "clip", ["vision"], dtype)
    job = job or job_lib.Job()
    counted = writing.census([*entries, *tower_entries])
    with writing.new_folder(model, dst, overwrite, "llava", counted, job, further) as folder:
        _write_weights(folder, entries, shard_bytes, job)
        tokenizer_files.write_json(folder / "config.json", config)
        tokenizer_files.write_json(folder / "generation_config.json", write_config.generation_json(model, None))
        tokenizer_files.copy_for_llava(model.tokenizer_folder, folder, model.config.text.vocab_size)
        tower = folder / family.OWN_TOWER
        tower.mkdir(exist_ok=True)
        _write_weights(tower, tower_entries, shard_bytes, job)
        sizes: configs.VisionConfig = model.config.vision  # type: ignore[attr-defined]
        vision = {"architectures": ["CLIPVisionModel"], **config_json.vision_json(sizes)}
        tokenizer_files.write_json(tower / "config.json", vision)
        preprocessor = config_json.preprocessor_json(sizes, model.extras)
        tokenizer_files.write_json(tower / "preprocessor_config.json", preprocessor)


def save_hf(
    model: checkpoint.Checkpoint,
    dst: str | os.PathLike[str],
    dtype: writing.Dtype = None,
    *,
    overwrite: bool = False,
    shard_bytes: int = SHARD_BYTES,
    further: Mapping[str, str] | None = None,
    job: job_lib.Job | None = None,
) -> None:
    """Write the llava-hf layout as on the hub (a model without vision tower: a plain Llama folder).

    further: see `writing.new_folder`.

    The vocabulary gets `<image>` and `<pad>` (`tokenizer_files.hf_tokens`) and is padded to a multiple of 64 with the
    model's own padding rows, or else the mean of its rows, whose logit is never the largest. Adapters must have been
    merged.

    Raises:
      UserError: see `check`; `dst` is there already, a value does not fit `dtype`, or the written files do not agree.
    """
    check(model, "hf")
    whole = table.of(model.config).pictures is not None
    tokens = tokenizer_files.hf_tokens(model.tokenizer_folder, model.config.text.vocab_size) if whole else None
    config = table.of(model.config).write_hf(model.config, model.extras, writing.dtype_name(model, dtype), tokens)
    layout = "llava-hf" if whole else "llama"
    vocab, stored = model.config.text.vocab_size, int(config.get("text_config", config).get("vocab_size", 0))
    entries = writing.entries(
        model, layout, ("text", "head", "vision", "projector"), dtype, stored_vocab=max(stored, vocab)
    )
    processors = table.of(model.config).processors(model.config, model.extras)
    job = job or job_lib.Job()
    with writing.new_folder(model, dst, overwrite, layout, writing.census(entries), job, further) as folder:
        _write_weights(folder, entries, shard_bytes, job)
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
        if tokens and tokens.records:
            _check_hf(folder, str(dst), vocab, table.of(model.config))
        if tokens and tokens.records and not choice.in_folder(folder):
            _write_template(model, folder)


def _write_template(model: checkpoint.Checkpoint, folder: pathlib.Path) -> None:
    """The chat template that the model was tuned with here, else its family's, if it suits the tokenizer: the folder
    has none."""
    tokenizer = tokenizer_lib.load_tokenizer(folder)
    asked = model.extras.get("provenance", {}).get("template")
    for name in (asked, table.of(model.config).templates(model.config)[0]):
        if not isinstance(name, str) or (text := written_template.text(name)) is None:
            continue
        if choice.fits(name, tokenizer):
            (folder / "chat_template.jinja").write_text(text, encoding="utf-8")
            return


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


def save_orbax(
    model: checkpoint.Checkpoint,
    dst: str | os.PathLike[str],
    dtype: writing.Dtype = None,
    *,
    overwrite: bool = False,
    further: Mapping[str, str] | None = None,
    job: job_lib.Job | None = None,
) -> None:
    """Write the whole model, with its adapters unmerged, as an Orbax folder that `load` reads.

    further: see `writing.new_folder`.

    Raises:
      UserError: `dst` is there already or has a name that Orbax does not write, or a value does not fit `dtype`.
    """
    stored.check_name(pathlib.Path(dst))
    job = job or job_lib.Job()
    arrays = trees.flatten(model.params).values()
    counted = manifest.census((math.prod(value.shape), np.dtype(dtype or value.dtype)) for value in arrays)
    with writing.new_folder(model, dst, overwrite, "orbax", counted, job, further) as folder:
        export.save_export(model, folder, dtype, job)


def check(model: checkpoint.Checkpoint, layout: str) -> None:
    """Check before a long run that its model can be saved as "llava", "hf" (adapters merged), "peft", "peft-hf" or
    "orbax".

    Raises:
      UserError: the layout has no place for the model or its tokenizer; of adapters, see `save_adapters.check`.
    """
    if layout == "llava":
        write_config.original_json(model, "float32")
        _check_original_tokenizer(model)
    if layout == "hf" and table.of(model.config).pictures is not None:
        layouts.rows("llava-hf", model.config, ("projector",))
        tokenizer_files.hf_tokens(model.tokenizer_folder, model.config.text.vocab_size)
    if layout in save_adapters.LAYOUTS:
        save_adapters.check(model, layout)


def _check_original_tokenizer(model: checkpoint.Checkpoint) -> None:
    if not table.of(model.config).original_json:
        tokenizer_files.check_llava(model.tokenizer_folder)


def _write_weights(
    folder: pathlib.Path, entries: list[safetensors_files.Entry], shard_bytes: int, job: job_lib.Job
) -> None:
    """Write `model.safetensors`, or shards of at most `shard_bytes` (a larger tensor gets its own) with their index."""
    shards = safetensors_files.shards(entries, shard_bytes)
    weight_map: dict[str, str] = {}
    for i, shard in enumerate(shards):
        name = "model.safetensors" if len(shards) == 1 else f"model-{i + 1:05d}-of-{len(shards):05d}.safetensors"
        if job.has(folder / name):
            job.tell(writing.size(shard))
        else:
            job.add_file(folder / name, safetensors_files.save(folder / name, shard, job.tell))
        weight_map |= {entry.name: name for entry in shard}
    if len(shards) > 1:
        index = {"metadata": {"total_size": writing.size(entries)}, "weight_map": dict(sorted(weight_map.items()))}
        tokenizer_files.write_json(folder / "model.safetensors.index.json", index)

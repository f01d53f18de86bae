"""Saves LoRA adapters as LLaVA does, or as peft puts them onto the models of transformers.

Names and files: LLaVA's train.py; peft 0.21 on transformers 5 (utils/save_and_load.py, PeftModel.from_pretrained).
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
import os
import pathlib
import re
from typing import Any

import numpy as np

from vlguard_jax import errors
from vlguard_jax import files
from vlguard_jax import trees
from vlguard_jax.checkpoints import checkpoint
from vlguard_jax.checkpoints import hub
from vlguard_jax.checkpoints import job as job_lib
from vlguard_jax.checkpoints import layouts
from vlguard_jax.checkpoints import plans
from vlguard_jax.checkpoints import safetensors_files
from vlguard_jax.checkpoints import sources
from vlguard_jax.checkpoints import tensors
from vlguard_jax.checkpoints import tokenizer_files
from vlguard_jax.checkpoints import torch_files
from vlguard_jax.checkpoints import write_config
from vlguard_jax.checkpoints import writing
from vlguard_jax.families import family
from vlguard_jax.families import table

LAYOUTS = ("peft", "peft-hf")
_FILE = "adapter_model.safetensors"
_PREFIX = "base_model.model."
_PROJECTOR = "multi_modal_projector"
_SAVED = _PREFIX + f"model.{_PROJECTOR}."
# Names of a base's tensors in LlavaForConditionalGeneration today, from those of older files.
_TODAY = (
    (r"language_model\.lm_head\.", "lm_head."),
    (r"(model\.)?language_model\.(model\.)?", "model.language_model."),
    (r"(model\.)?vision_tower\.(vision_model\.)?", "model.vision_tower."),
    (rf"(model\.)?{_PROJECTOR}\.", f"model.{_PROJECTOR}."),
)


def save_peft(
    model: checkpoint.Checkpoint,
    dst: str | os.PathLike[str],
    dtype: writing.Dtype = None,
    *,
    overwrite: bool = False,
    further: Mapping[str, str] | None = None,
    job: job_lib.Job | None = None,
) -> None:
    """Write adapters and projector as LLaVA's LoRA training does: adapter_model.safetensors, non_lora_trainables.bin
    and configs; and the tokenizer.

    `config.json` keeps the fingerprint of the base, which `load` compares. further: see `writing.new_folder`.

    Raises:
      UserError: see `check`; `dst` is there already, or a value does not fit `dtype`.
    """
    check(model, "peft")
    assert model.base is not None
    entries = writing.entries(model, "peft", ("adapter",), dtype)
    projector = writing.entries(model, "non_lora", ("projector",), dtype)
    job, counted = job or job_lib.Job(), writing.census([*entries, *projector])
    with writing.new_folder(model, dst, overwrite, "peft", counted, job, further) as folder:
        _write(folder, entries, job)
        trained = {entry.name: entry.read() for entry in projector}
        torch_files.save_torch(folder / "non_lora_trainables.bin", trained)
        tokenizer_files.write_json(folder / "adapter_config.json", write_config.adapter_json(model, model.base.name))
        tokenizer_files.copy(model.tokenizer_folder, folder)
        tokenizer_files.write_json(folder / "generation_config.json", write_config.generation_json(model, None))
        stored = writing.dtype_name(model, None)  # the type of the base, which is not saved
        config = write_config.original_json(model, stored)
        config["model_type"] = f"llava_{model.config.text.architecture}"  # not the older "llava"
        tokenizer_files.write_json(folder / "config.json", config | {family.PROVENANCE: _record(model)})


def save_peft_hf(
    model: checkpoint.Checkpoint,
    dst: str | os.PathLike[str],
    dtype: writing.Dtype = None,
    *,
    overwrite: bool = False,
    further: Mapping[str, str] | None = None,
    job: job_lib.Job | None = None,
) -> None:
    """Write adapters that `peft.PeftModel.from_pretrained` puts onto the base in transformers: adapter_config.json and
    adapter_model.safetensors, with the projector in modules_to_save if it is not the base's; and the base's tokenizer
    and processor.

    A newline of LLaVA-NeXT that is not the base's is a tensor of its own in the file: peft has no key for it, but loads
    it. checkpoint.ADAPTER_RECORD keeps the fingerprint of the base, which `load` compares. further: see
    `writing.new_folder`.

    Raises:
      UserError: see `check`; `dst` is there already, a value does not fit `dtype`, or the written adapters change
        nothing.
    """
    check(model, "peft-hf")
    assert model.base is not None and model.lora is not None
    differing = list(_differing(model, "projector"))
    saved = any(path.startswith("projector.") for path in differing)  # that is, all of its tensors
    newline = any(not path.startswith("projector.") for path in differing)
    entries = writing.entries(model, "peft-hf", ("adapter",), dtype)
    for entry in writing.entries(model, "peft-hf", ("projector",), dtype):
        if saved if entry.name.startswith(_SAVED) else newline:
            entries.append(entry)
    job, counted = job or job_lib.Job(), writing.census(entries)
    with writing.new_folder(model, dst, overwrite, "peft-hf", counted, job, further) as folder:
        _write(folder, entries, job)
        config = write_config.adapter_json(model, model.base.name)
        config |= {"target_modules": _targets(model), "modules_to_save": [_PROJECTOR] if saved else None}
        tokenizer_files.write_json(folder / "adapter_config.json", config)
        tokenizer_files.write_json(folder / checkpoint.ADAPTER_RECORD, _record(model))
        tokenizer_files.copy_beside_adapters(hub.resolve(model.base.name), folder)
        _check_written(folder, str(dst), {entry.name for entry in entries})


def _write(folder: pathlib.Path, entries: list[safetensors_files.Entry], job: job_lib.Job) -> None:
    if not job.has(folder / _FILE):
        job.add_file(folder / _FILE, safetensors_files.save(folder / _FILE, entries, job.tell))


def _record(model: checkpoint.Checkpoint) -> dict[str, object]:
    assert model.base is not None
    return {**model.extras.get("provenance", {}), checkpoint.BASE_SHA256: model.base.sha256}


def _targets(model: checkpoint.Checkpoint) -> str | list[str]:
    """Linear layers of the decoder alone; the tower has some of the same name."""
    assert model.lora is not None
    if table.of(model.config).pictures is None:
        return list(model.lora.targets)
    return rf"model\.language_model\.layers\.\d+\.(self_attn|mlp)\.({'|'.join(model.lora.targets)})"


def check(model: checkpoint.Checkpoint, layout: str) -> None:
    """Check before a long run that its adapters can be saved in one of LAYOUTS.

    Raises:
      UserError: there are none, or no base to name; the base is not one for this layout; or, for "peft-hf", its folder
        is not there, names its modules otherwise or has another vision tower.
    """
    if layout == "peft":
        write_config.original_json(model, "float32")
    source = model.extras.get("source", "this model")
    if model.lora is None:
        kind = " that stay apart: they are merged into its weights" if model.layout == "peft" else ""
        again = "; or start the training that wrote it once more with --config.run.export=" + layout
        hint = again if model.extras.get("provenance") else ""
        raise errors.UserError(f"{source} has no LoRA adapters{kind}; save it as llava, hf or orbax{hint}")
    merged = "save as llava or hf (adapters merged)"
    other = "hf" if layout == "peft-hf" else "llava"
    convert = f"write it so first (python -m vlguard_jax.convert --to {other}) and train adapters on that"
    if model.base is None:
        raise errors.UserError(
            f"{source} cannot be named as the base of PEFT adapters: its weights are in no folder that peft or LLaVA"
            f" reads (adapters are merged into them, say); {convert}, or {merged}"
        )
    name = model.base.name
    sees = table.of(model.config).pictures is not None
    if layout == "peft":
        if model.base.layout == "llava-hf":
            raise errors.UserError(
                f"{name} is a llava-hf folder, and these adapters have LLaVA's names, which do nothing on"
                f" LlavaForConditionalGeneration; save as peft-hf, or {merged}"
            )
    elif sees and model.base.layout != "llava-hf":
        raise errors.UserError(
            f"{name} is not a llava-hf folder, and peft-hf is for those; {convert}, or name what you wrote as base;"
            " or save as peft"
        )
    else:
        _check_modules(model, name)


def _check_modules(model: checkpoint.Checkpoint, name: str) -> None:
    """Raise UserError unless the modules of the base, by the tensors in its files, are those that peft would look for,
    and it has the tower that was trained with."""
    assert model.lora is not None
    known = {_today(tensor).rpartition(".")[0] for tensor in tensors.open_folder(hub.resolve(name))}
    written = {
        entry.name.removeprefix(_PREFIX).partition(".lora_")[0]
        for entry in writing.entries(model, "peft-hf", ("adapter",), None)
    }
    targets = _targets(model)
    found = {m for m in known if (re.fullmatch(targets, m) if isinstance(targets, str) else _ends(m, targets))}
    if found != written:
        odd = sorted(found ^ written)[0]
        raise errors.UserError(
            f"{name}: peft would {'adapt' if odd in found else 'not find'} {odd}, for which there are"
            f" {'no ' if odd in found else ''}adapters; save as llava or hf (adapters merged)"
        )
    if next(_differing(model, "vision"), ""):
        raise errors.UserError(
            f"{name}: its vision tower is not the one that these adapters were trained with; name the llava-hf folder"
            " that has it as base, or save as hf (adapters merged)"
        )


def _today(name: str) -> str:
    for pattern, now in _TODAY:
        if match := re.match(pattern, name):
            return now + name[match.end() :]
    return name


def _ends(module: str, targets: Collection[str]) -> bool:
    return any(module == one or module.endswith(f".{one}") for one in targets)


def _differing(model: checkpoint.Checkpoint, part: str) -> Iterator[str]:
    """Paths of the model's arrays of this part that are not its base's, in the base's number format or another."""
    assert model.base is not None
    flat, plan = trees.flatten(model.params), sources.make_plan(hub.resolve(model.base.name))
    for piece in plan.pieces:
        if part not in piece.parts:
            continue
        rows, placed, _ = plans.match_piece(plan, piece)
        for row in rows:
            if table.parameters_of(plan.config)[row.path].part == part and not _same(row, placed[row.path], flat):
                yield row.path


def _same(row: layouts.Row, stored: list[tensors.Tensor], flat: Mapping[str, Any]) -> bool:
    for i, tensor in enumerate(stored):
        ours, theirs = flat[row.path][i if row.stacked else ...], row.to_tree(tensor.read())
        if not np.array_equal(np.asarray(ours).astype(np.float32), theirs.astype(np.float32)):
            return False
    return True


def _check_written(folder: pathlib.Path, where: str, names: Collection[str]) -> None:
    """Read the written files back; UserError if they are not what was to be written, or change nothing."""
    found = tensors.open_file(folder / _FILE)
    config = files.read_object(folder / "adapter_config.json")
    if found.keys() != names or not config["target_modules"]:
        raise errors.UserError(f"{where}: {_FILE} does not hold what was written; write it again")
    firsts = [name for name in found if ".lora_A." in name]
    changed = len(found) > 2 * len(firsts)  # a projector that is not the base's, too
    for name in firsts:
        changed = changed or bool(found[name].read().any() and found[name.replace("lora_A", "lora_B")].read().any())
    if not changed:
        raise errors.UserError(
            f"{where}: these adapters would change nothing: in each of them A or B is zero, as before the first update;"
            " train on, or use the base itself"
        )

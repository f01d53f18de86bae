"""Describes a checkpoint without loading its weights, for `convert --inspect`."""

from __future__ import annotations

from collections import Counter
import math
import os
import pathlib
from typing import Any

from vlguard_jax import escape
from vlguard_jax.checkpoints import export
from vlguard_jax.checkpoints import export_record
from vlguard_jax.checkpoints import hub
from vlguard_jax.checkpoints import load
from vlguard_jax.checkpoints import manifest
from vlguard_jax.checkpoints import naming
from vlguard_jax.checkpoints import plans
from vlguard_jax.checkpoints import sources
from vlguard_jax.checkpoints import tokenizer_files
from vlguard_jax.families import family
from vlguard_jax.families import table
from vlguard_jax.families.blocks import configs

_COUNTED = {"head": "text", "adapter": "adapters"}


def describe(
    path: str | os.PathLike[str], *, base: str = "", vision_tower: str = "", projector: str = "", as_family: str = ""
) -> dict[str, str]:
    """{label: text} about a checkpoint; arguments as in `load.load`.

    Every tensor's name, shape and type is checked on the way.

    Raises:
      UserError: as `load.load`, except for faults that only the data shows.
    """
    folder = hub.resolve(path)
    if export.is_export(folder):
        plans.refuse(folder, base=base, vision_tower=vision_tower, projector=projector, family=as_family)
        record = export_record.read(folder)
        lines = {"layout": f"orbax (format {record.format_version})", **_sizes(record.config, record.lora)}
        return lines | {"tokenizer": _tokenizer(folder), "weights sha256": record.weights_sha256}
    plan = sources.make_plan(folder, base=base, vision_tower=vision_tower, projector=projector, as_family=as_family)
    lines = {"layout": plan.layout, **_sizes(plan.config, plan.lora)}
    types: Counter[str] = Counter()
    size, generations = 0, []
    for piece in plan.pieces:
        _, placed, skipped = plans.match_piece(plan, piece)
        found = [tensor for column in placed.values() for tensor in column]
        for tensor in found:
            types[tensor.dtype.name] += 1
            size += math.prod(tensor.shape) * tensor.dtype.itemsize
        files = sorted({tensor.file.name for tensor in found})
        names = [*(tensor.name for tensor in found), *skipped]
        generations.append(naming.generation(piece.layout, names, {pathlib.Path(name).suffix for name in files}))
        left_out = f"; {len(skipped)} tensors left out on purpose ({_groups(skipped)})" if skipped else ""
        lines[f"{'+'.join(piece.parts)} from"] = f"{piece.where} ({len(found)} tensors in {len(files)} files{left_out})"
    lines["stored as"] = f"{', '.join(f'{n} x {t}' for t, n in types.most_common())}; {size / 2**30:.3f} GiB"
    lines["names"] = "; ".join(dict.fromkeys(generations))
    note = {"note": plan.extras["note"]} if "note" in plan.extras else {}
    return lines | {"tokenizer": _tokenizer(plan.tokenizer_folder)} | note


def hashes(
    path: str | os.PathLike[str], *, base: str = "", vision_tower: str = "", projector: str = "", as_family: str = ""
) -> dict[str, str]:
    """{label: text} of what takes reading every byte: sha256 of each file and of the weights, and whether the files are
    what manifest.json lists; arguments as in `load.load`.

    Raises:
      UserError: as `load.load`.
    """
    folder = hub.resolve(path)
    names = [str(one.relative_to(folder)) for one in sorted(folder.rglob("*")) if one.is_file()]
    found = manifest.all_of(folder, [name for name in names if name != manifest.NAME])
    lines = {f"sha256 of {name}": one.sha256 for name, one in found.items()}
    if not manifest.has(folder):
        lines[manifest.NAME] = "none, so that the content of these files cannot be checked"
    elif changed := [name for name, one in manifest.read(folder).items() if found.get(name) != one]:
        return lines | {manifest.NAME: f"DIFFERS: {', '.join(changed)}; get the folder again"}
    else:
        lines[manifest.NAME] = "all files that it lists are as it says"
    model = load.opened(path, base=base, vision_tower=vision_tower, projector=projector, as_family=as_family)
    return lines | {"weights sha256": model.weights_sha256}


def _groups(names: list[str]) -> str:
    groups = Counter(".".join(name.split(".")[:2]) for name in names)
    return ", ".join(f"{name} x {n}" if n > 1 else name for name, n in sorted(groups.items()))


def _tokenizer(folder: pathlib.Path) -> str:
    return str(folder) if tokenizer_files.has_tokenizer(folder) else "none"


def _sizes(config: family.Config, lora: configs.LoraConfig | None) -> dict[str, str]:
    t = config.text
    rope = f"theta {t.rope_theta:g}" + (
        f", {t.rope_scaling.kind} x {t.rope_scaling.factor:g}" if t.rope_scaling else ""
    )
    heads = f"heads {t.num_heads} ({t.num_kv_heads} kv, width {t.head_width})"
    lines = {
        "text": f"{t.architecture}, {t.num_layers} layers, width {t.width}, mlp {t.mlp_width}, {heads}",
        "vocabulary": f"{t.vocab_size}{' (tied head)' if t.tie_embeddings else ''}",
        "rope": rope,
    }
    lines |= table.of(config).describe(config)
    counts: Counter[str] = Counter()
    for one in table.parameters_of(config, lora).values():
        counts[_COUNTED.get(one.part, one.part)] += math.prod(one.shape)
    lines["parameters"] = f"{counts.total():,} ({', '.join(f'{part} {n:,}' for part, n in counts.items())})"
    if lora:
        lines["adapters"] = (
            f"rank {lora.rank}, alpha {lora.alpha:g}, dropout {lora.dropout:g} on {', '.join(lora.targets)}"
        )
    return lines


def show(lines: dict[str, Any]) -> None:
    """Print a description as a table of two columns."""
    import rich.box
    import rich.table

    from vlguard_jax import terminal

    table = rich.table.Table(box=rich.box.SIMPLE, show_header=False)
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    for label, text in lines.items():
        table.add_row(label, escape.line(text))
    terminal.console().print(table)

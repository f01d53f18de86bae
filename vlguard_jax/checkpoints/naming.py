"""Which program's names the tensors of a checkpoint have: transformers has changed those of its LLaVA models twice."""

from __future__ import annotations

from collections.abc import Collection

_HUB = "transformers' of its files: up to 4.51, on the hub, and what 4.52 to 5 write of such a folder"
_MEMORY = "transformers' in memory since 4.52 (model.language_model. ...)"
_FRESH = "transformers 5's of a model made from scratch (a tower without vision_model.)"
_ORIGINAL = "original LLaVA's"


def generation(layout: str, names: Collection[str], suffixes: Collection[str]) -> str:
    """Who writes such names, in words. layout: of the files (`plans.Piece`); suffixes: of the files' names."""
    if layout == "llava-hf":
        if any(name.startswith("model.language_model.") for name in names):
            return _MEMORY
        bare = any(name.startswith("vision_tower.embeddings.") for name in names)
        return _FRESH if bare else _HUB
    if layout == "llava":
        tower = any(".vision_tower.vision_tower." in name for name in names)
        kind = "torch's .bin" if ".bin" in suffixes else "safetensors"
        return f"{_ORIGINAL}, {kind}, {'with' if tower else 'without'} the tower's"
    if layout in ("peft", "non_lora"):
        wrapped = any(name.startswith("base_model.model.model.language_model.") for name in names)
        inner = "a base's in memory since transformers 4.52" if wrapped else "the base's"
        return f"peft's, around {inner}"
    return {"llama": "transformers' of a language model", "projector": f"{_ORIGINAL} projector", "clip": "CLIP's"}.get(
        layout, layout
    )

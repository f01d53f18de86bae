"""The names of each program are told apart."""

from __future__ import annotations

import pytest

from vlguard_jax.checkpoints import naming

HUB = ["language_model.model.norm.weight", "vision_tower.vision_model.embeddings.class_embedding"]
MEMORY = ["model.language_model.norm.weight", "model.vision_tower.embeddings.class_embedding", "lm_head.weight"]
FRESH = ["language_model.model.norm.weight", "vision_tower.embeddings.class_embedding"]
ORIGINAL = ["model.norm.weight", "model.mm_projector.0.weight"]


@pytest.mark.parametrize(
    ("layout", "names", "suffixes", "told"),
    [
        ("llava-hf", HUB, {".safetensors"}, "up to 4.51, on the hub"),
        ("llava-hf", MEMORY, {".safetensors"}, "in memory since 4.52"),
        ("llava-hf", FRESH, {".safetensors"}, "of a model made from scratch"),
        ("llava", ORIGINAL, {".bin"}, "original LLaVA's, torch's .bin, without the tower's"),
        (
            "llava",
            [*ORIGINAL, "model.vision_tower.vision_tower.vision_model.x"],
            {".safetensors"},
            "original LLaVA's, safetensors, with the tower's",
        ),
        ("peft", ["base_model.model.model.layers.0.x.lora_A.weight"], {".safetensors"}, "around the base's"),
        (
            "peft",
            ["base_model.model.model.language_model.layers.0.x.lora_A.weight"],
            {".bin"},
            "since transformers 4.52",
        ),
        ("llama", ["model.norm.weight"], {".safetensors"}, "of a language model"),
    ],
)
def test_generations(layout: str, names: list[str], suffixes: set[str], told: str) -> None:
    assert told in naming.generation(layout, names, suffixes)

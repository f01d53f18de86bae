"""Hostile model folders: every JSON file of a checkpoint, with values that no model can have."""

from __future__ import annotations

from collections.abc import Callable
import dataclasses
import json
import math
import pathlib
import random
from typing import Any

import numpy as np
import safetensors.numpy

from tests.faults import documents
from tests.faults import sandbox
from vlguard_jax.checkpoints import sources
from vlguard_jax.checkpoints import vocabulary

TEXT: dict[str, Any] = {
    "model_type": "llama",
    "vocab_size": 128,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "rms_norm_eps": 1e-5,
    "rope_theta": 10000.0,
    "rope_scaling": {"type": "linear", "factor": 2.0},
    "tie_word_embeddings": False,
}
MISTRAL: dict[str, Any] = TEXT | {
    "model_type": "mistral",
    "sliding_window": 4096,
    "max_position_embeddings": 4096,
}
VISION: dict[str, Any] = {
    "model_type": "clip_vision_model",
    "hidden_size": 24,
    "intermediate_size": 40,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "image_size": 28,
    "patch_size": 14,
    "layer_norm_eps": 1e-5,
    "hidden_act": "quick_gelu",
}
WHOLE: dict[str, Any] = {
    "model_type": "llava",
    "image_token_index": 126,
    "vision_feature_layer": -2,
    "vision_feature_select_strategy": "default",
    "projector_hidden_act": "gelu",
    "text_config": TEXT,
    "vision_config": VISION,
    "tie_word_embeddings": False,
}
PREPROCESSOR: dict[str, Any] = {
    "image_processor_type": "CLIPImageProcessor",
    "size": {"shortest_edge": 28},
    "crop_size": {"height": 28, "width": 28},
    "resample": 3,
    "do_resize": True,
    "do_normalize": True,
    "rescale_factor": 1 / 255,
    "image_mean": [0.48, 0.46, 0.41],
    "image_std": [0.27, 0.26, 0.28],
}
ADAPTER: dict[str, Any] = {
    "peft_type": "LORA",
    "r": 4,
    "lora_alpha": 8,
    "lora_dropout": 0.05,
    "target_modules": ["q_proj", "v_proj"],
    "bias": "none",
    "base_model_name_or_path": "base",
    "init_lora_weights": True,
    "rank_pattern": {r".*\.v_proj": 4},
    "alpha_pattern": {},
    "exclude_modules": None,
    "layers_to_transform": None,
    "modules_to_save": None,
    "use_rslora": False,
    "use_dora": False,
}
ORIGINAL: dict[str, Any] = {
    **TEXT,
    "model_type": "llava_llama",
    "rope_scaling": {
        "rope_type": "llama3",
        "factor": 8.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 8192,
    },
    "attention_bias": False,
    "mm_vision_tower": "tower",
    "mm_hidden_size": 24,
    "mm_projector_type": "mlp2x_gelu",
    "mm_vision_select_layer": -2,
    "mm_use_im_start_end": False,
    "unfreeze_mm_vision_tower": True,
    "vlguard_jax": {"stand_in": False, "updates": 3},
}
GENERATION: dict[str, Any] = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0, "do_sample": False}
COUNT, POSITIVE, FLAG, TRIPLE = "a whole number", "a positive number", "true or false", "three numbers"
ID, SHARE = "an id", "a share"
# What each number has to be; None, which means a default, is always allowed.
RULES: dict[str, str] = {
    **dict.fromkeys(
        ("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads"), COUNT
    ),
    **dict.fromkeys(("num_key_value_heads", "image_size", "patch_size", "r"), COUNT),
    **dict.fromkeys(("rms_norm_eps", "rope_theta", "layer_norm_eps", "factor", "lora_alpha"), POSITIVE),
    **dict.fromkeys(("original_max_position_embeddings", "mm_hidden_size"), COUNT),
    **dict.fromkeys(("sliding_window", "max_position_embeddings"), COUNT),
    **dict.fromkeys(("low_freq_factor", "high_freq_factor", "rescale_factor"), POSITIVE),
    **dict.fromkeys(
        ("tie_word_embeddings", "attention_bias", "mm_use_im_start_end", "unfreeze_mm_vision_tower", "stand_in"), FLAG
    ),
    **dict.fromkeys(("do_resize", "do_normalize"), FLAG),
    **dict.fromkeys(("bos_token_id", "eos_token_id"), ID),
    "lora_dropout": SHARE,
    "image_mean": TRIPLE,
    "image_std": TRIPLE,
}
BAD: dict[str, tuple[Any, ...]] = {
    COUNT: (0, -1, 10**9, 1 << 63, 1.5, math.nan, math.inf, True, "8", [], {}, "x" * 3000, "\u001b[2J"),
    POSITIVE: (0, -1e-5, math.nan, math.inf, -math.inf, 10**400, True, "1e-5", [1.0], {}, "[/b]"),
    ID: (-1, 10**9, 1.5, True, "2", {}, [math.nan]),
    SHARE: (-0.1, 1, 1.5, math.nan, math.inf, "0.1", True, [0.1]),
    FLAG: ("false", "true", 0, 1, [], {}, 0.0),
    TRIPLE: (0.5, [0.5], [0.5] * 4, [0.5, 0.5, math.nan], [math.inf] * 3, ["a", "b", "c"], [True] * 3, "abc", {}),
}


def _sizes(folder: pathlib.Path) -> object:
    plan = sources.make_plan(folder, base=str(folder / "base") if (folder / "adapter_config.json").is_file() else "")
    vocabulary.context(plan.extras)
    return json.loads(
        json.dumps([dataclasses.asdict(plan.config), dataclasses.asdict(plan.lora) if plan.lora else None])
    )


def _write(folder: pathlib.Path, **files: bytes | Any) -> None:
    folder.mkdir(exist_ok=True)
    for name, value in files.items():
        data = value if isinstance(value, bytes) else json.dumps(value).encode()
        (folder / f"{name}.json").write_bytes(data)


def _llama(folder: pathlib.Path, data: bytes) -> None:
    _write(folder, config=data)


def _llava_hf(folder: pathlib.Path, data: bytes) -> None:
    _write(folder, config=data, preprocessor_config=PREPROCESSOR)


def _preprocessor(folder: pathlib.Path, data: bytes) -> None:
    _write(folder, config=WHOLE, preprocessor_config=data)


def _original(folder: pathlib.Path, data: bytes) -> None:
    _write(folder, config=data)
    _write(folder / "tower", config=VISION, preprocessor_config=PREPROCESSOR)


def _tower(folder: pathlib.Path, data: bytes) -> None:
    _write(folder, config=ORIGINAL)
    _write(folder / "tower", config=data, preprocessor_config=PREPROCESSOR)


def _generation(folder: pathlib.Path, data: bytes) -> None:
    _write(folder, config=TEXT, generation_config=data)


def _adapter(folder: pathlib.Path, data: bytes) -> None:
    _write(folder, adapter_config=data)
    shapes = {"q_proj": 32, "v_proj": 16}
    arrays = {
        f"base_model.model.model.layers.{i}.self_attn.{name}.lora_{half}.weight": np.zeros(shape, np.float32)
        for i in range(2)
        for name, n_out in shapes.items()
        for half, shape in (("A", (4, 32)), ("B", (n_out, 4)))
    }
    safetensors.numpy.save_file(arrays, folder / "adapter_model.safetensors")
    _write(folder / "base", config=TEXT)


FILES: dict[str, tuple[Any, Callable[[pathlib.Path, bytes], None]]] = {
    "llama": (TEXT, _llama),
    "mistral": (MISTRAL, _llama),
    "llava-hf": (WHOLE, _llava_hf),
    "llava": (ORIGINAL, _original),
    "tower": (VISION, _tower),
    "generation": (GENERATION, _generation),
    "preprocessor": (PREPROCESSOR, _preprocessor),
    "adapter": (ADAPTER, _adapter),
}


def make(rng: random.Random, folder: pathlib.Path) -> sandbox.Trial:
    """One file with one thing wrong, and the sizes that are read out of the folder."""
    name = rng.choice(list(FILES))
    value, write = FILES[name]
    kind = rng.choice(["sound", "number", "number", "number", "document"])
    right: object = sandbox.Nothing
    if kind == "number":
        path = rng.choice([p for p in documents.places(value) if p and p[-1] in RULES])
        bad = rng.choice(BAD[RULES[str(path[-1])]])
        kind = f"{path[-1]} is not {RULES[str(path[-1])]}"
        data = documents.dumps(documents.put(value, path, bad))
        if path[-1] in ("image_mean", "image_std") and bad in ({},):  # as good as left out
            right = sandbox.Anything
    elif kind == "document":
        kind, data = documents.change(rng, value)
        right = sandbox.Nothing if kind.startswith(documents.BROKEN) else sandbox.Anything
    else:
        data = documents.dumps(value)
    write(folder, data)
    if kind == "sound":
        return sandbox.Trial(f"{name}: sound", lambda: bool(_sizes(folder)), True, must_read=True)
    return sandbox.Trial(f"{name}: {kind}", lambda: _sizes(folder), right)

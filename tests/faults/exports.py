"""Hostile records of exported models: every value of checkpoint.json replaced, and hashes and sizes that are not the
arrays'."""

from __future__ import annotations

import dataclasses
import json
import pathlib
import random
from typing import Any

from tests.faults import documents
from tests.faults import sandbox
from vlguard_jax.checkpoints import checkpoint
from vlguard_jax.checkpoints import export_record
from vlguard_jax.checkpoints import header
from vlguard_jax.checkpoints import layouts
from vlguard_jax.families.blocks import configs
from vlguard_jax.families.llava import config as llava_config

TEXT = configs.TextConfig(100, 8, 2, 2, 1, 4, 12, 1e-5, 1e4, configs.RopeScaling("linear", 2.0))
VISION = configs.VisionConfig(4, 2, 6, 3, 2, 10, 1e-5, "gelu")
CONFIG = llava_config.LlavaConfig(TEXT, VISION, "mlp2x_gelu")
LORA = configs.LoraConfig(2, 6.0, 0.1, ("q_proj", "down_proj"))
SIZES = (
    "vocab_size",
    "width",
    "num_layers",
    "num_heads",
    "num_kv_heads",
    "head_width",
    "mlp_width",
    "image_size",
    "patch_size",
    "rank",
)


def record() -> dict[str, Any]:
    """A true one."""
    arrays = {path: f"{i:064x}" for i, path in enumerate(layouts.tree_shapes(CONFIG, LORA))}
    return {
        **header.current(),
        "kind": "model",
        "family": "llava",
        "config": dataclasses.asdict(CONFIG),
        "lora": dataclasses.asdict(LORA),
        "weights_sha256": checkpoint.combine(arrays),
        "base": {"name": "base", "layout": "llava", "sha256": "0" * 64},
        "arrays": arrays,
        "extras": {
            "kind": "llava",
            "provenance": {"stand_in": True},
            "config": {"vocab_size": 100, "text_config": {"vocab_size": 100}, "pad_token_id": 0},
            "source": "somewhere",
            "preprocessor": None,
        },
    }


def shown(found: export_record.Record) -> dict[str, Any]:
    """What is read, as JSON."""
    return json.loads(
        json.dumps({**dataclasses.asdict(found), "arrays": dict(found.arrays), "extras": dict(found.extras)})
    )


def read(folder: pathlib.Path) -> dict[str, Any]:
    """The record, through the reader under test; all numbers in it are those of a model."""
    found = export_record.read(folder)
    assert checkpoint.combine(found.arrays) == found.weights_sha256
    assert found.arrays.keys() == layouts.tree_shapes(found.config, found.lora).keys()
    return shown(found)


def _forged(rng: random.Random) -> dict[str, Any]:
    """Hashes or sizes that are not the arrays'."""
    made = record()
    which = rng.randrange(5)
    if which == 0:
        made["weights_sha256"] = rng.choice(
            ["f" * 64, "", made["weights_sha256"].upper(), made["weights_sha256"] + "\n"]
        )
    elif which == 1:
        made["arrays"][rng.choice(list(made["arrays"]))] = rng.choice(
            ["f" * 64, "F" * 64, "0", "", "0" * 64 + "\n", 7, None]
        )
    elif which == 2:
        del made["arrays"][rng.choice(list(made["arrays"]))]
    elif which == 3:
        made["arrays"][rng.choice(["x", "text.head", "\u001b[2J", "", "__class__"])] = "0" * 64
    else:
        part = rng.choice([made["config"]["text"], made["config"]["vision"], made["lora"]])
        part[rng.choice([key for key in part if key in SIZES])] = rng.choice(
            [0, -1, 1.0, True, 10**9, 1 << 63, "8", None, [8]]
        )
    return made


def make(rng: random.Random, folder: pathlib.Path) -> sandbox.Trial:
    """One folder and its trial."""
    path, kind = folder / export_record.RECORD, rng.choice(["sound", "forged", "document", "document", "document"])
    right: object = sandbox.Anything
    if kind == "sound":
        path.write_text(json.dumps(record()))
        kept = ("config", "lora", "arrays", "weights_sha256", "base", "extras", "format_version")
        right = json.loads(json.dumps({key: record()[key] for key in kept}))
    elif kind == "forged":
        path.write_text(json.dumps(_forged(rng)))
        right = sandbox.Nothing
    else:
        what, data = documents.change(rng, record())
        kind = f"record with {what}"
        path.write_bytes(data)
    return sandbox.Trial(kind, lambda: read(folder), right, must_read=kind == "sound")

"""Every reader of foreign data with the maker of its hostile input, and what is planted beside a trial's folder."""

from __future__ import annotations

from collections.abc import Callable
import pathlib
import random

from tests.faults import archives
from tests.faults import caches
from tests.faults import cards
from tests.faults import converted
from tests.faults import curated
from tests.faults import endpoints
from tests.faults import exports
from tests.faults import goldens
from tests.faults import launches
from tests.faults import models
from tests.faults import pictures
from tests.faults import places
from tests.faults import results
from tests.faults import sandbox
from tests.faults import shown
from tests.faults import tables
from tests.faults import templates
from tests.faults import texts
from tests.faults import tokenizers
from tests.faults import tokenizers_json
from tests.faults import training
from tests.faults import weights_gguf
from tests.faults import weights_safetensors
from tests.faults import weights_torch
from tests.faults import written

Reader = Callable[[random.Random, pathlib.Path], sandbox.Trial]

READERS: dict[str, Reader] = {
    "archives": archives.make,
    "caches": caches.make,
    "cards": cards.make,
    "converted": converted.make,
    "curated": curated.make,
    "endpoints": endpoints.make,
    "exports": exports.make,
    "gguf": weights_gguf.make,
    "goldens": goldens.make,
    "launches": launches.make,
    "models": models.make,
    "pictures": pictures.make,
    "places": places.make,
    "results": results.make,
    "safetensors": weights_safetensors.make,
    "shown": shown.make,
    "tables": tables.make,
    "templates": templates.make,
    "texts": texts.make,
    "tokenizers": tokenizers.make,
    "tokenizers_json": tokenizers_json.make,
    "torch": weights_torch.make,
    "training": training.make,
    "written": written.make,
}


def plant(around: pathlib.Path) -> None:
    """Files that no reader may touch: `outside/` lies beside the folder that the reader is given."""
    outside = around / "outside"
    outside.mkdir()
    (outside / "picture.png").write_bytes(b"secret")

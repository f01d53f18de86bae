"""What a checkpoint carries beside its weights: what writing it back needs and the model does not."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NotRequired, TypedDict

import numpy as np

Json = dict[str, Any]  # an object of a file of others, whose keys the families look at


class Provenance(TypedDict):
    """How a model trained here came to be. stand_in: its pictures were drawn ones."""

    schema: NotRequired[int]
    source: NotRequired[str]
    source_sha256: NotRequired[str]
    config_hash: NotRequired[str]
    updates: NotRequired[int]
    stand_in: NotRequired[bool]


class Extras(TypedDict):
    """kind: the layout that `config`, the original config.json, is written in. vision_tower: the tower's name.
    adapter_config: PEFT's. source: as it was given. note: what the user should know of how it was put together.
    padding: {id: stored rows behind the vocabulary}.
    """

    kind: NotRequired[str]
    config: NotRequired[Json]
    generation_config: NotRequired[Json]
    preprocessor: NotRequired[Json | None]
    adapter_config: NotRequired[Json]
    vision_tower: NotRequired[str]
    source: NotRequired[str]
    provenance: NotRequired[Provenance]
    note: NotRequired[str]
    padding: NotRequired[Mapping[str, np.ndarray]]

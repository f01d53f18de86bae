"""What a checkpoint holds besides its weights: needed for saving it, not by the model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NotRequired, TypedDict

import numpy as np

Json = dict[str, Any]  # an object from another program's file, whose keys the families check


class Provenance(TypedDict):
    """How a model trained here was made.

    stand_in: on drawn pictures. base_model: the hub's model at the beginning of its line, with revision, if it has one.
    hardware, versions: of the machine on which the training ended. code: of what the user wrote for it, sha256 of the
    file by name, as a loss "package.module:function". template: config.model.template, where it names one.
    """

    schema: NotRequired[int]
    source: NotRequired[str]
    source_sha256: NotRequired[str]
    config_hash: NotRequired[str]
    updates: NotRequired[int]
    base_model: NotRequired[str]
    hardware: NotRequired[str]
    versions: NotRequired[Mapping[str, str]]
    stand_in: NotRequired[bool]
    template: NotRequired[str]
    code: NotRequired[Mapping[str, str]]


class Extras(TypedDict):
    """kind: the layout that `config`, the original config.json, is written in. vision_tower: the tower's name.
    adapter_config: PEFT's. source: as it was given. note: what the user should know about how it was composed.
    padding: {id: stored rows beyond the vocabulary}. unused: names of tensors that were left out on purpose.
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
    unused: NotRequired[tuple[str, ...]]

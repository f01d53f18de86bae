"""Says of loaded adapters how many there are and if they do anything: a file that was saved before training, or read
under other names, has adapters that change nothing, and answers like its base."""

from __future__ import annotations

import numpy as np

from vlguard_jax import trees
from vlguard_jax.checkpoints import checkpoint


def told(model: checkpoint.Checkpoint) -> str:
    """One line about the adapters of a model, "" without any that stay apart. Every module that adapter_config.json
    names has one, or the model would not have been loaded; an adapter changes nothing where its A or its B is 0."""
    if model.lora is None:
        return ""
    flat = trees.flatten(model.params)
    count = idle = 0
    for id_, b in flat.items():
        if not id_.endswith(".lora_b"):
            continue
        pair = flat[f"{id_.removesuffix('.lora_b')}.lora_a"], b
        works = [all(np.any(np.asarray(x[layer])) for x in pair) for layer in range(b.shape[0])]
        count, idle = count + len(works), idle + works.count(False)
    if idle == count:
        return (
            f"THESE ADAPTERS CHANGE NOTHING: {count:,} modules matched of {count:,}, and in each A or B is 0; it is the"
            " base that answers"
        )
    changing = f", of which {idle:,} change nothing (A or B is 0)" if idle else ", all of which change their layer"
    return f"adapters: {count:,} modules matched of {count:,}{changing}"

"""Runs the arms one after the other and gathers their results."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from vlguard_jax import evaluate
from vlguard_jax import workdir as workdir_lib
from vlguard_jax.quickstart import arms
from vlguard_jax.quickstart import model
from vlguard_jax.quickstart import world
from vlguard_jax.reporting import tables
from vlguard_jax.training import loop


def tell(folder: Path, seed: int) -> bool:
    """Make the world and the model, train and evaluate every arm, write summary.json; False if a signal stopped the run.

    What is finished already is not done again.

    Raises:
      UserError: `folder` holds the run of another seed or version of the story.
    """
    folder.mkdir(parents=True, exist_ok=True)
    workdir_lib.claim(folder, arms.story(seed))
    if not (folder / "world").is_dir():
        print("drawing the world")
        world.write(folder / "world", seed, helpful=arms.HELPFUL, compliant=arms.COMPLIANT)
    if not arms.model_folder(folder, "").is_dir():
        model.write(arms.model_folder(folder, ""), seed, world.sentences())
    rows: list[dict[str, Any]] = []
    for arm in arms.ARMS:
        print(f"\n== {arm.name}")
        if not arms.model_folder(folder, arm.name).is_dir():
            result = loop.train(arms.train_config(arm, folder, seed), folder / arm.name)
            if not result.finished:
                return False
        rows += evaluate.run(arms.eval_config(arm, folder), folder / arm.name / "eval")
    workdir_lib.write_text(folder / "summary.json", json.dumps(rows, indent=1) + "\n")
    tables.show(rows)
    return True

"""vLLM as a rival of generate.py: asked in a process of its own, under the Python that has it."""

from __future__ import annotations

from collections.abc import Sequence
import dataclasses
import json
import pathlib
import subprocess
import tempfile
from typing import NamedTuple

import numpy as np

from benchmarks import generate_cases
from benchmarks import generate_run
from vlguard_jax import types
from vlguard_jax.checkpoints import checkpoint as checkpoint_lib
from vlguard_jax.checkpoints import load as load_lib
from vlguard_jax.checkpoints import save
from vlguard_jax.families.llama import config as llama_config

PROGRAM = pathlib.Path(__file__).parent / "generate_vllm.py"


class Absent(NamedTuple):
    """Why there are no figures."""

    reason: str


class Vllm:
    """vLLM of the environment of a `python`, with the model of a llava-hf folder."""

    def __init__(self, python: str, folder: pathlib.Path):
        self._python, self._folder = python, folder
        self._image = json.loads((folder / "config.json").read_text())["image_token_index"]

    def run(self, asked: Sequence[generate_cases.Question]) -> generate_run.Run | Absent:
        """Answer all; prompts without pictures by the decoder alone, which needs no torchvision."""
        if not self._python:
            return Absent("not installed")
        shown = [picture.arrays["images"][0] for one in asked for picture in one.prompt.pictures]
        with tempfile.TemporaryDirectory() as temporary:
            prompts, pictures, answers, decoder = (
                pathlib.Path(temporary) / name for name in ("prompts.json", "pictures.npy", "answers.json", "decoder")
            )
            prompts.write_text(json.dumps(self._asked(asked)))
            np.save(pictures, np.stack(shown) if shown else np.zeros((0, 1, 1, 3), np.uint8))
            folder = self._folder if shown else decoder
            if not shown:
                _decoder_alone(load_lib.load(str(self._folder)), decoder)
            command = [self._python, str(PROGRAM), *map(str, (folder, prompts, pictures, answers))]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            if done.returncode or not answers.exists():
                lines = [line for line in done.stderr.splitlines() if line.strip()]
                return Absent(f"fails: {lines[-1][:200] if lines else f'exit code {done.returncode}'}")
            found = json.loads(answers.read_text())
        given = {name: np.asarray(ids, np.int32) for name, ids in found["answers"].items()}
        return generate_run.Run("vllm", 0, tuple(asked), given, found["seconds"], found["cpu"], 0)

    def _asked(self, asked: Sequence[generate_cases.Question]) -> list[dict[str, object]]:
        made: list[dict[str, object]] = []
        for number, one in enumerate(asked):
            ids = np.where(one.prompt.ids == types.IMAGE_TOKEN, self._image, one.prompt.ids)
            picture = number if one.prompt.pictures else None  # all of a case have one, or none
            made.append({"id": one.prompt.id, "ids": ids.tolist(), "answer": one.answer, "picture": picture})
        return made


def _decoder_alone(loaded: checkpoint_lib.Checkpoint, folder: pathlib.Path) -> None:
    """The decoder as a Llama folder."""
    config = llama_config.LlamaConfig(text=loaded.config.text)
    save.save_hf(dataclasses.replace(loaded, config=config, params={"text": loaded.params["text"]}), folder)

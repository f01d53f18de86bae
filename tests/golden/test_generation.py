"""Greedy answers equal the reference's: ids and text, through VLGuard's own path and the plain one."""

import json
import pathlib

import numpy as np
import pytest

from tests.golden import reference
from vlguard_jax import config
from vlguard_jax import types
from vlguard_jax.families import family
from vlguard_jax.families.chat import tokenizer
from vlguard_jax.generation import engine


def _prompt(golden: pathlib.Path, index: int, item: dict, sizes: family.Config) -> types.Prompt:
    ids = np.asarray(item["input_ids"], np.int32)
    has_image = types.IMAGE_TOKEN in item["input_ids"]
    pictures = (reference.picture(golden, item["image"], item["image_mode"], sizes),) if has_image else ()
    return types.Prompt(str(index), ids, pictures)


@pytest.mark.parity
@pytest.mark.parametrize("batch_size", [1, 5])
def test_answers_are_identical(golden: pathlib.Path, batch_size: int) -> None:
    files = sorted(golden.glob("generations-*.json"))
    assert files, "no recorded generations"
    for file in files:
        recorded = json.loads(file.read_text())
        checkpoint = reference.load(golden, "liuhaotian-" + file.stem.split("-", 1)[1])
        words = tokenizer.load_tokenizer(checkpoint.tokenizer_folder)
        items = list(enumerate(recorded["items"]))
        for path in sorted({item["path"] for _, item in items}):
            chosen = [(i, item) for i, item in items if item["path"] == path]
            min_new = recorded["settings"]["min_new_tokens_vlguard"] if path == "vlguard_eval" else 0
            settings = config.DecodeSettings(recorded["settings"]["max_new_tokens"], min_new, batch_size)
            generator = engine.Engine(
                checkpoint.config,
                checkpoint.params,
                settings=settings,
                precision=config.PrecisionSettings(compute="fp32"),
                stop_ids=words.stop_ids,
            )
            prompts = [_prompt(golden, i, item, checkpoint.config) for i, item in chosen]
            answers = {int(g.id): g for g in generator.generate(prompts)}
            assert sorted(answers) == [i for i, _ in chosen]
            for i, item in chosen:
                where = f"{file.name} item {i} ({path})"
                assert answers[i].ids.tolist() == item["new_ids"], where
                assert words.decode(answers[i].ids.tolist()) == item["text"], where
                stopped = item["new_ids"][-1] in words.stop_ids
                assert answers[i].finish_reason == ("stop" if stopped else "length"), where

"""Mixtures and steps of harmless conversations for the tests that show them."""

from __future__ import annotations

import pathlib
from typing import Any

from tests.data import stand
from vlguard_jax import config
from vlguard_jax.data import loader
from vlguard_jax.data import mixtures
from vlguard_jax.data import plan as plan_lib
from vlguard_jax.families.chat import templates
from vlguard_jax.preparing import batch_rows

MODEL = stand.sees()
ODD = 'fox <script>alert("x")</script> \x1b[31m &amp; é'


def data(folder: pathlib.Path, **settings: Any) -> config.DataSettings:
    """Two sources: `chats`, of which two thirds have one or two pictures, and `texts`, without any."""
    chats = []
    for i in range(6):
        images = tuple(f"dir/{i}{j}.png" for j in range(i % 3))
        first, second = (["<image>\n"] * len(images) + ["", ""])[:2]
        turns = (f"{first}fox {i}", "dog." * (i + 1), f"{second}and?", ODD if i == 5 else "lazy")
        chats.append(stand.record(*turns, images=images, id=f"c{i}"))
        for j, name in enumerate(images):
            stand.write_picture(folder / name, size=(30, 14), seed=10 * i + j)
    texts = [stand.record("quick" * (i + 1), "brown fox", id=f"t{i}") for i in range(3)]
    sources = {
        "chats": config.SourceSettings(path=stand.write_records(folder / "chats.json", chats), images=str(folder)),
        "texts": config.SourceSettings(path=stand.write_records(folder / "texts.json", texts)),
    }
    given = dict(
        order="sequential",
        batch_size=4,
        group_size=2,
        length_multiple=16,
        end_of_epoch="short",
        cache=str(folder / "cache"),
    )
    return config.DataSettings(**{"sources": sources, **given, **settings})


def build(folder: pathlib.Path, settings: config.DataSettings) -> mixtures.Mixture:
    tokenizer = stand.make_tokenizer(folder / "tokenizer", legacy=True)
    return mixtures.build(settings, tokenizer, templates.get_template("vicuna_v1"), MODEL)


def step(
    folder: pathlib.Path, number: int = 0, rows: int = 0, shards: int = 1, **settings: Any
) -> tuple[batch_rows.Step, mixtures.Mixture]:
    """A step as the loader makes it, taken apart."""
    chosen = data(folder, **settings)
    mixture = build(folder, chosen)
    plan = plan_lib.BatchPlan(mixture.index, chosen, 3, plan_lib.Layout(rows, shards))
    ((_, batch),) = loader.Loader(plan, mixture, start_step=number, stop_step=number + 1)
    return batch_rows.read(batch, number, plan.total_steps, plan, mixture), mixture

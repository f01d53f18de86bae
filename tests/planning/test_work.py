"""What a step holds, from an index and from assumed lengths."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from vlguard_jax import config
from vlguard_jax.data import index as index_lib
from vlguard_jax.data import plan as plan_lib
from vlguard_jax.families import family
from vlguard_jax.families import table
from vlguard_jax.families.llama import config as llama_config
from vlguard_jax.planning import work

MODEL = table.PRESETS["llava-v1.5-7b"]
PATCHES = 4


def index(lengths: list[int], pictures: list[int]) -> index_lib.SampleIndex:
    n = len(lengths)
    return index_lib.SampleIndex(
        length=np.array(lengths),
        pictures=np.array(pictures),
        units=np.array(pictures),
        slots=PATCHES * np.array(pictures),
        supervised=np.ones(n, np.int64),
        modality_length=np.array(lengths),
        ids=tuple(map(str, range(n))),
        source=np.zeros(n, np.int32),
        source_names=("s",),
    )


def test_by_hand():
    """Two steps of two conversations, padded to one shape."""
    data = config.DataSettings(batch_size=2, group_size=1, order="sequential", length_multiple=8, shapes=1)
    plan = plan_lib.BatchPlan(index([10, 20, 30, 4], [1, 0, 1, 1]), data, 0, plan_lib.Layout(shards=2))
    found = work.from_plan(plan, 2)
    assert (found.steps, found.shapes, found.conversations, found.rows, found.row_len, found.micro) == (
        2,
        1,
        2,
        2,
        32,
        1,
    )
    assert (found.tokens, found.squares) == (32.0, (10**2 + 20**2 + 30**2 + 4**2) / 2)
    assert (found.computed, found.computed_squares, found.pictures) == (64.0, 2 * 32.0**2, 1.5)
    assert found.room == family.Room(1, PATCHES) and found.unit_room == 2.0  # each of the two shards has room for one


def test_micro_batches():
    data = config.DataSettings(batch_size=4, group_size=1, order="sequential", length_multiple=8)
    plan = plan_lib.BatchPlan(index([8] * 8, [1] * 8), data, 0, plan_lib.Layout(rows=2, shards=2))
    found = work.from_plan(plan, 2)
    assert (found.rows, found.micro, found.unit_room, found.computed) == (2, 2, 4.0, 32.0)


def posthoc(**data) -> config.TrainConfig:
    sources = {"vlguard": config.SourceSettings(format="vlguard"), "mix": config.SourceSettings(count=5000)}
    settings = config.DataSettings(sources=sources, order="shuffle", **data)
    return config.TrainConfig(data=settings, optimizer=config.OptimizerSettings(epochs=3.0))


def test_assumed_steps_of_the_recipe():
    """7,000 conversations, 55 steps of 128 an epoch, 165 in all; mean length as assumed."""
    found = work.from_assumption(posthoc(mode="pack"), MODEL, 16)
    assert found.steps == 165 and found.rows % 16 == 0 and found.row_len % 128 == 0
    assert found.tokens / 128 == pytest.approx(832, rel=0.02) and 1.0 <= found.computed / found.tokens < 1.1
    assert found.pictures == pytest.approx(128 * (2000 + 5000 * 0.939) / 7000, rel=0.02)
    assert len(found.assumed) == 2 and all(note.startswith("lengths of ") for note in found.assumed)


def test_a_large_mixture_is_sampled():
    settings = posthoc(mode="pack")
    sources = {"mix": config.SourceSettings(), "vlguard": config.SourceSettings(format="vlguard", weight=0.5)}
    settings = dataclasses.replace(
        settings, data=dataclasses.replace(settings.data, sources=sources), optimizer=config.OptimizerSettings()
    )
    drawn, whole, _ = work.assumed_index(settings.data, MODEL)
    assert whole == 665_298 + 1_000 and len(drawn) == pytest.approx(work.SAMPLED, abs=2)
    assert work.from_assumption(settings, MODEL, 16).steps == -(-666_298 // 128)
    shorter = dataclasses.replace(settings, optimizer=config.OptimizerSettings(max_steps=7))
    assert work.from_assumption(shorter, MODEL, 16).steps == 7


def test_lengths_are_drawn_the_same_every_time_and_cut():
    first, second = (work.assumed_index(posthoc(max_len=700).data, MODEL)[0] for _ in range(2))
    assert np.array_equal(first.length, second.length) and first.length.max() == 700
    text_only = work.assumed_index(posthoc().data, llama_config.LlamaConfig(MODEL.text))[0]
    assert text_only.pictures.sum() == 0 and text_only.length.mean() < 400


def test_packing_computes_less_and_many_shards_more():
    few, padded, many = (
        work.from_assumption(posthoc(mode=mode), MODEL, shards)
        for mode, shards in (("pack", 16), ("pad", 16), ("pack", 256))
    )
    assert few.computed < padded.computed < many.computed  # 256 rows for 128 conversations

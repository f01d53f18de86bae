"""Packed equals unpacked: the same samples in the same step give the same loss and the same gradients, however they lie
in rows."""

import dataclasses
import functools
import itertools
import json
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.training import stand
from vlguard_jax import config
from vlguard_jax import trees
from vlguard_jax import types
from vlguard_jax.checkpoints import checkpoint as checkpoint_lib
from vlguard_jax.training import feed
from vlguard_jax.training import loop
from vlguard_jax.training import setup

COUNT, BATCH, GROUP, LAST = 72, 32, 8, 8  # conversations: in all, per step, per group, in the short last step
LENGTHS = {"llava": (140, 240), "llava_next": (240, 360)}  # max_len, which cuts the longest conversations; of a row
LOSS_CHUNK = 2**16  # bytes of logits
TOLERANCE = 1e-5  # relative, of the loss and of the norm of every gradient
NORMALIZATIONS = ("micro_batch", "tokens", "sample")
# devices, settings of the mesh, rows of a device program (0: the whole step)
LAYOUTS: dict[str, tuple[int, dict[str, int], int]] = {
    "one": (1, {}, 0),
    "one-accumulated": (1, {}, 4),
    "fsdp8": (8, {"fsdp": 8}, 0),
    "data4-fsdp2-accumulated": (8, {"data": 4, "fsdp": 2}, 8),
}


class Update(NamedTuple):
    """What one step gives, all from the same parameters: metrics, and the gradient of every trained tensor."""

    metrics: dict[str, Any]
    gradients: dict[str, np.ndarray]
    batch: types.Batch


@functools.cache
def _sources() -> dict[str, config.SourceSettings]:
    """Two sources: pictures and text, short answers and long ones."""
    folder = stand.folder()
    answers = [chat["conversations"][1]["value"] for chat in json.loads((folder / "chats.json").read_text())]
    made: dict[str, list[dict[str, Any]]] = {"chats": [], "notes": []}
    for i in range(COUNT):
        name = "notes" if i % 5 == 0 else "chats"
        pictures = [f"{k % stand.COUNT}.png" for k in range(i, i + 2) if k % 4][: i % 3]
        question = "<image>\n" * bool(pictures) + "what is the shape ? " * (1 + i % 4)
        turns = [
            {"from": "human", "value": question},
            {"from": "gpt", "value": answers[i % len(answers)] * (1 + i % 7 // 3)},
        ]
        if len(pictures) > 1:
            turns += [{"from": "human", "value": "<image>\nand this ?"}, {"from": "gpt", "value": "a blue square ."}]
        made[name].append({"id": f"{name}-{i}", "conversations": turns} | ({"image": pictures} if pictures else {}))
    for name, records in made.items():
        (folder / f"{name}-packing.json").write_text(json.dumps(records))
    return {
        name: config.SourceSettings(path=str(folder / f"{name}-packing.json"), images=str(folder / "pictures"))
        for name in made
    }


def _settings(mode: str, layout: str, lora: dict[str, Any], family: str) -> config.TrainConfig:
    _, mesh, rows = LAYOUTS[layout]
    max_len, max_row_len = LENGTHS[family]
    data = {
        "sources": _sources(),
        "mode": mode,
        "order": "shuffle",
        "end_of_epoch": "short",
        "max_len": max_len,
        "length_multiple": 16,
        "max_row_len": max_row_len,
        "batch_size": BATCH,
        "group_size": GROUP,
        "shapes": 1,
    }
    return stand.settings(
        model={"path": str(stand.folder() / stand.MODELS[family])},
        data=data,
        lora=lora,
        mesh=mesh,
        run={"rows": rows, "loss_chunk": LOSS_CHUNK},
        optimizer={"epochs": 1.0},
    )


def _start(settings: config.TrainConfig) -> checkpoint_lib.Checkpoint:
    """The stand's model; adapters are given a B, without which A has no gradient."""
    start = setup.load_model(settings)
    rng = np.random.default_rng(1)
    flat = trees.flatten(start.params)
    for path in sorted(flat):
        if path.endswith(".lora_b"):
            flat[path] = (0.02 * rng.standard_normal(flat[path].shape)).astype(np.float32)
    return dataclasses.replace(start, params=trees.unflatten(flat))


def _updates(settings: config.TrainConfig) -> dict[tuple[str, int], Update]:
    """Every step of the epoch under every normalization, through the real loader and the real step, each from the
    start."""
    start, found = _start(settings), {}
    program = None
    for normalization in NORMALIZATIONS:
        chosen = dataclasses.replace(settings, data=dataclasses.replace(settings.data, normalization=normalization))
        data = setup.load_data(chosen, start)
        program = program or setup.build_program(chosen, start, data.total_updates)
        for step, batch in loop._batches(chosen, data, program, 0):
            state = jax.tree.map(jnp.copy, program.state)  # the step consumes it
            state, metrics = program.step(state, program.frozen, program.reference, feed.to_device(batch, program.mesh))
            adam = next(part for part in state.opt_state if hasattr(part, "mu"))
            first = 1 - settings.optimizer.b1  # the first moment behind the first update is this much of the gradient
            gradients = {path: np.asarray(value, np.float64) / first for path, value in trees.flatten(adam.mu).items()}
            found[normalization, step] = Update(jax.device_get(metrics), gradients, batch)
    return found


@functools.cache
def _unpacked(rank: int, family: str) -> dict[tuple[str, int], Update]:
    return _updates(_settings("pad", "one", {"rank": rank, "dropout": 0.0}, family))


CASES = [("llava", "one"), ("llava", "data4-fsdp2-accumulated"), ("llava_next", "data4-fsdp2-accumulated")]
CASES += [
    pytest.param(*case, marks=pytest.mark.more)
    for case in (("llava", "one-accumulated"), ("llava", "fsdp8"), ("llava_next", "one"))
]


@pytest.mark.parity
@pytest.mark.parametrize("rank", [0, 4], ids=["full", "lora"])
@pytest.mark.parametrize("family,layout", CASES)
def test_packed_equals_unpacked(monkeypatch: pytest.MonkeyPatch, family: str, layout: str, rank: int) -> None:
    with monkeypatch.context() as patch:
        stand.use_devices(patch, 1)
        expected = _unpacked(rank, family)
    stand.use_devices(monkeypatch, LAYOUTS[layout][0])
    packed = _updates(_settings("pack", layout, {"rank": rank, "dropout": 0.0}, family))
    assert packed.keys() == expected.keys() and len(packed) == len(NORMALIZATIONS) * 3
    for where, update in packed.items():
        _check_case(update.batch, expected[where].batch, layout, LENGTHS[family][0], short=where[1] == 2)
        _compare(update, expected[where], f"{layout} {where}")


def _compare(ours: Update, expected: Update, where: str) -> None:
    for counted in (
        lambda batch: batch.segment_ids > 0,
        lambda batch: batch.loss_weight > 0,
        lambda batch: batch.source == 1,
    ):
        assert counted(ours.batch).sum() == counted(expected.batch).sum() > 0, where
    for name in ("loss", "grad_norm", "cross_entropy_by_source"):
        np.testing.assert_allclose(
            ours.metrics[name], expected.metrics[name], rtol=TOLERANCE, err_msg=f"{where}: {name}"
        )
    assert ours.gradients.keys() == expected.gradients.keys()
    for path, gradient in expected.gradients.items():
        size = np.linalg.norm(gradient)
        assert size > 0, f"{where}: {path} has no gradient, so it shows nothing"
        off = np.linalg.norm(ours.gradients[path] - gradient) / size
        assert off < TOLERANCE, f"{where}: {path}: {off}"


def _most(batch: types.Batch) -> int:
    """The most conversations in a row."""
    return max(len(np.setdiff1d(row, 0)) for row in batch.segment_ids.reshape(-1, batch.segment_ids.shape[-1]))


def _check_case(packed: types.Batch, unpacked: types.Batch, layout: str, max_len: int, short: bool) -> None:
    """The comparison is worth something: the rows hold several conversations, pictures and text, one cut, the layout is
    as asked."""
    assert unpacked.tokens.shape[:2] == (1, BATCH) and _most(unpacked) == 1
    assert int((unpacked.segment_ids.max(-1) > 0).sum()) == (LAST if short else BATCH)
    rows = LAYOUTS[layout][2]
    assert packed.tokens.shape[1] == (rows or packed.tokens.shape[1]) and (packed.tokens.shape[0] > 1) == bool(rows)
    assert packed.tokens.shape[0] * packed.tokens.shape[1] < BATCH and _most(packed) > 1
    if short:
        return
    lengths = (unpacked.segment_ids > 0).sum(-1)
    pictured = (unpacked.slot >= 0).any(-1)
    assert lengths.max() == max_len or max_len == LENGTHS["llava_next"][0], "one conversation of each step is cut"
    assert lengths.min() < max_len // 2, "others are short"
    assert pictured.any() and not pictured.all()
    mixed = [
        np.unique(row[ids > 0])
        for row, ids in zip(*(x.reshape(-1, x.shape[-1]) for x in (packed.slot >= 0, packed.segment_ids)), strict=True)
    ]
    assert any(len(kinds) == 2 for kinds in mixed)
    positions = LOSS_CHUNK // (4 * stand.VOCABULARY)
    chunks = []
    for micro_batch in range(packed.tokens.shape[0]):
        seen, ids = packed.loss_weight[micro_batch] > 0, packed.segment_ids[micro_batch]
        conversation = ids + (ids.max() + 1) * np.arange(len(ids))[:, None]
        for rows in np.split(np.arange(len(ids)), LAYOUTS[layout][0]):  # of a device
            supervised = conversation[rows][seen[rows]]
            chunks += [supervised[i : i + positions] for i in range(0, len(supervised), positions)]
    assert any(len(np.unique(chunk)) > 1 for chunk in chunks), (
        "a chunk of the loss holds the end of one conversation and the start of another"
    )
    if LAYOUTS[layout][0] == 1:
        assert any(one[-1] == following[0] for one, following in itertools.pairwise(chunks)), (
            "a chunk of the loss ends within a conversation"
        )


@pytest.mark.parametrize("family", LENGTHS)
def test_segments_do_not_see_each_other(monkeypatch: pytest.MonkeyPatch, family: str) -> None:
    """The hidden states of a conversation are the same whatever lies beside it in the row: attention, positions and
    pictures."""
    stand.use_devices(monkeypatch, 1)
    settings = _settings("pack", "one", {}, family)
    start = setup.load_model(settings)
    data = setup.load_data(settings, start)
    program = setup.build_program(settings, start, data.total_updates)
    _, batch = next(loop._batches(settings, data, program, 0))
    batch = jax.tree.map(lambda x: x[0], batch)
    row = int(np.argmax([len(np.unique(ids)) for ids in batch.segment_ids]))
    ids = batch.segment_ids[row]
    assert len(np.setdiff1d(ids, 0)) > 1
    hidden, params = jax.jit(program.model.hidden), jax.tree.map(np.asarray, start.params)  # read out of their files
    before = np.asarray(hidden(params, batch))[row]
    for segment in np.setdiff1d(ids, 0):
        tokens = batch.tokens.copy()
        tokens[row, ids == segment] = (tokens[row, ids == segment] + 7) % start.config.text.vocab_size
        after = np.asarray(hidden(params, batch._replace(tokens=tokens)))[row]
        np.testing.assert_array_equal(after[(ids != segment) & (ids > 0)], before[(ids != segment) & (ids > 0)])
        assert not np.array_equal(after[ids == segment], before[ids == segment])

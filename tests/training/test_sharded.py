"""Sharded equals single: the same five updates on one device and on meshes of eight, to rounding; and each program
compiles once."""

import jax
import numpy as np
import pytest

from tests.training import stand
from vlguard_jax import trees
from vlguard_jax.parallel import mesh as mesh_lib
from vlguard_jax.parallel import rules
from vlguard_jax.training import feed
from vlguard_jax.training import loop
from vlguard_jax.training import setup

UPDATES = 5
MESHES = {"fsdp8": (1, 8, 1), "fsdp4_tensor2": (1, 4, 2), "data2_fsdp2_tensor2": (2, 2, 2), "tensor2": (1, 1, 2)}


@pytest.fixture
def single(
    monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> tuple[list[float], dict[str, np.ndarray]]:
    """The run on one device, made once for all meshes."""
    case = request.getfixturevalue("rank"), request.getfixturevalue("family")
    if case not in _SINGLE:
        _SINGLE[case] = _run(monkeypatch, (1, 1, 1), *case)
    return _SINGLE[case]


_SINGLE: dict[tuple[int, str], tuple[list[float], dict[str, np.ndarray]]] = {}


def _run(
    monkeypatch: pytest.MonkeyPatch, sizes: tuple[int, int, int], rank: int, family: str
) -> tuple[list[float], dict[str, np.ndarray]]:
    """Losses and trained parameters of five updates; where the state lies, and how often it was compiled, is asserted
    on the way."""
    mesh = dict(zip(mesh_lib.AXES, sizes, strict=True))
    lora, run = {"rank": rank}, {"remat": "full", "loss_chunk": 2**16}
    model = {"path": str(stand.folder() / stand.MODELS[family])}
    settings = stand.settings(model=model, lora=lora, mesh=mesh, optimizer={"max_steps": UPDATES}, run=run)
    with monkeypatch.context() as patch:
        stand.use_devices(patch, int(np.prod(sizes)))
        start = setup.load_model(settings)
        data = setup.load_data(settings, start)
        program = setup.build_program(settings, start, data.total_updates)
        before, state, found = trees.flatten(jax.device_get(program.state.params)), program.state, []
        with feed.Feed(loop._batches(settings, data, program, 0), program.mesh) as batches:
            while (taken := batches.take()) is not None:
                state, metrics = program.step(state, program.frozen, program.reference, taken[1])
                found.append(float(metrics["loss"]))
    assert len(found) == UPDATES
    assert program.step._cache_size() == 1
    params = trees.flatten(state.params)
    places = trees.flatten(rules.shardings(start.config, start.lora, program.mesh))
    adam = next(s for s in state.opt_state if hasattr(s, "mu"))
    for path, value in params.items():
        for array in (value, trees.flatten(adam.mu)[path], trees.flatten(adam.nu)[path]):
            assert array.sharding.is_equivalent_to(places[path], value.ndim), path
        moved = np.linalg.norm(np.asarray(value) - before[path])
        assert moved > 1e-3 * np.linalg.norm(before[path]), f"{path} must move by more than what is compared"
    return found, {path: np.asarray(value) for path, value in params.items()}


OTHERS = [
    *((name, rank, "llava") for name in MESHES for rank in (0, 4) if (name, rank) != ("data2_fsdp2_tensor2", 0)),
    ("fsdp8", 4, "llava_next"),
]
CASES = [
    ("data2_fsdp2_tensor2", 0, "llava"),
    ("data2_fsdp2_tensor2", 0, "llava_next"),
    *(
        pytest.param(
            *case,
            marks=pytest.mark.more if "fsdp4_tensor2" in case or case[:2] == ("tensor2", 4) else pytest.mark.parity,
        )
        for case in OTHERS
    ),
]


@pytest.mark.parametrize("name,rank,family", CASES)
def test_sharded_equals_single(
    monkeypatch: pytest.MonkeyPatch, single: tuple, name: str, rank: int, family: str
) -> None:
    losses, params = single
    found, ours = _run(monkeypatch, MESHES[name], rank, family)
    np.testing.assert_allclose(found, losses, rtol=1e-5)
    for path, value in ours.items():
        off = np.linalg.norm(value - params[path]) / np.linalg.norm(params[path])
        assert off < 1e-5, f"{path}: {off}"

"""The step: accumulation, normalizations, precision, a user's loss, and what is skipped."""

import pathlib

import jax
import numpy as np
import pytest

from tests.training import stand
from vlguard_jax import errors
from vlguard_jax import trees
from vlguard_jax.checkpoints import load
from vlguard_jax.training import loop
from vlguard_jax.training import losses
from vlguard_jax.training import setup


def _final(workdir: pathlib.Path) -> dict[str, np.ndarray]:
    return trees.flatten(load.load(workdir / "model").params)


@pytest.fixture(autouse=True)
def one_device(monkeypatch: pytest.MonkeyPatch) -> None:
    stand.use_devices(monkeypatch, 1)


def _losses(workdir: pathlib.Path) -> list[float]:
    return [line["loss"] for line in stand.metrics(workdir)]


@pytest.mark.parity
@pytest.mark.parametrize("lora", [{}, {"rank": 4}], ids=["full", "lora"])
def test_accumulation_changes_nothing(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, lora: dict) -> None:
    run = {"export": "llava"}
    loop.train(stand.settings(lora=lora, run=run), tmp_path / "one")
    loop.train(stand.settings(lora=lora, run=run | {"rows": 2}), tmp_path / "accumulated")
    np.testing.assert_allclose(_losses(tmp_path / "accumulated"), _losses(tmp_path / "one"), rtol=1e-5)
    # Adam divides by the root of a second moment that may be of rounding size: compare the size of the difference.
    ours, theirs = _final(tmp_path / "accumulated"), _final(tmp_path / "one")
    for path, value in ours.items():
        off = np.linalg.norm(value - theirs[path]) / max(np.linalg.norm(theirs[path]), 1e-12)
        assert off < 1e-4, f"{path}: {off}"


def test_state_is_sharded_with_its_parameters(monkeypatch: pytest.MonkeyPatch) -> None:
    stand.use_devices(monkeypatch, 8)
    start = setup.load_model(stand.settings())
    program = setup.build_program(stand.settings(mesh={"fsdp": 8}), start, 6)
    adam = next(s for s in program.state.opt_state if hasattr(s, "mu"))
    params = trees.flatten(program.state.params)
    for moments in (adam.mu, adam.nu):
        for path, value in trees.flatten(moments).items():
            assert value.sharding == params[path].sharding, path
    kernel = params["text.layers.mlp.up_proj.kernel"]
    assert kernel.sharding.spec == jax.sharding.PartitionSpec(None, "fsdp", "tensor")
    assert kernel.addressable_shards[0].data.shape[1] == kernel.shape[1] // 8
    assert not any(path.startswith("vision.") for path in params)  # frozen: no moments


@pytest.mark.parametrize("normalization", ["micro_batch", "tokens", "sample"])
def test_normalization_is_what_it_says(tmp_path: pathlib.Path, normalization: str) -> None:
    """The first loss by hand, from the losses of single conversations."""
    settings = stand.settings(data={"normalization": normalization, "order": "sequential"}, optimizer={"max_steps": 1})
    loop.train(settings, tmp_path)
    start = setup.load_model(settings)
    data = setup.load_data(settings, start)
    program = setup.build_program(settings, start, data.total_updates)
    _, batch = next(loop._batches(settings, data, program, 0))
    one = jax.tree.map(lambda x: x[0], batch)

    def per_token(params, batch):
        return losses.token_cross_entropy(
            program.model.hidden(params, batch),
            program.model.head_kernel(params),
            batch.targets,
            2**16,
            program.model.execution.by_rows,
        )

    ce = np.asarray(jax.jit(per_token)(jax.tree.map(np.asarray, start.params), one))
    seen = one.loss_weight > 0
    sums, counts = (ce * seen).sum(1), seen.sum(1)
    groups = np.arange(8) // 4
    expected = {
        "tokens": sums.sum() / counts.sum(),
        "sample": np.mean(sums / counts),
        "micro_batch": np.mean([sums[groups == g].sum() / counts[groups == g].sum() for g in (0, 1)]),
    }
    np.testing.assert_allclose(_losses(tmp_path)[0], expected[normalization], rtol=1e-5)
    others = [v for k, v in expected.items() if k != normalization]
    assert all(abs(v - expected[normalization]) > 1e-4 for v in others), (
        "the conversations must tell the normalizations apart"
    )


def not_a_number(model, params, batch, extras):
    """A user's loss that breaks."""
    value, _ = losses.cross_entropy(model, params, batch, extras)
    return value * jax.numpy.nan, {}


@pytest.mark.parity
def test_only_non_finite_updates_are_skipped(tmp_path: pathlib.Path) -> None:
    settings = stand.settings(loss="tests.training.test_step:not_a_number", run={"export": "llava"})
    with pytest.raises(errors.UserError, match="all 6 updates were skipped"):
        loop.train(settings, tmp_path / "run")
    assert [line["skipped"] for line in stand.metrics(tmp_path / "run")] == [1.0] * 6
    assert not (tmp_path / "run" / "model").exists()
    start = setup.load_model(settings)
    data = setup.load_data(settings, start)
    program = setup.build_program(settings, start, data.total_updates)
    before = {path: np.asarray(value) for path, value in trees.flatten(program.state.params).items()}
    _, batch = next(loop._batches(settings, data, program, 0))
    state, _ = program.step(program.state, program.frozen, program.reference, batch)
    assert int(state.step) == 1
    for path, value in trees.flatten(state.params).items():
        np.testing.assert_array_equal(value, before[path], err_msg=path)


@pytest.mark.parity
def test_worked_example_of_a_users_loss(tmp_path: pathlib.Path) -> None:
    final = {}
    for weight in (0.0, 5.0):
        folder = tmp_path / str(weight)
        loop.train(stand.settings(loss="cross_entropy_with_kl", loss_args={"kl_weight": weight}), folder)
        lines = stand.metrics(folder)
        assert abs(lines[0]["kl"]) < 1e-6, "the first update is made at the reference itself"
        for line in lines:
            np.testing.assert_allclose(line["loss"], line["cross_entropy"] + weight * line["kl"], rtol=1e-5)
        final[weight] = lines[-1]["kl"]
    loop.train(stand.settings(), tmp_path / "plain")
    plain = [line["loss"] for line in stand.metrics(tmp_path / "plain")]
    np.testing.assert_allclose([line["cross_entropy"] for line in stand.metrics(tmp_path / "0.0")], plain, rtol=1e-5)
    assert 0 < final[5.0] < 0.8 * final[0.0], "the penalty must hold the model near its start"


@pytest.mark.parity
@pytest.mark.parametrize("lora", [{}, {"rank": 4, "dropout": 0.1}], ids=["full", "lora"])
def test_half_precision_as_the_recipes_have_it(tmp_path: pathlib.Path, lora: dict) -> None:
    """bf16 compute on fp32 masters and moments, frozen parameters in bf16: near the fp32 losses, and exported in
    bf16."""
    settings = stand.settings(
        lora=lora, precision={"compute": "bf16", "frozen": "bf16"}, run={"remat": "full", "export": "llava"}
    )
    program = setup.build_program(settings, setup.load_model(settings), 6)
    assert {x.dtype.name for x in jax.tree.leaves(program.state.params)} == {"float32"}
    assert {x.dtype.name for x in jax.tree.leaves(program.frozen)} == {"bfloat16"}
    loop.train(settings, tmp_path / "half")
    loop.train(stand.settings(lora=lora), tmp_path / "single")
    np.testing.assert_allclose(_losses(tmp_path / "half"), _losses(tmp_path / "single"), rtol=2e-2)
    assert {value.dtype.name for value in _final(tmp_path / "half").values()} == {"bfloat16"}

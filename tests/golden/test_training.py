"""Replaying the recorded runs: losses, gradient norms, learning rates and final parameters of every update."""

from collections.abc import Iterator
import json
import pathlib
import shutil
from typing import Any

import jax
import numpy as np
import pytest

from tests.golden import reference
from vlguard_jax import config
from vlguard_jax import types
from vlguard_jax.checkpoints import load
from vlguard_jax.checkpoints import torch_files
from vlguard_jax.parallel import mesh as mesh_lib
from vlguard_jax.training import feed
from vlguard_jax.training import loop
from vlguard_jax.training import losses
from vlguard_jax.training import optimizer
from vlguard_jax.training import program as program_lib
from vlguard_jax.training import setup
from vlguard_jax.training import step as step_lib

LOSS_TOLERANCE = 1e-4
NORM_TOLERANCE = 1e-3  # relative


def _settings(
    golden: pathlib.Path, run: dict[str, Any], folder: pathlib.Path, model: pathlib.Path
) -> config.TrainConfig:
    """The recorded arguments as our config."""
    a = run["arguments"]
    (folder / "items.json").write_text(json.dumps([{"id": item["name"], **item} for item in run["items"]]))
    (folder / "order.json").write_text(json.dumps(run["order"]))
    accumulation = a.get("gradient_accumulation_steps", 1)
    b1, b2 = run["adam"]["betas"]
    base = golden / run["model"]
    return config.TrainConfig(
        seed=a["seed"],
        model=config.ModelSettings(
            path=str(model), base="" if model == base else str(base), image_mode=a["image_aspect_ratio"]
        ),
        precision=config.PrecisionSettings("fp32", "fp32", "fp32"),
        data=config.DataSettings(
            sources={"items": config.SourceSettings(path=str(folder / "items.json"), images=str(golden / "images"))},
            max_len=a["model_max_length"],
            order="replay",
            replay=str(folder / "order.json"),
            batch_size=a["per_device_train_batch_size"] * accumulation,
            group_size=a["per_device_train_batch_size"],
            on_mismatch="reference",
            on_empty_group="zero",
            length_multiple=512,  # one shape, one compilation
        ),
        lora=config.LoraSettings(a.get("lora_r", 0), float(a.get("lora_alpha", 0)), float(a.get("lora_dropout", 0))),
        optimizer=config.OptimizerSettings(
            learning_rate=float(a["learning_rate"]),
            projector_learning_rate=float(a.get("mm_projector_lr", 0)),
            epochs=float(a["num_train_epochs"]),
            warmup_ratio=float(a["warmup_ratio"]),
            weight_decay=float(a["weight_decay"]),
            b1=b1,
            b2=b2,
            eps=run["adam"]["eps"],
            clip_norm=float(a.get("max_grad_norm", 0)),
        ),
        run=config.RunSettings(tensorboard=False, loss_chunk=2**20, export="peft" if a.get("lora_enable") else "llava"),
    )


def _runs(golden: pathlib.Path) -> list[pathlib.Path]:
    runs = sorted(path.parent for path in golden.glob("train/*/run.json"))
    assert runs, "no recorded runs"
    return runs


def _start(golden: pathlib.Path, recorded: pathlib.Path, run: dict[str, Any], folder: pathlib.Path) -> pathlib.Path:
    """The checkpoint a run starts from: the base, or a PEFT folder of the recorded initial adapters and the base's
    projector."""
    base = golden / run["model"]
    if not (recorded / "lora_init.safetensors").exists():
        return base
    adapter = folder / "adapter"
    adapter.mkdir()
    shutil.copy(recorded / "lora_init.safetensors", adapter / "adapter_model.safetensors")
    for name in ("adapter_config.json", "config.json"):
        shutil.copy(recorded / name, adapter / name)
    loaded = reference.load(golden, run["model"])
    arrays = {
        n: v for n, v in reference.named_tensors(loaded.params, loaded.config, None).items() if ".mm_projector." in n
    }
    torch_files.save_torch(adapter / "non_lora_trainables.bin", arrays)
    return adapter


def _updates(settings: config.TrainConfig) -> Iterator[tuple[program_lib.Program, step_lib.TrainState, types.Batch]]:
    """(program, state, batch) before each update, and after the last one with an empty batch."""
    start = setup.load_model(settings)
    data = setup.load_data(settings, start)
    program = setup.build_program(settings, start, data.total_updates)
    state = program.state
    for _, batch in loop._batches(settings, data, program, 0):
        placed = feed.to_device(batch, program.mesh)
        yield program, state, placed
        state, _ = program.step(state, program.frozen, program.reference, placed)
    yield program, state, None


def _check_update(
    update: dict[str, Any], micro: list[dict[str, Any]], value: float, grads: dict[str, np.ndarray], where: str
) -> None:
    losses_ = [0.0 if not m["tokens"] else m["loss"] for m in micro]
    np.testing.assert_allclose(value, np.mean(losses_), rtol=0, atol=LOSS_TOLERANCE, err_msg=f"{where}: loss")
    recorded = {reference.plain_name(name): norm for name, norm in update["grad_norms"].items()}
    assert set(grads) == set(recorded), where
    norms = {name: np.linalg.norm(value.astype(np.float64)) for name, value in grads.items()}
    for name, norm in recorded.items():
        np.testing.assert_allclose(
            norms[name], norm, rtol=NORM_TOLERANCE, atol=1e-6, err_msg=f"{where}: gradient of {name}"
        )
    total = np.sqrt(sum(norm**2 for norm in norms.values()))
    np.testing.assert_allclose(total, update["grad_norm"], rtol=NORM_TOLERANCE, err_msg=f"{where}: total gradient norm")


def _check_final(run: dict[str, Any], start: dict[str, np.ndarray], end: dict[str, np.ndarray], where: str) -> None:
    """Adam divides by the root of the second moment, so a gradient of rounding size moves its parameter by a whole
    learning
    rate: single values are held to a small part of the distance a parameter can go in the run, norms tightly."""
    final = {reference.plain_name(name): value for name, value in run["final"].items()}
    assert set(final) == set(end), where
    for name, recorded in final.items():
        change = end[name].astype(np.float64) - start[name].astype(np.float64)
        rates = [update["lrs"][-1 if ".mm_projector." in name else 0] for update in run["updates"]]
        at = f"{where}: {name}"
        np.testing.assert_allclose(
            np.linalg.norm(end[name].astype(np.float64)), recorded["norm"], rtol=1e-4, err_msg=at
        )
        np.testing.assert_allclose(np.linalg.norm(change), recorded["delta_norm"], rtol=2e-3, err_msg=at)
        np.testing.assert_allclose(np.abs(change).sum(), recorded["delta_abs_sum"], rtol=2e-3, err_msg=at)
        first = change.reshape(-1)[: len(recorded["delta_first"])]
        np.testing.assert_allclose(first, recorded["delta_first"], rtol=0, atol=0.02 * sum(rates), err_msg=at)


@pytest.mark.parity
def test_replayed_runs(golden: pathlib.Path, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one = mesh_lib.build(config.MeshSettings(), jax.devices()[:1])
    monkeypatch.setattr(mesh_lib, "build", lambda settings: one)
    for recorded in _runs(golden):
        run = reference.read(recorded / "run.json")
        folder = tmp_path / recorded.name
        folder.mkdir()
        settings = _settings(golden, run, folder, _start(golden, recorded, run, folder))
        per_update = run["arguments"].get("gradient_accumulation_steps", 1)
        started: dict[str, np.ndarray] = {}
        for i, (program, state, batch) in enumerate(_updates(settings)):
            lora = program.model.lora
            if i == 0:
                started = reference.named_tensors(jax.tree.map(np.array, state.params), program.model.config, lora)
                gradient = jax.jit(
                    jax.value_and_grad(
                        lambda trained, frozen, one, model=program.model: losses.cross_entropy(
                            model, step_lib.join(trained, frozen), one, losses.Extras({})
                        )[0]
                    )
                )
            if batch is None:
                assert i == run["updates_total"] == len(run["updates"])
                ended = reference.named_tensors(state.params, program.model.config, lora)
                _check_final(run, started, ended, recorded.name)
                _check_arrays(golden, recorded, run, ended)
                continue
            value, grads = gradient(state.params, program.frozen, jax.tree.map(lambda x: x[0], batch))
            micro = run["micro_batches"][i * per_update : (i + 1) * per_update]
            tensors = reference.named_tensors(grads, program.model.config, lora)
            _check_update(run["updates"][i], micro, float(value), tensors, f"{recorded.name} update {i}")


def _check_arrays(
    golden: pathlib.Path, recorded: pathlib.Path, run: dict[str, Any], ended: dict[str, np.ndarray]
) -> None:
    """Whole tensors: final.npz (or their first rows, where a name ends in [:n]); for LoRA the files the reference
    saved."""
    if (recorded / "adapter_model.safetensors").exists():
        saved = load.load(recorded, base=str(golden / run["model"]), dtype=np.float32)
        arrays = {
            n: v for n, v in reference.named_tensors(saved.params, saved.config, saved.lora).items() if n in ended
        }
        assert set(arrays) == set(ended)
    else:
        with np.load(recorded / "final.npz") as npz:
            arrays = {name: npz[name] for name in npz.files}
    assert arrays
    for key, value in arrays.items():
        name, _, rows = key.partition("[:")
        ours = ended[name][: int(rows[:-1])] if rows else ended[name]
        assert ours.shape == value.shape, key
        off = float(np.quantile(np.abs(ours - value), 0.999))
        assert off <= 2e-5, f"{recorded.name} {key}: {off}"


def test_learning_rates(golden: pathlib.Path) -> None:
    for case in reference.read(golden / "lr_schedule.json"):
        factor = optimizer.cosine_factor(case["updates"], case["warmup_ratio"])
        ours = [float(factor(np.int32(u))) for u in range(case["updates"])]
        np.testing.assert_allclose(ours, case["factors"], rtol=0, atol=1e-6)
    for recorded in _runs(golden):
        run = reference.read(recorded / "run.json")
        a = run["arguments"]
        factor = optimizer.cosine_factor(run["updates_total"], a["warmup_ratio"])
        peaks = {a["learning_rate"], a.get("mm_projector_lr") or a["learning_rate"]}
        for u, update in enumerate(run["updates"]):
            expected = sorted(peak * float(factor(np.int32(u))) for peak in peaks)
            np.testing.assert_allclose(sorted(set(update["lrs"])), sorted(set(expected)), rtol=1e-5, atol=1e-12)

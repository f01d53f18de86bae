"""Probes of trainings in bf16 and with adapters: the training does not notice, and they answer as the written model."""

from __future__ import annotations

import pathlib
from typing import Any

import pytest

from tests.training import probing
from tests.training import stand
from vlguard_jax import config
from vlguard_jax.safety import from_checkpoint
from vlguard_jax.training import loop

pytestmark = pytest.mark.parity

KINDS: dict[str, dict[str, Any]] = {
    "full-bf16": {"precision": {"compute": "bf16", "frozen": "bf16"}, "run": {"export": "llava"}},
    "lora": {"lora": {"rank": 4, "dropout": 0.3}, "run": {"export": "peft"}},
    "lora-bf16": {
        "lora": {"rank": 4, "dropout": 0.3},
        "precision": {"compute": "bf16", "frozen": "bf16"},
        "run": {"export": "peft"},
    },
}


@pytest.mark.parametrize(
    "kind", [pytest.param(kind, marks=pytest.mark.more if kind.endswith("bf16") else []) for kind in KINDS]
)
def test_the_training_does_not_notice(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    stand.use_devices(monkeypatch, 1)
    changes = KINDS[kind] | {"optimizer": {"max_steps": 4}}
    loop.train(stand.settings(**changes), tmp_path / "without")
    loop.train(stand.settings(probe=probing.probe(), **changes), tmp_path / "with")
    ours, theirs = stand.metrics(tmp_path / "with"), stand.metrics(tmp_path / "without")
    assert ours == theirs and len(ours) == 4
    weights = [path.name for path in (tmp_path / "without/model").iterdir() if path.suffix in (".safetensors", ".bin")]
    assert weights
    for name in weights:
        assert (tmp_path / "with/model" / name).read_bytes() == (tmp_path / "without/model" / name).read_bytes()
    compute = changes.get("precision", {}).get("compute", "fp32")
    settings = config.EvalConfig(
        model=config.ModelSettings(
            str(tmp_path / "with/model"), base=str(stand.folder() / "init") if "lora" in changes else ""
        ),
        precision=config.EvalPrecisionSettings(compute),
        benchmark=config.BenchmarkSettings("vlguard_like", str(probing.benchmark())),
        decode=config.DecodeSettings(max_new_tokens=4, batch_size=8),
    )
    from_checkpoint.evaluate(settings, tmp_path / "evaluated", quiet=True)
    assert probing.answers(tmp_path / "with/probe/4/tiny") == probing.answers(tmp_path / "evaluated")

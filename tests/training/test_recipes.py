"""The shipped training configs hold the paper's hyperparameters (the paper's Table 7 and A.1, LLaVA's scripts/v1_5)."""

import ast
import importlib.util
import pathlib
import re

import numpy as np
import pytest

from vlguard_jax import config
from vlguard_jax import errors
from vlguard_jax.data import index as index_lib
from vlguard_jax.data import plan as plan_lib
from vlguard_jax.families import table
from vlguard_jax.planning import models

CONFIGS = sorted((pathlib.Path(__file__).parents[2] / "configs" / "train").glob("*.py"))
PAPER = {  # (regime, LoRA): learning rate, projector's, epochs
    ("posthoc", False): (1e-5, 0.0, 3.0),
    ("posthoc", True): (2e-4, 2e-5, 3.0),
    ("mixed", False): (2e-5, 0.0, 1.0),
    ("mixed", True): (2e-4, 2e-5, 1.0),
}


def _load(path: pathlib.Path, *argument: str) -> config.TrainConfig:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    made = module.get_config(*argument)
    if not made.data.sources:  # own_data.py: the user names them
        made.data.sources = {"mine": config.source(path="mine.json")}
    return config.resolve(made, config.TrainConfig)


@pytest.mark.parametrize("path", CONFIGS, ids=lambda p: p.stem)
def test_config_resolves_and_names_its_command(path: pathlib.Path) -> None:
    settings = _load(path)
    assert (settings.data.batch_size, settings.data.group_size, settings.data.normalization) == (128, 16, "micro_batch")
    model = models.resolve(settings.model, "" if settings.model.path else "7b").config  # the rehearsal names none
    assert (settings.data.order, settings.data.end_of_epoch) == ("modality_length", "reference")
    longest, mode = (4096, "anyres") if re.search("v16|next", path.stem) else (2048, "pad")
    assert (settings.data.max_len or table.of(model).max_len) == longest
    template = "mistral_instruct" if "mistral" in path.stem else "vicuna_v1"
    assert settings.model.template == "auto" and table.of(model).templates(model)[0] == template
    assert table.image_mode(model, settings.model.image_mode) == mode
    o = settings.optimizer
    assert (o.warmup_ratio, o.weight_decay, o.b1, o.b2, o.eps, o.clip_norm) == (0.03, 0.0, 0.9, 0.999, 1e-8, 0.0)
    assert f"--config configs/train/{path.name}" in (ast.get_docstring(ast.parse(path.read_text())) or "")


@pytest.mark.parametrize("size", ["7b", "13b"])
@pytest.mark.parametrize("regime,lora", PAPER)
@pytest.mark.parametrize("model", ["llava_v15", "llava_v16_vicuna"])
def test_papers_hyperparameters(model: str, size: str, regime: str, lora: bool) -> None:
    (path,) = [p for p in CONFIGS if p.stem == f"{model}_{size}_{regime}{'_lora' if lora else ''}"]
    settings = _load(path)
    assert settings.model.family == ("llava_next" if model != "llava_v15" and regime == "mixed" else "")
    o = settings.optimizer
    assert (o.learning_rate, o.projector_learning_rate, o.epochs) == PAPER[regime, lora]
    assert (settings.lora.rank, settings.lora.alpha, settings.lora.dropout) == (
        (128, 256.0, 0.05) if lora else (0, 256.0, 0.05)
    )
    sources = settings.data.sources
    assert set(sources) == {"vlguard", "llava_mix"} and sources["vlguard"].format == "vlguard"
    assert sources["llava_mix"].count == (5000 if regime == "posthoc" else 0)
    assert size in settings.model.path and bool(settings.model.projector) == (regime == "mixed")


def test_ablations_of_the_paper() -> None:
    """Tables 3 and 4: other helpful data, other safety data."""
    found = {path.stem: _load(path).data.sources for path in CONFIGS if path.stem.startswith("llava_v15_7b_posthoc_")}
    alpaca, text = found["llava_v15_7b_posthoc_alpaca"], found["llava_v15_7b_posthoc_text_safety"]
    assert {name: (s.format, s.count) for name, s in alpaca.items()} == {
        "vlguard": ("vlguard", 0),
        "alpaca": ("alpaca", 5000),
    }
    assert {name: (s.format, s.count) for name, s in text.items()} == {
        "text_safety": ("alpaca", 0),
        "llava_mix": ("llava", 5000),
    }
    clean = _load(next(p for p in CONFIGS if p.stem == "llava_v15_7b_clean"))
    assert clean.data.sources["llava_mix"].expect == 665_298


def test_posthoc_is_165_updates() -> None:
    """2,000 + 5,000 conversations in batches of 128: 55 updates an epoch with the reference's refill, 165 in 3."""
    count = 7000
    ones = np.full(count, 9, np.int64)
    index = index_lib.SampleIndex(
        ones,
        ones * 0 + 1,
        ones * 0 + 1,
        ones * 0 + 1,
        ones,
        ones,
        tuple(map(str, range(count))),
        np.zeros(count, np.int32),
        ("x",),
    )
    settings = _load(next(p for p in CONFIGS if p.stem == "llava_v15_7b_posthoc"))
    plan = plan_lib.BatchPlan(index, settings.data, settings.seed, epochs=settings.optimizer.epochs)
    assert (plan.steps_per_epoch, plan.total_steps) == (55, 165)
    assert len(plan[54].samples) == 128 and len(np.unique(plan[54].groups)) == 8


def test_rehearsal_takes_one_of_two() -> None:
    path = next(p for p in CONFIGS if p.stem == "rehearsal")
    assert _load(path, "lora").lora.rank == 128 and _load(path, "full").lora.rank == 0
    with pytest.raises(errors.UserError, match="did you mean 'lora'"):
        _load(path, "lra")

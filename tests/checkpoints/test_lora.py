"""Adapter settings and merging."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import pytest

from vlguard_jax import errors
from vlguard_jax.checkpoints import lora
from vlguard_jax.models import config as model_config

PEFT: dict[str, Any] = {"peft_type": "LORA", "r": 4, "lora_alpha": 6, "target_modules": ["v_proj", "up_proj"], "lora_dropout": 0.05}


def test_settings() -> None:
    assert lora.from_peft(PEFT, "x") == model_config.LoraConfig(4, 6.0, 0.05, ("v", "up"))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"peft_type": "IA3"}, "peft_type='IA3' is not supported"),
        ({"use_dora": True}, "use_dora=True is not supported"),
        ({"use_rslora": True}, "use_rslora=True"),
        ({"modules_to_save": ["lm_head"]}, r"modules_to_save=\['lm_head'\]"),
        ({"rank_pattern": {"q_proj": 2}}, "rank_pattern="),
        ({"bias": "all"}, "bias='all'"),
        ({"target_modules": "all-linear"}, "target_modules='all-linear'"),
        ({"target_modules": ["q_proj", "lm_head"]}, "target_modules="),
        ({"r": 0}, "r=0 must be a positive whole number"),
    ],
)
def test_other_arithmetic_is_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(errors.UserError, match=rf"adapter_config\.json: {message}"):
        lora.from_peft(PEFT | change, "adapter_config.json")


@pytest.mark.parametrize("dtype", [np.float32, np.float16, ml_dtypes.bfloat16])
def test_merge(dtype: type) -> None:
    rng = np.random.default_rng(0)
    kernel = rng.normal(size=(3, 5, 7)).astype(dtype)
    a, b = rng.normal(size=(3, 5, 2)).astype(np.float32), rng.normal(size=(3, 2, 7)).astype(np.float32)
    params = {"text": {"layers": {"mlp": {"up": {"kernel": kernel, "lora_a": a, "lora_b": b}}}, "norm": {"scale": np.ones(5)}}}
    before = kernel.copy()
    merged = lora.merge_lora(params, model_config.LoraConfig(2, 3.0, 0.1, ("up",)))
    found = merged["text"]["layers"]["mlp"]["up"]
    assert found.keys() == {"kernel"} and found["kernel"].dtype == dtype
    exact = before.astype(np.float64) + 1.5 * np.einsum("lir,lro->lio", a.astype(np.float64), b)
    np.testing.assert_allclose(found["kernel"].astype(np.float64), exact, rtol=float(ml_dtypes.finfo(dtype).eps), atol=1e-6)
    np.testing.assert_array_equal(kernel, before)  # the tree that came in is left alone
    with pytest.raises(ValueError, match="an adapter without its LoraConfig"):
        lora.merge_lora(params, None)

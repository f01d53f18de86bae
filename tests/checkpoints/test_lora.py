"""Merging adapters."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest

from tests.checkpoints import made
from vlguard_jax import trees
from vlguard_jax.checkpoints import lora
from vlguard_jax.families.blocks import configs


@pytest.mark.parametrize("dtype", [np.float32, np.float16, ml_dtypes.bfloat16])
def test_merge(dtype: type) -> None:
    rng = np.random.default_rng(0)
    kernel = rng.normal(size=(3, 5, 7)).astype(dtype)
    a, b = rng.normal(size=(3, 5, 2)).astype(np.float32), rng.normal(size=(3, 2, 7)).astype(np.float32)
    params = {
        "text": {
            "layers": {"mlp": {"up_proj": {"kernel": kernel, "lora_a": a, "lora_b": b}}},
            "norm": {"scale": np.ones(5)},
        }
    }
    before = kernel.copy()
    merged = lora.merge_lora(params, configs.LoraConfig(2, 3.0, 0.1, ("up_proj",)))
    found = merged["text"]["layers"]["mlp"]["up_proj"]
    assert found.keys() == {"kernel"} and found["kernel"].dtype == dtype
    exact = before.astype(np.float64) + 1.5 * np.einsum("lir,lro->lio", a.astype(np.float64), b)
    np.testing.assert_allclose(
        found["kernel"].astype(np.float64), exact, rtol=float(ml_dtypes.finfo(dtype).eps), atol=1e-6
    )
    np.testing.assert_array_equal(kernel, before)  # the tree that came in is left alone
    with pytest.raises(ValueError, match="an adapter without its LoraConfig"):
        lora.merge_lora(params, None)


def test_merged_when_it_is_asked_for() -> None:
    """Nothing is computed before; then a layer has the bits of the model that is merged at once."""
    model = made.model(made.LORA)
    late, whole = (trees.flatten(merged.params) for merged in (lora.merge_late(model), lora.merge(model)))
    assert late.keys() == whole.keys() == trees.flatten(made.model().params).keys()
    computed = {path for path, value in late.items() if isinstance(value, lora.Merged)}
    assert computed == {"text.layers.attention.q_proj.kernel", "text.layers.mlp.down_proj.kernel"}
    for path in computed:
        assert (late[path].shape, late[path].dtype) == (whole[path].shape, whole[path].dtype)
        for i, layer in enumerate(whole[path]):
            np.testing.assert_array_equal(late[path][i], layer)
    assert lora.merge_late(model).lora is None and lora.merge_late(made.model()).lora is None

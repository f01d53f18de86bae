"""AdamW, decay groups, group learning rates, clipping and the schedule against PyTorch."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import torch
import transformers

from vlguard_jax import config
from vlguard_jax import trees
from vlguard_jax.training import optimizer

SETTINGS = config.OptimizerSettings(learning_rate=3e-3, projector_learning_rate=1e-2, weight_decay=0.1, clip_norm=0.7)
SHAPES = {
    "text.layers.mlp.up_proj.kernel": (2, 4, 3),
    "text.layers.mlp_norm.scale": (2, 4),
    "text.norm.scale": (4,),
    "text.embed.embedding": (5, 4),
    "projector.fc1.kernel": (3, 4),
    "projector.fc1.bias": (4,),
}
STEPS = 9


def _torch_run(start: dict[str, np.ndarray], grads: list[dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    tensors = {name: torch.nn.Parameter(torch.tensor(value)) for name, value in start.items()}
    groups = []
    for name, tensor in tensors.items():
        rate = SETTINGS.projector_learning_rate if name.startswith("projector") else SETTINGS.learning_rate
        decay = 0.0 if name.endswith(("bias", "scale")) else SETTINGS.weight_decay
        groups.append({"params": [tensor], "lr": rate, "weight_decay": decay})
    adam = torch.optim.AdamW(groups, betas=(SETTINGS.b1, SETTINGS.b2), eps=SETTINGS.eps)
    schedule = transformers.get_cosine_schedule_with_warmup(adam, int(np.ceil(0.3 * STEPS)), STEPS)
    for grad in grads:
        for name, tensor in tensors.items():
            tensor.grad = torch.tensor(grad[name])
        torch.nn.utils.clip_grad_norm_(list(tensors.values()), SETTINGS.clip_norm)
        adam.step()
        schedule.step()
    return {name: tensor.detach().numpy() for name, tensor in tensors.items()}


def test_equals_torch() -> None:
    rng = np.random.default_rng(0)
    start = {name: rng.standard_normal(shape).astype(np.float32) for name, shape in SHAPES.items()}
    grads = [
        {name: rng.standard_normal(shape).astype(np.float32) for name, shape in SHAPES.items()} for _ in range(STEPS)
    ]
    tx = optimizer.build(dataclasses.replace(SETTINGS, warmup_ratio=0.3), STEPS)
    params = trees.unflatten({k: jnp.asarray(v) for k, v in start.items()})
    state = tx.init(params)
    first = None
    for grad in grads:
        updates, state = tx.update(trees.unflatten(grad), state, params)
        params = optax.apply_updates(params, updates)
        first = first or jax.tree.map(np.asarray, params)
    for name, value in trees.flatten(first).items():
        np.testing.assert_array_equal(value, start[name], err_msg=f"{name}: the first update has learning rate 0")
    expected = _torch_run(start, grads)
    for name, value in trees.flatten(params).items():
        np.testing.assert_allclose(value, expected[name], rtol=0, atol=2e-6, err_msg=name)


def test_clipping_can_be_off() -> None:
    """LLaVA's scripts/zero2.json and zero3.json name no `gradient_clipping`, so DeepSpeed clips nothing."""
    params = {"text": {"norm": {"scale": jnp.zeros(3)}}}
    huge = {"text": {"norm": {"scale": jnp.full(3, 1e3)}}}
    moments = []
    for clip in (0.0, 1.0):
        tx = optimizer.build(dataclasses.replace(SETTINGS, clip_norm=clip), STEPS)
        _, state = tx.update(huge, tx.init(params), params)
        moments.append(np.asarray(next(s for s in state if hasattr(s, "mu")).mu["text"]["norm"]["scale"]))
    np.testing.assert_allclose(moments[0], 100.0, rtol=1e-6)
    np.testing.assert_allclose(moments[1], 0.1 / np.sqrt(3), rtol=1e-5)

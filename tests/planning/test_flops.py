"""Parameters and operations against hand computation and against the tables of published formulas."""

from __future__ import annotations

import math

import pytest

from vlguard_jax import errors
from vlguard_jax.checkpoints import layouts
from vlguard_jax.families import table
from vlguard_jax.families.blocks import configs
from vlguard_jax.families.llama import config as llama_config
from vlguard_jax.families.llava import config as llava_config
from vlguard_jax.planning import flops

SMALL, LARGE = (table.PRESETS[name] for name in ("llava-v1.5-7b", "llava-v1.5-13b"))
LORA = configs.LoraConfig(rank=128, alpha=256.0, dropout=0.05)
TINY = llava_config.LlavaConfig(
    configs.TextConfig(97, 24, 3, 4, 2, 8, 40, 1e-5, 1e4),
    configs.VisionConfig(28, 14, 16, 3, 2, 32, 1e-5, "gelu"),
    "mlp2x_gelu",
)


@pytest.mark.parametrize(("model", "count"), [(SMALL, 6_738_415_616), (LARGE, 13_015_864_320)])
def test_published_counts(model, count):
    """Llama-2 7B and 13B."""
    assert flops.sizes(model).text == count


@pytest.mark.parametrize("model", [SMALL, LARGE, TINY])
@pytest.mark.parametrize("lora", [None, LORA])
def test_counts_are_those_of_the_parameter_tree(model, lora):
    found = flops.sizes(model, lora)
    tree = {path: math.prod(shape) for path, shape in layouts.tree_shapes(model, lora).items()}
    adapters = sum(size for path, size in tree.items() if path.endswith((".lora_a", ".lora_b")))
    by_part = {
        part: sum(size for path, size in tree.items() if path.startswith(part))
        for part in ("text.", "projector.", "vision.")
    }
    assert (found.text, found.adapters) == (by_part["text."] - adapters, adapters)
    assert (found.projector, found.tower) == (by_part["projector."], by_part["vision."])


def test_tied_embeddings_and_plain_language_models():
    text = configs.TextConfig(97, 24, 3, 4, 2, 8, 40, 1e-5, 1e4, tie_embeddings=True)
    plain = llama_config.LlamaConfig(text)
    found = flops.sizes(plain)
    assert (found.head, found.tower, found.projector) == (0, 0, 0)
    assert flops.forward(plain, 10, 100, 0).tower == 0


def test_forward_by_hand():
    """Two sequences of 3 and 5 tokens, one picture of 4 patches."""
    found = flops.forward(TINY, 8, 3**2 + 5**2, 1)
    layer = 24 * 32 + 2 * 24 * 16 + 32 * 24 + 3 * 24 * 40
    assert found.linear == 2 * 3 * layer * 8
    assert found.attention == 3 * (2 * 34 * 32)  # half of 4 t^2 H E
    assert found.head == 2 * 24 * 97 * 8
    assert found.projector == 2 * 4 * (16 * 24 + 24 * 24)
    # two of three layers, five positions
    assert found.tower == 2 * (2 * 5 * (4 * 16**2 + 2 * 16 * 32) + 4 * 25 * 16) + 2 * 4 * 3 * 14**2 * 16


# TFLOP a sample, from 2 x 6.476 G (12.688 G) a token, attention 2 T^2 d L, head, projector, CLIP-L/336 0.366 TFLOP.
@pytest.mark.parametrize(
    ("model", "lora", "tokens", "teraflops"),
    [
        (SMALL, None, 640, 26.1),
        (SMALL, None, 776, 31.7),
        (SMALL, None, 850, 34.7),
        (SMALL, LORA, 640, 18.9),
        (SMALL, LORA, 776, 22.9),
        (LARGE, None, 776, 61.0),
        (LARGE, None, 850, 66.9),
        (LARGE, LORA, 776, 43.4),
    ],
)
def test_training_sample(model, lora, tokens, teraflops):
    assert flops.training(model, lora, tokens, tokens**2, 1).total / 1e12 == pytest.approx(teraflops, rel=0.005)


@pytest.mark.parametrize(
    ("model", "lora", "samples", "rate", "seconds"),
    [
        (SMALL, None, 1000, 790, 40),
        (SMALL, None, 1000, 197, 161),
        (SMALL, None, 1000, 459, 69),
        (SMALL, None, 1000, 918, 34.5),
        (SMALL, LORA, 1000, 197, 116),
        (LARGE, None, 1000, 918, 66),
        (LARGE, LORA, 1000, 790, 55),
    ],
)
def test_floor_times(model, lora, samples, rate, seconds):
    """Samples of 776 tokens at a rate in TFLOP/s, nothing recomputed, nothing padded."""
    assert samples * flops.training(model, lora, 776, 776**2, 1).total / (rate * 1e12) == pytest.approx(
        seconds, rel=0.02
    )


def test_floor_hours_of_the_mixture():
    """624.6k samples with a picture (776 tokens), 40.7k and VLGuard's 3k text-only or short: 21.9 EFLOP full, 30.8
    hours of one v5e."""
    pictures, texts = 627_600, 40_700
    total = (
        pictures * flops.training(SMALL, None, 776, 776**2, 1).total
        + texts * flops.training(SMALL, None, 1200, 1200**2, 0).total
    )
    assert total == pytest.approx(21.9e18, rel=0.02) and total / 197e12 / 3600 == pytest.approx(30.8, rel=0.02)


def test_recomputation():
    """Full: the forward pass once more, but for each layer's last product; nothing where all is kept."""
    again = {name: flops.recomputed(TINY, None, policy, 8, 34).total for name, policy in flops.POLICIES.items()}
    whole = flops.forward(TINY, 8, 34, 0)
    assert again["none"] == again["minimal_with_context"] == 0
    assert again["minimal"] == whole.attention
    assert again["full"] == whole.linear + whole.attention - 2 * 3 * 24 * 40 * 8
    assert again["offload"] == whole.attention + 2 * 3 * (2 * 24 * 40) * 8
    assert flops.recomputed(TINY, LORA, flops.policy("full"), 8, 34).total > again["full"]


def test_policies():
    kept = {name: flops.per_token(SMALL.text, policy.kept) for name, policy in flops.POLICIES.items()}
    assert (
        kept["full"] == 4096
        and kept["none"] > kept["minimal_with_context"] > kept["minimal"] > kept["full"] > kept["offload"]
    )
    with pytest.raises(errors.UserError, match=r"config.run.remat='minimum'.*did you mean 'minimal'"):
        flops.policy("minimum")

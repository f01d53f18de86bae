"""The parity ladder: norm, rotary embedding, attention, layer, tower, projector and the whole model against
transformers' PyTorch models with random weights made in memory (MHA, GQA, llama3 scaling, tied head)."""

import dataclasses
import pathlib

from flax import nnx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
import transformers
from transformers.models.llama import modeling_llama

from tests.checkpoints import tiny
from tests.families import tiny as families_tiny
from vlguard_jax import types
from vlguard_jax.checkpoints import load
from vlguard_jax.families import functional
from vlguard_jax.families.blocks import attention
from vlguard_jax.families.blocks import cache as cache_lib
from vlguard_jax.families.blocks import clip
from vlguard_jax.families.blocks import configs
from vlguard_jax.families.blocks import decoder

SIMPLE, COMPLEX = 1e-5, 1e-4  # tolerances by policy: one operation, a whole stack
LONG = [0, 1, 17, 511, 2047, 4095, 30000, 131071]


@dataclasses.dataclass(frozen=True)
class Pair:
    """The same weights on both sides."""

    torch_model: transformers.LlavaForConditionalGeneration
    model: functional.Model
    params: functional.Params

    @property
    def text(self) -> configs.TextConfig:
        return self.model.config.text

    def block(self, layer: int) -> decoder.Block:
        """Decoder layer `layer` of ours."""
        graph, stacked = nnx.split(self.model._merged(self.params).text.layers)
        return nnx.merge(graph, jax.tree.map(lambda w: jnp.asarray(w)[layer], stacked))


@pytest.fixture(
    scope="module",
    params=[
        "gqa",
        *(pytest.param(name, marks=pytest.mark.parity) for name in ("llama3", "tied")),
        *(
            pytest.param(name, marks=pytest.mark.more)
            for name in sorted(tiny.VARIANTS.keys() - {"gqa", "llama3", "tied"})
        ),
    ],
)
def pair(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Pair:
    torch_model = tiny.llava(**tiny.VARIANTS[request.param]).eval()
    with torch.no_grad():
        generator = torch.Generator().manual_seed(5)
        for name, value in torch_model.named_parameters():  # norms and biases too, so that each of them matters
            if value.ndim == 1:
                value.add_(0.2 * torch.randn(value.shape, generator=generator))
            assert value.dtype == torch.float32, name
    loaded = load.load(tiny.save(torch_model, tmp_path_factory.mktemp("pair") / "model", "hub"))
    return Pair(torch_model, functional.Model(loaded.config, "fp32"), loaded.params)


def _random(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def _close(ours: jax.Array, theirs: torch.Tensor, tolerance: float) -> None:
    np.testing.assert_allclose(np.asarray(ours), theirs.detach().numpy(), rtol=0, atol=tolerance)


def test_norm(pair: Pair) -> None:
    x = _random(2, 7, pair.text.width)
    theirs = pair.torch_model.model.language_model.layers[1].post_attention_layernorm(torch.tensor(x))
    _close(pair.block(1).mlp_norm(jnp.asarray(x)), theirs, SIMPLE)


def test_rotary_embedding_at_long_positions(pair: Pair) -> None:
    positions = np.asarray([LONG], np.int32)
    q, k = (
        _random(1, len(LONG), h, pair.text.head_width, seed=h) for h in (pair.text.num_heads, pair.text.num_kv_heads)
    )
    rotary = pair.torch_model.model.language_model.rotary_emb
    cos, sin = rotary(torch.tensor(q), torch.tensor(positions))
    theirs = modeling_llama.apply_rotary_pos_emb(
        torch.tensor(q).transpose(1, 2), torch.tensor(k).transpose(1, 2), cos, sin
    )
    inverse = decoder.inverse_frequencies(pair.text)
    np.testing.assert_allclose(np.asarray(inverse), rotary.inv_freq.numpy(), rtol=1e-6)
    for ours, other in zip((q, k), theirs, strict=True):
        # An angle of 1e5 has a rounding step of 8e-3 in fp32; both sides round the same product.
        rotated = decoder.rotate(jnp.asarray(ours), jnp.asarray(positions), inverse)
        _close(rotated[:, :-2], other.transpose(1, 2)[:, :-2], COMPLEX)
        _close(rotated, other.transpose(1, 2), 5e-2)


def _mask(length: int) -> torch.Tensor:
    return torch.full((length, length), torch.finfo(torch.float32).min).triu(1)[None, None]


def test_attention_and_layer(pair: Pair) -> None:
    length = 9
    x, positions = _random(1, length, pair.text.width), np.arange(3, 3 + length, dtype=np.int32)[None]
    language = pair.torch_model.model.language_model
    layer = language.layers[0]
    rotary = language.rotary_emb(torch.tensor(x), torch.tensor(positions))
    block = pair.block(0)
    with pair.model.precision():
        q, k, v = block.attention.project(jnp.asarray(x), jnp.asarray(positions), None)
        ours = block.attention.output(attention.causal_xla(q, k, v, jnp.ones((1, length), jnp.int32)), None)
        whole, _ = block(jnp.asarray(x), jnp.asarray(positions), jnp.ones((1, length), jnp.int32), attention.causal_xla)
    theirs = layer.self_attn(hidden_states=torch.tensor(x), position_embeddings=rotary, attention_mask=_mask(length))[0]
    _close(ours, theirs, SIMPLE)
    out = layer(torch.tensor(x), position_embeddings=rotary, attention_mask=_mask(length))
    _close(whole, out[0] if isinstance(out, tuple) else out, SIMPLE)


def test_tower_and_projector(pair: Pair) -> None:
    side = pair.model.config.vision.image_size
    images = np.random.default_rng(3).integers(0, 256, (2, side, side, 3), dtype=np.uint8)
    pixels = np.asarray(clip.normalize(jnp.asarray(images), pair.model.config.vision))
    tower = pair.torch_model.model.vision_tower
    states = tower(torch.tensor(pixels.transpose(0, 3, 1, 2)), output_hidden_states=True).hidden_states
    features = states[pair.model.config.vision.feature_layer][:, 1:]
    with pair.model.precision():
        ours = pair.model._merged(pair.params).vision(jnp.asarray(pixels))
    _close(ours, features, COMPLEX)
    projected = pair.torch_model.model.multi_modal_projector(features)
    _close(pair.model.features(pair.params, {"images": jnp.asarray(images)}), projected.flatten(0, 1), COMPLEX)


def _whole_inputs(pair: Pair) -> tuple[types.Batch, torch.Tensor, torch.Tensor]:
    vision = pair.model.config.vision
    rng = np.random.default_rng(4)
    patches, before, after = vision.num_patches, 3, 12
    length = before + patches + after
    tokens = rng.integers(3, pair.text.vocab_size, (2, length)).astype(np.int32)
    slot = np.full((2, length), -1, np.int32)
    slot[:, before : before + patches] = np.arange(2)[:, None] * patches + np.arange(patches)
    images = rng.integers(0, 256, (2, vision.image_size, vision.image_size, 3), dtype=np.uint8)
    positions = np.broadcast_to(np.arange(length, dtype=np.int32), tokens.shape)
    targets = np.roll(tokens, -1, 1)
    weights = np.full(tokens.shape, 1.0 / (2 * (length - 1)), np.float32)
    weights[:, -1] = 0.0
    pictures, segments, source = {"images": images}, np.ones_like(tokens), np.zeros_like(tokens)
    batch = types.Batch(tokens, targets, weights, segments, positions, pictures, slot, source)
    ids = torch.tensor(np.where(slot >= 0, pair.torch_model.config.image_token_index, tokens)).long()
    pixels = np.asarray(clip.normalize(jnp.asarray(images), vision)).transpose(0, 3, 1, 2)
    return jax.tree.map(jnp.asarray, batch), ids, torch.tensor(np.ascontiguousarray(pixels))


def test_whole_model(pair: Pair) -> None:
    batch, ids, pixels = _whole_inputs(pair)
    with torch.no_grad():
        theirs = pair.torch_model(input_ids=ids, pixel_values=pixels).logits[..., : pair.text.vocab_size]
    _close(jax.jit(pair.model.logits)(pair.params, batch), theirs, COMPLEX)


def _split(pair: Pair) -> functional.Params:
    """The parameters as generation takes them."""
    return functional.with_layers(pair.params, jax.tree.map(list, pair.params["text"]["layers"]))


def test_prefill_and_decode_equal_one_forward(pair: Pair) -> None:
    """The KV cache gives what the whole forward pass gives, for rows of different length."""
    batch, _, _ = _whole_inputs(pair)
    whole = np.asarray(jax.jit(pair.model.logits)(pair.params, batch))
    total = batch.tokens.shape[1]
    last = jnp.asarray([total - 4, total - 7])
    kept = jnp.arange(total)[None] <= last[:, None]
    prompt = batch._replace(tokens=jnp.where(kept, batch.tokens, 0), segment_ids=kept.astype(jnp.int32))
    logits, cache = jax.jit(lambda p, b, at: families_tiny.prefill(pair.model, p, b, at, total + 2))(
        _split(pair), prompt, last
    )
    decode = jax.jit(pair.model.decode)
    for step in range(3):
        _close(logits, torch.tensor(whole[np.arange(2), np.asarray(last) + step]), COMPLEX)
        token = batch.tokens[jnp.arange(2), last + step + 1]
        logits, cache = decode(_split(pair), token, last + step + 1, last + step + 1, cache)


@pytest.mark.parametrize("what", ["logits", "gradient", "prefill", "decode"])
def test_fp32_is_lowered_at_highest_precision(pair: Pair, what: str) -> None:
    """The platforms' defaults round fp32 products to bf16 or TF32, so the program must say otherwise, backward pass
    included."""
    batch, _, _ = _whole_inputs(pair)
    rows = batch.tokens.shape[0]
    one = jnp.zeros((rows, pair.text.num_kv_heads, 8, pair.text.head_width))
    cache = (cache_lib.LayerCache(one, one),) * pair.text.num_layers
    at = jnp.zeros((rows,), jnp.int32)
    programs = {
        "logits": lambda: jax.jit(pair.model.logits).lower(pair.params, batch),
        "gradient": lambda: jax.jit(jax.grad(lambda p: _loss(pair.model, p, batch))).lower(pair.params),
        "prefill": lambda: jax.jit(lambda p, b: families_tiny.prefill(pair.model, p, b, at, 64)).lower(
            _split(pair), batch
        ),
        "decode": lambda: jax.jit(pair.model.decode).lower(_split(pair), at, at, at, cache),
    }
    products = [line for line in programs[what]().as_text().splitlines() if "stablehlo.dot_general" in line]
    assert products
    for line in products:
        assert "precision = [HIGHEST, HIGHEST]" in line, line


def _loss(model: functional.Model, params: functional.Params, batch: types.Batch) -> jax.Array:
    from vlguard_jax.training import losses

    return losses.cross_entropy(model, params, batch, losses.Extras({}, chunk=2**12))[0]


def test_half_precision_does_not_ask_for_highest(pair: Pair) -> None:
    model = dataclasses.replace(pair.model, compute="bf16")
    batch, _, _ = _whole_inputs(pair)
    assert "HIGHEST" not in jax.jit(model.logits).lower(pair.params, batch).as_text()


def test_checkpoint_of_the_pair_is_the_one_in_memory(pair: Pair, tmp_path: pathlib.Path) -> None:
    """The ladder compares equal weights: what was loaded goes back bit for bit."""
    from vlguard_jax.checkpoints import save

    loaded = load.load(tiny.save(pair.torch_model, tmp_path / "model", "hub"))
    save.save_hf(loaded, tmp_path / "again")
    back = transformers.LlavaForConditionalGeneration.from_pretrained(tmp_path / "again")
    for name, value in pair.torch_model.state_dict().items():
        assert torch.equal(back.state_dict()[name], value), name

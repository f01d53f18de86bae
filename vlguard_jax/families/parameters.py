"""The arrays of a model, one record each: its names here and in checkpoints, its shape, whether it is trained, and its
axes on the mesh. Families compose their tables from those of the shared blocks below.

The ids are a contract: hashes of weights, seeds of fresh adapters and manifests are made of them. Names: transformers'
modeling_llama.py and modeling_clip.py; LLaVA's llava_arch.py and clip_encoder.py; peft 0.10.
"""

from __future__ import annotations

from collections.abc import Mapping
import dataclasses

from vlguard_jax.families.blocks import configs

LAYOUT_VERSION = 2  # of the ids and their arrays; if any changes, old Orbax folders and training steps are not read

SAME, LINEAR, CONV = "same", "linear", "conv"  # stored [out, in] -> [in, out]; stored [D, 3, p, p] -> [p, p, 3, D]
PARTS = ("text", "head", "vision", "projector", "adapter")
EMBEDDING, HEAD = "text.embed.embedding", "text.head.kernel"
VOCABULARY = (EMBEDDING, HEAD)  # arrays with a row for each token, which some layouts pad

Axes = tuple[str | tuple[str, ...] | None, ...]
_LAYER = "layers.{layer}."
_VISION_LAYER = "encoder.layers.{layer}."

# Kernels that read the residual stream are sharded over `fsdp` on their input and `tensor` on their output, those that
# write to it the other way round. An adapter's long side is sharded over its kernel's axes and `fsdp`, as its rank is
# too short for an axis. The frozen tower is small and replicated, as are norms and biases.
_OUT_OF_STREAM: Axes = ("fsdp", "tensor")
_INTO_STREAM: Axes = ("tensor", "fsdp")
_ADAPTERS: dict[Axes, tuple[Axes, Axes]] = {
    _OUT_OF_STREAM: (("fsdp", None), (None, ("tensor", "fsdp"))),
    _INTO_STREAM: ((("tensor", "fsdp"), None), (None, "fsdp")),
}


@dataclasses.dataclass(frozen=True)
class Parameter:
    """One array of a model.

    id: its dotted path in the parameter tree. name: after the part's prefix in a checkpoint, "" where each layout has
    its own; with "{layer}" it is one tensor per layer there and stacked on a leading axis here. shape: here. part: one
    of PARTS; determines whether it is trained, and its file. axes: of the mesh, for each dimension. transform: of the
    stored tensor. fresh: standard deviation of the normal draw where a pretrained projector's file does not have it; 0:
    an error.
    """

    id: str
    name: str
    shape: tuple[int, ...]
    part: str
    axes: Axes = ()
    transform: str = SAME
    fresh: float = 0.0

    @property
    def stacked(self) -> bool:
        """Whether the first dimension is the layer axis."""
        return "{layer}" in self.name


@dataclasses.dataclass(frozen=True)
class Layout:
    """The names of a model's parts in one kind of file.

    prefixes: part -> accepted prefixes, the written one first. names: id -> name after the prefix, in place of
    `Parameter.name`. dropped: patterns of tensors that are left out on purpose.
    """

    name: str
    prefixes: Mapping[str, tuple[str, ...]]
    names: Mapping[str, str] = dataclasses.field(default_factory=dict)
    dropped: tuple[str, ...] = ()


def linears(text: configs.TextConfig) -> dict[str, tuple[int, int]]:
    """(inputs, outputs) of the matrices of a decoder layer, by name."""
    d, inner, kv, f = text.width, text.num_heads * text.head_width, text.num_kv_heads * text.head_width, text.mlp_width
    attention = {"q_proj": (d, inner), "k_proj": (d, kv), "v_proj": (d, kv), "o_proj": (inner, d)}
    return attention | {"gate_proj": (d, f), "up_proj": (d, f), "down_proj": (f, d)}


def decoder(text: configs.TextConfig, lora: configs.LoraConfig | None) -> tuple[Parameter, ...]:
    """Embedding, layers, last norm, head (unless tied) and adapters of blocks/decoder.py."""
    n, d, v = text.num_layers, text.width, text.vocab_size
    made = [
        Parameter(EMBEDDING, "embed_tokens.weight", (v, d), "text", _INTO_STREAM),
        Parameter("text.layers.attention_norm.scale", _LAYER + "input_layernorm.weight", (n, d), "text"),
        Parameter("text.layers.mlp_norm.scale", _LAYER + "post_attention_layernorm.weight", (n, d), "text"),
        Parameter("text.norm.scale", "norm.weight", (d,), "text"),
    ]
    for name, (n_in, n_out) in linears(text).items():
        group, theirs = (
            ("attention", "self_attn") if name in ("q_proj", "k_proj", "v_proj", "o_proj") else ("mlp", "mlp")
        )
        axes = _INTO_STREAM if name in ("o_proj", "down_proj") else _OUT_OF_STREAM
        path, stored = f"text.layers.{group}.{name}", f"{_LAYER}{theirs}.{name}"
        made.append(Parameter(f"{path}.kernel", f"{stored}.weight", (n, n_in, n_out), "text", (None, *axes), LINEAR))
        if lora and name in lora.targets:
            a, b, r = *_ADAPTERS[axes], lora.rank
            made.append(
                Parameter(f"{path}.lora_a", f"{stored}.lora_A.weight", (n, n_in, r), "adapter", (None, *a), LINEAR)
            )
            made.append(
                Parameter(f"{path}.lora_b", f"{stored}.lora_B.weight", (n, r, n_out), "adapter", (None, *b), LINEAR)
            )
    if not text.tie_embeddings:
        made.append(Parameter(HEAD, "weight", (d, v), "head", _OUT_OF_STREAM, LINEAR))
    return tuple(made)


def clip_tower(vision: configs.VisionConfig) -> tuple[Parameter, ...]:
    """All of blocks/clip.py."""
    n, d, f, p = vision.num_layers, vision.width, vision.mlp_width, vision.patch_size
    attention, mlp = _VISION_LAYER + "self_attn.", _VISION_LAYER + "mlp."
    made = [
        Parameter("vision.patch.kernel", "embeddings.patch_embedding.weight", (p, p, 3, d), "vision", (), CONV),
        Parameter("vision.class_token", "embeddings.class_embedding", (d,), "vision"),
        Parameter("vision.positions", "embeddings.position_embedding.weight", (1 + vision.num_patches, d), "vision"),
        *_norm("vision.pre_norm", "pre_layrnorm", (d,)),  # the name is misspelt in CLIP
        *_norm("vision.layers.attention_norm", _VISION_LAYER + "layer_norm1", (n, d)),
    ]
    for name in ("q_proj", "k_proj", "v_proj", "out_proj"):
        made += dense(f"vision.layers.attention.{name}", attention + name, (n, d, d), "vision")
    made += _norm("vision.layers.mlp_norm", _VISION_LAYER + "layer_norm2", (n, d))
    made += dense("vision.layers.mlp.fc1", mlp + "fc1", (n, d, f), "vision")
    made += dense("vision.layers.mlp.fc2", mlp + "fc2", (n, f, d), "vision")
    return (*made, *_norm("vision.post_norm", "post_layernorm", (d,)))


def projector(kind: str, in_width: int, out_width: int) -> tuple[Parameter, ...]:
    """All of blocks/projector.py; every layout has its own names."""
    first = dense("projector.fc1", "", (in_width, out_width), "projector", _OUT_OF_STREAM)
    if kind == "linear":
        return first
    return (*first, *dense("projector.fc2", "", (out_width, out_width), "projector", _INTO_STREAM))


def dense(path: str, name: str, shape: tuple[int, ...], part: str, axes: Axes = ()) -> tuple[Parameter, Parameter]:
    """A linear layer with bias. shape: of the kernel."""
    bias = (*shape[:-2], shape[-1])
    return (
        Parameter(f"{path}.kernel", name and f"{name}.weight", shape, part, axes, LINEAR),
        Parameter(f"{path}.bias", name and f"{name}.bias", bias, part),
    )


def _norm(path: str, name: str, shape: tuple[int, ...]) -> tuple[Parameter, Parameter]:
    """A LayerNorm of the tower."""
    return (
        Parameter(f"{path}.scale", f"{name}.weight", shape, "vision"),
        Parameter(f"{path}.bias", f"{name}.bias", shape, "vision"),
    )


def dense_names(path: str, name: str) -> dict[str, str]:
    """A layout's names for a linear layer with bias."""
    return {f"{path}.kernel": f"{name}.weight", f"{path}.bias": f"{name}.bias"}


_ROTARY = r".*\.rotary_emb\.inv_freq"  # buffers of old transformers, recomputed from the config
_POSITION_IDS = r"(.*\.)?embeddings\.position_ids"  # buffers, always 0, 1, 2, ...
BUFFERS = (_ROTARY, _POSITION_IDS)

LLAMA = Layout("llama", {"text": ("model.",), "head": ("lm_head.",)}, dropped=(_ROTARY,))
# llama.cpp's names (gguf-py/gguf/constants.py, TENSOR_NAMES), without the rows' order of q and k.
GGUF = Layout(
    "gguf",
    {"text": ("",), "head": ("",)},
    {
        EMBEDDING: "token_embd.weight",
        "text.layers.attention_norm.scale": "blk.{layer}.attn_norm.weight",
        "text.layers.mlp_norm.scale": "blk.{layer}.ffn_norm.weight",
        "text.norm.scale": "output_norm.weight",
        HEAD: "output.weight",
        **{f"text.layers.attention.{n}_proj.kernel": f"blk.{{layer}}.attn_{n}.weight" for n in "qkv"},
        "text.layers.attention.o_proj.kernel": "blk.{layer}.attn_output.weight",
        **{f"text.layers.mlp.{n}_proj.kernel": f"blk.{{layer}}.ffn_{n}.weight" for n in ("gate", "up", "down")},
    },
)
CLIP = Layout(
    "clip",
    {"vision": ("vision_model.", "")},
    # A CLIPModel folder also has the text model and the contrastive head.
    dropped=(_POSITION_IDS, r"text_model\..*", r"(visual|text)_projection\.weight", "logit_scale"),
)
PEFT_HF = Layout("peft-hf", {"adapter": ("base_model.model.model.",)})  # of a language model by itself
PEFT = Layout(
    "peft",
    {
        "adapter": (
            "base_model.model.model.",
            "base_model.model.language_model.model.",
            "base_model.model.model.language_model.",
        )
    },
)

"""The one table of names: parameter tree <-> checkpoint layouts, read in both directions.

A row says which path of our tree holds which tensor of a part (text, head, vision, projector, adapter) and how the
array is turned; a layout says which prefixes a part has there (the first is the one written) and which tensors are left
out on purpose. Layer rows hold `{layer}` and stand for one stacked array of the tree. Names: LLaVA's
llava_arch.py and clip_encoder.py; transformers' modeling_llava.py of 4.36, 4.52 and 5.x; peft 0.10.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
import dataclasses
import re

import numpy as np

from vlguard_jax import errors
from vlguard_jax.checkpoints import diagnose
from vlguard_jax.checkpoints import tensors
from vlguard_jax.models import config as model_config

LAYOUT_VERSION = 1

SAME, LINEAR, CONV = "same", "linear", "conv"  # stored [out, in] -> [in, out]; stored [D, 3, p, p] -> [p, p, 3, D]
_TO_TREE = {LINEAR: (1, 0), CONV: (2, 3, 1, 0)}
_FROM_TREE = {LINEAR: (1, 0), CONV: (3, 2, 0, 1)}
# rows of a matrix transposed at once: 4 to 5 times faster than all at once where rows are a power of two apart
_STRIP = 16

# Our name of a decoder linear layer -> (group in our tree, name in a checkpoint).
LINEARS = {
    "q": ("attention", "self_attn.q_proj"),
    "k": ("attention", "self_attn.k_proj"),
    "v": ("attention", "self_attn.v_proj"),
    "o": ("attention", "self_attn.o_proj"),
    "gate": ("mlp", "mlp.gate_proj"),
    "up": ("mlp", "mlp.up_proj"),
    "down": ("mlp", "mlp.down_proj"),
}
_LAYER = "layers.{layer}."
_VISION_LAYER = "encoder.layers.{layer}."


def _affine(path: str, name: str, transform: str) -> list[tuple[str, str, str]]:
    first = "scale" if transform == SAME else "kernel"
    return [(f"{path}.{first}", f"{name}.weight", transform), (f"{path}.bias", f"{name}.bias", SAME)]


_ROWS: dict[str, list[tuple[str, str, str]]] = {  # part -> (tree path, name after the part's prefix, transform)
    "text": [
        ("text.embed.embedding", "embed_tokens.weight", SAME),
        ("text.layers.attention_norm.scale", _LAYER + "input_layernorm.weight", SAME),
        *(
            (f"text.layers.{group}.{ours}.kernel", f"{_LAYER}{name}.weight", LINEAR)
            for ours, (group, name) in LINEARS.items()
        ),
        ("text.layers.mlp_norm.scale", _LAYER + "post_attention_layernorm.weight", SAME),
        ("text.norm.scale", "norm.weight", SAME),
    ],
    "head": [("text.head.kernel", "weight", LINEAR)],
    "vision": [
        ("vision.patch.kernel", "embeddings.patch_embedding.weight", CONV),
        ("vision.class_token", "embeddings.class_embedding", SAME),
        ("vision.positions", "embeddings.position_embedding.weight", SAME),
        *_affine("vision.pre_norm", "pre_layrnorm", SAME),  # the name is misspelt in CLIP
        *_affine("vision.layers.attention_norm", _VISION_LAYER + "layer_norm1", SAME),
        *_affine("vision.layers.attention.q", _VISION_LAYER + "self_attn.q_proj", LINEAR),
        *_affine("vision.layers.attention.k", _VISION_LAYER + "self_attn.k_proj", LINEAR),
        *_affine("vision.layers.attention.v", _VISION_LAYER + "self_attn.v_proj", LINEAR),
        *_affine("vision.layers.attention.o", _VISION_LAYER + "self_attn.out_proj", LINEAR),
        *_affine("vision.layers.mlp_norm", _VISION_LAYER + "layer_norm2", SAME),
        *_affine("vision.layers.mlp.up", _VISION_LAYER + "mlp.fc1", LINEAR),
        *_affine("vision.layers.mlp.down", _VISION_LAYER + "mlp.fc2", LINEAR),
        *_affine("vision.post_norm", "post_layernorm", SAME),
    ],
    "projector mlp2x_gelu": _affine("projector.fc1", "{fc1}", LINEAR) + _affine("projector.fc2", "{fc2}", LINEAR),
    "projector linear": _affine("projector.fc1", "{fc1}", LINEAR),
}
_ORIGINAL_PROJECTOR = {"mlp2x_gelu": ("mm_projector.0", "mm_projector.2"), "linear": ("mm_projector", "")}
_HF_PROJECTOR = {"mlp2x_gelu": ("linear_1", "linear_2")}

VOCABULARY = ("text.embed.embedding", "text.head.kernel")  # arrays with a row for each token, which some layouts pad
PARTS = ("text", "head", "vision", "projector", "adapter")


@dataclasses.dataclass(frozen=True)
class Layout:
    """Where the parts stand in one kind of file. `dropped`: patterns of tensors that are left out on purpose."""

    name: str
    prefixes: Mapping[str, tuple[str, ...]]
    projector: Mapping[str, tuple[str, str]] = dataclasses.field(default_factory=dict)
    dropped: tuple[str, ...] = ()


_ROTARY = r".*\.rotary_emb\.inv_freq"  # buffers of old transformers, recomputed from the config
_POSITION_IDS = r"(.*\.)?embeddings\.position_ids"  # buffers, always 0, 1, 2, ...
_ADAPTER = (
    "base_model.model.model.",
    "base_model.model.language_model.model.",
    "base_model.model.model.language_model.",
)

LAYOUTS = {
    layout.name: layout
    for layout in (
        Layout(
            "llava",
            {
                "text": ("model.",),
                "head": ("lm_head.",),
                "vision": ("model.vision_tower.vision_tower.vision_model.",),
                "projector": ("model.",),
            },
            _ORIGINAL_PROJECTOR,
            (_ROTARY, _POSITION_IDS),
        ),
        Layout(
            "llava-hf",
            {
                "text": ("language_model.model.", "model.language_model.", "model.language_model.model."),
                "head": ("language_model.lm_head.", "lm_head.", "model.language_model.lm_head."),
                "vision": (
                    "vision_tower.vision_model.",
                    "model.vision_tower.vision_model.",
                    "vision_tower.",
                    "model.vision_tower.",
                ),
                "projector": ("multi_modal_projector.", "model.multi_modal_projector."),
            },
            _HF_PROJECTOR,
            (_ROTARY, _POSITION_IDS),
        ),
        Layout("llama", {"text": ("model.",), "head": ("lm_head.",)}, dropped=(_ROTARY,)),
        Layout(
            "clip",
            {"vision": ("vision_model.", "")},
            # A CLIPModel folder also holds the text side and the contrastive head.
            dropped=(_POSITION_IDS, r"text_model\..*", r"(visual|text)_projection\.weight", "logit_scale"),
        ),
        Layout("peft", {"adapter": _ADAPTER}),
        # mm_projector.bin and non_lora_trainables.bin: the reference reads what follows `mm_projector.`.
        Layout(
            "projector",
            {"projector": ("model.", "", "base_model.model.model.", "base_model.model.")},
            _ORIGINAL_PROJECTOR,
        ),
        Layout(
            "non_lora", {"projector": ("base_model.model.model.", "base_model.model.", "model.")}, _ORIGINAL_PROJECTOR
        ),
    )
}


@dataclasses.dataclass(frozen=True)
class Row:
    """One array of the tree and its tensors in a checkpoint.

    `names[layer]` lists the accepted names, the written one first; `stacked` says if the tree has a leading layer axis.
    `shape` is the shape in the tree; `stored_shape` that of each stored tensor.
    """

    path: str
    names: tuple[tuple[str, ...], ...]
    transform: str
    stacked: bool
    shape: tuple[int, ...]
    stored_shape: tuple[int, ...]

    def to_tree(self, stored: np.ndarray) -> np.ndarray:
        """Turn one stored tensor into one layer (or the whole) of the tree's array; rows of a padded vocabulary are
        cut."""
        turned = _turn(stored, _TO_TREE[self.transform]) if self.transform in _TO_TREE else stored
        return turned[tuple(slice(n) for n in self.shape[self.stacked :])]

    def from_tree(self, value: np.ndarray) -> np.ndarray:
        """The inverse of `to_tree` for an unpadded vocabulary."""
        return _turn(value, _FROM_TREE[self.transform]) if self.transform in _FROM_TREE else np.ascontiguousarray(value)


def _turn(x: np.ndarray, axes: tuple[int, ...]) -> np.ndarray:
    """A transposed copy."""
    if x.ndim != 2:
        return np.ascontiguousarray(x.transpose(axes))
    result = np.empty(x.shape[::-1], x.dtype)
    for i in range(0, len(x), _STRIP):
        result[:, i : i + _STRIP] = x[i : i + _STRIP].T
    return result


def tree_shapes(
    config: model_config.LlavaConfig, lora: model_config.LoraConfig | None = None
) -> dict[str, tuple[int, ...]]:
    """Shapes of all arrays of the parameter tree by dotted path, stacked arrays with their layer axis."""
    t = config.text
    heads, kv_heads = t.num_heads * t.head_width, t.num_kv_heads * t.head_width
    linears = {"q": (t.width, heads), "k": (t.width, kv_heads), "v": (t.width, kv_heads), "o": (heads, t.width)}
    linears |= {"gate": (t.width, t.mlp_width), "up": (t.width, t.mlp_width), "down": (t.mlp_width, t.width)}
    shapes: dict[str, tuple[int, ...]] = {
        "text.embed.embedding": (t.vocab_size, t.width),
        "text.norm.scale": (t.width,),
    }
    for norm in ("attention_norm", "mlp_norm"):
        shapes[f"text.layers.{norm}.scale"] = (t.num_layers, t.width)
    for ours, (n_in, n_out) in linears.items():
        path = f"text.layers.{LINEARS[ours][0]}.{ours}"
        shapes[f"{path}.kernel"] = (t.num_layers, n_in, n_out)
        if lora and ours in lora.targets:
            shapes[f"{path}.lora_a"] = (t.num_layers, n_in, lora.rank)
            shapes[f"{path}.lora_b"] = (t.num_layers, lora.rank, n_out)
    if not t.tie_embeddings:
        shapes["text.head.kernel"] = (t.width, t.vocab_size)
    if config.vision and config.projector:
        shapes |= _vision_shapes(config.vision)
        shapes |= _dense_shapes("projector.fc1", (), config.vision.width, t.width)
        if config.projector == "mlp2x_gelu":
            shapes |= _dense_shapes("projector.fc2", (), t.width, t.width)
    return shapes


def _dense_shapes(path: str, lead: tuple[int, ...], n_in: int, n_out: int) -> dict[str, tuple[int, ...]]:
    return {f"{path}.kernel": (*lead, n_in, n_out), f"{path}.bias": (*lead, n_out)}


def _vision_shapes(v: model_config.VisionConfig) -> dict[str, tuple[int, ...]]:
    shapes: dict[str, tuple[int, ...]] = {
        "vision.patch.kernel": (v.patch_size, v.patch_size, 3, v.width),
        "vision.class_token": (v.width,),
        "vision.positions": (1 + v.num_patches, v.width),
    }
    layers = (v.num_layers,)
    norms: dict[str, tuple[int, ...]] = {
        "pre_norm": (),
        "layers.attention_norm": layers,
        "layers.mlp_norm": layers,
        "post_norm": (),
    }
    for norm, lead in norms.items():
        shapes |= {f"vision.{norm}.{leaf}": (*lead, v.width) for leaf in ("scale", "bias")}
    for name in ("q", "k", "v", "o"):
        shapes |= _dense_shapes(f"vision.layers.attention.{name}", layers, v.width, v.width)
    shapes |= _dense_shapes("vision.layers.mlp.up", layers, v.width, v.mlp_width)
    return shapes | _dense_shapes("vision.layers.mlp.down", layers, v.mlp_width, v.width)


def rows(
    layout: str,
    config: model_config.LlavaConfig,
    parts: Collection[str],
    *,
    lora: model_config.LoraConfig | None = None,
    stored_vocab: int | None = None,
) -> list[Row]:
    """Rows of the table for the wanted parts of a model of these sizes.

    `stored_vocab`: rows of embedding and head in the files where the vocabulary is padded there.

    Raises:
      UserError: the layout cannot hold the projector.
    """
    table = LAYOUTS[layout]
    shapes = tree_shapes(config, lora)
    result = []
    for part in PARTS:
        if part not in parts or part not in table.prefixes:
            continue
        for path, name, transform in _part_rows(table, config, part, lora):
            if path in shapes:  # a tied head and layers without adapter have no row
                result.append(_row(path, name, transform, table.prefixes[part], shapes[path], stored_vocab))
    return result


def _part_rows(
    table: Layout, config: model_config.LlavaConfig, part: str, lora: model_config.LoraConfig | None
) -> list[tuple[str, str, str]]:
    if part == "adapter":
        names = (
            [(f"text.layers.{group}.{ours}", f"{_LAYER}{name}") for ours, (group, name) in LINEARS.items()]
            if lora
            else []
        )
        return [(f"{p}.lora_{ab.lower()}", f"{n}.lora_{ab}.weight", LINEAR) for p, n in names for ab in "AB"]
    if part == "projector":
        if config.projector is None:
            return []
        if config.projector not in table.projector:
            raise errors.UserError(
                f"a {config.projector!r} projector has no place in the {table.name} layout; save as llava instead"
            )
        fc1, fc2 = table.projector[config.projector]
        return [(p, n.format(fc1=fc1, fc2=fc2), t) for p, n, t in _ROWS[f"projector {config.projector}"]]
    return _ROWS[part]


def _row(
    path: str, name: str, transform: str, prefixes: tuple[str, ...], shape: tuple[int, ...], stored_vocab: int | None
) -> Row:
    stacked = "{layer}" in name
    one = shape[stacked:]
    if stored_vocab is not None and path in VOCABULARY:
        one = (stored_vocab, one[1]) if path == "text.embed.embedding" else (one[0], stored_vocab)
    back = _FROM_TREE.get(transform, range(len(one)))
    suffixes = [name]
    if ".lora_" in name:  # as in a PEFT model in memory, where the adapter has a name
        suffixes.append(re.sub(r"\.weight$", ".default.weight", name))
    layers = range(shape[0]) if stacked else (0,)
    names = tuple(tuple(prefix + s.format(layer=i) for s in suffixes for prefix in prefixes) for i in layers)
    return Row(path, names, transform, stacked, shape, tuple(one[axis] for axis in back))


def match(
    table_rows: Collection[Row], found: Mapping[str, tensors.Tensor], dropped: Collection[str], where: str
) -> tuple[dict[str, list[tensors.Tensor]], list[str]]:
    """Assign stored tensors to rows: ({tree path: one tensor per layer}, names left out on purpose).

    `where` names the files in messages.

    Raises:
      UserError: a tensor that no row and no pattern of `dropped` knows, one that is missing, stored twice or of another
        shape or a type that is no float.
    """
    targets = {name: (row, i) for row in table_rows for i, accepted in enumerate(row.names) for name in accepted}
    left_out = re.compile("|".join(f"(?:{p})" for p in dropped) or r"(?!)")
    if why := diagnose.weights(found):
        raise errors.UserError(f"{where}: {why}")
    placed: dict[tuple[str, int], tensors.Tensor] = {}
    skipped = []
    unplaced = [name for name in found if not left_out.fullmatch(name)]
    for name, tensor in found.items():
        if name not in targets:
            if not left_out.fullmatch(name):
                way = diagnose.unknown(name, unplaced, targets)
                raise errors.UserError(f"{tensor.file}: unknown tensor {name} {list(tensor.shape)}{way}")
            skipped.append(name)
            continue
        row, i = targets[name]
        if (row.path, i) in placed:
            other = placed[row.path, i]
            raise errors.UserError(
                f"{tensor.file}: duplicate tensor {name}: {other.name} in {other.file.name} holds the same parameter"
            )
        if tensor.shape != row.stored_shape:
            expected = f"{list(row.stored_shape)} expected from the config, {list(tensor.shape)} found"
            way = diagnose.rows(tensor, row.stored_shape) if row.path in VOCABULARY else ""
            raise errors.UserError(f"{tensor.file}: tensor {name} has the wrong shape: {expected}{way}")
        if tensor.dtype not in tensors.FLOATS.values():
            raise errors.UserError(
                f"{tensor.file}: tensor {name} has the type {tensor.dtype}; fp32, fp16 or bf16 was expected"
            )
        placed[row.path, i] = tensor
    for row in table_rows:
        for i, accepted in enumerate(row.names):
            if (row.path, i) not in placed:
                way = (
                    "; give the mm_projector.bin that belongs to it as projector"
                    if row.path.startswith("projector.")
                    else ""
                )
                raise errors.UserError(f"{where}: missing tensor {accepted[0]} {list(row.stored_shape)}{way}")
    return {row.path: [placed[row.path, i] for i in range(len(row.names))] for row in table_rows}, skipped

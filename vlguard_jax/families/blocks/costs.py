"""Operations of a CLIP tower with a projector for one square picture, for plans."""

from __future__ import annotations

from vlguard_jax.families import family
from vlguard_jax.families.blocks import configs


def clip(v: configs.VisionConfig, projector: str, width: int) -> family.Tower:
    """Cost of one picture, up to the feature layer. width: the decoder's.

    A matrix product of T rows with an [i, o] matrix is 2 T i o operations; the tower attends without a mask.
    """
    layers = v.feature_layer if v.feature_layer >= 0 else v.num_layers + 1 + v.feature_layer
    seen = v.num_patches + 1
    matrices = 2.0 * seen * (4 * v.width**2 + 2 * v.width * v.mlp_width)
    attention = 4.0 * seen**2 * v.width
    second = width**2 if projector == "mlp2x_gelu" else 0
    return family.Tower(
        flops=layers * (matrices + attention) + 2.0 * v.num_patches * 3 * v.patch_size**2 * v.width,
        projector_flops=2.0 * v.num_patches * (v.width * width + second),
        scores=v.num_heads * seen**2,
        numbers=seen * (6 * v.width + 2 * v.mlp_width),
        pixels=3 * v.image_size**2,
        features=v.num_patches,
    )

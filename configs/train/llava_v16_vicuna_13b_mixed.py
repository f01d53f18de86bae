r"""Mixed: LLaVA's second stage with VLGuard appended to the mixture, pictures in tiles as LLaVA-NeXT sees them, all
weights of decoder and projector.

  python -m vlguard_jax.train --config configs/train/llava_v16_vicuna_13b_mixed.py \
      --workdir runs/llava_v16_vicuna_13b_mixed \
      --config.data.sources.vlguard.path=VLGUARD_DIR --config.data.sources.vlguard.images=VLGUARD_DIR/train \
      --config.data.sources.llava_mix.path=llava_v1_5_mix665k.json --config.data.sources.llava_mix.images=LLAVA_IMAGES

From Vicuna-v1.5 and LLaVA-1.5's pretrained projector: those of v1.6, and its mixture, were not published.
`image_newline` is drawn as LLaVA draws it. Hyperparameters as for LLaVA-1.5. Made for v5e:4x8; on more chips
--config.run.rows=0 takes a step at once, with the same result.
"""

from vlguard_jax.training import recipes


def get_config():
    return recipes.instruction_tuning(
        "lmsys/vicuna-13b-v1.5",
        "liuhaotian/llava-v1.5-mlp2x-336px-pretrain-vicuna-13b-v1.5",
        lora=False,
        vlguard=True,
        family="llava_next",
        rows=32,
    )

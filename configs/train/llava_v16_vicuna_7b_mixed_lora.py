r"""Mixed: LLaVA's second stage with VLGuard appended to the mixture, pictures in tiles as LLaVA-NeXT sees them, LoRA
adapters on the decoder, the projector in full.

  python -m vlguard_jax.train --config configs/train/llava_v16_vicuna_7b_mixed_lora.py \
      --workdir runs/llava_v16_vicuna_7b_mixed_lora \
      --config.data.sources.vlguard.path=VLGUARD_DIR --config.data.sources.vlguard.images=VLGUARD_DIR/train \
      --config.data.sources.llava_mix.path=llava_v1_5_mix665k.json --config.data.sources.llava_mix.images=LLAVA_IMAGES

From Vicuna-v1.5 and LLaVA-1.5's pretrained projector: those of v1.6, and its mixture, were not published.
`image_newline` is drawn as LLaVA draws it. Hyperparameters as for LLaVA-1.5.
"""

from vlguard_jax.training import recipes


def get_config():
    return recipes.instruction_tuning(
        "lmsys/vicuna-7b-v1.5",
        "liuhaotian/llava-v1.5-mlp2x-336px-pretrain-vicuna-7b-v1.5",
        lora=True,
        vlguard=True,
        family="llava_next",
    )

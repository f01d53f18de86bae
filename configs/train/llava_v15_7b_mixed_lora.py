r"""Mixed: LLaVA-v1.5-7B's second stage with VLGuard appended to the mixture, LoRA (rank 128, alpha 256; projector in full).

  python -m vlguard_jax.train --config configs/train/llava_v15_7b_mixed_lora.py --workdir runs/llava_v15_7b_mixed_lora \
      --config.data.sources.vlguard.path=VLGUARD_DIR --config.data.sources.vlguard.images=VLGUARD_DIR/train \
      --config.data.sources.llava_mix.path=llava_v1_5_mix665k.json --config.data.sources.llava_mix.images=LLAVA_IMAGES

The official script's hyperparameters: from Vicuna-v1.5 and the pretrained projector, learning rate 2e-4, projector 2e-5, 1 epoch, batch 128.
"""

from vlguard_jax.training import recipes


def get_config():
    return recipes.instruction_tuning(
        "lmsys/vicuna-7b-v1.5",
        "liuhaotian/llava-v1.5-mlp2x-336px-pretrain-vicuna-7b-v1.5",
        lora=True,
        vlguard=True,
    )

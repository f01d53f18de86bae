r"""Mixed: LLaVA-v1.5-13B's second stage with VLGuard appended to the mixture, all weights of decoder and projector.

  python -m vlguard_jax.train --config configs/train/llava_v15_13b_mixed.py --workdir runs/llava_v15_13b_mixed \
      --config.data.sources.vlguard.path=VLGUARD_DIR --config.data.sources.vlguard.images=VLGUARD_DIR/train \
      --config.data.sources.llava_mix.path=llava_v1_5_mix665k.json --config.data.sources.llava_mix.images=LLAVA_IMAGES

The official script's hyperparameters: from Vicuna-v1.5 and the pretrained projector, learning rate 2e-5, 1 epoch, batch 128.
"""

from vlguard_jax.training import recipes


def get_config():
    return recipes.instruction_tuning(
        "lmsys/vicuna-13b-v1.5",
        "liuhaotian/llava-v1.5-mlp2x-336px-pretrain-vicuna-13b-v1.5",
        lora=False,
        vlguard=True,
    )

r"""Post-hoc with text in place of pictures on the helpful side: VLGuard and 5,000 Alpaca conversations (paper, Table 3). All weights.

  python -m vlguard_jax.train --config configs/train/llava_v15_7b_posthoc_alpaca.py --workdir runs/llava_v15_7b_posthoc_alpaca \
      --config.data.sources.vlguard.path=VLGUARD_DIR --config.data.sources.vlguard.images=VLGUARD_DIR/train \
      --config.data.sources.alpaca.path=alpaca_data.json

alpaca_data.json: a list of {"instruction", "input", "output"} (github.com/tatsu-lab/stanford_alpaca).
"""

from vlguard_jax.training import recipes


def get_config():
    return recipes.posthoc("liuhaotian/llava-v1.5-7b", lora=False, helpful="alpaca")

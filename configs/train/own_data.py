r"""Your own pictures and conversations: a finished model tuned on them with LoRA. Argument: a TOML file of sources, if not given below.

  python -m vlguard_jax.train --config configs/train/own_data.py --workdir runs/own --config.model.path=MODEL \
      --config.data.sources.mine.path=MINE.json --config.data.sources.mine.images=PICTURES

MINE.json is a list of {"id": "1", "image": "a/b.jpg", "conversations": [{"from": "human", "value": "<image>\nWhat is this?"},
{"from": "gpt", "value": "A cat."}]}, or one such object a line; "image" is a path in PICTURES (a folder or a zip file) and may be left out.
Any name serves for "mine", and further names are further sources. `format` tells other files: "vlguard" (curate's and VLGuard's), "alpaca"
(text only). All settings of a source: `vlguard settings data.sources`. docs/own_data.md says more.

Sources in a file: --config configs/train/own_data.py:SOURCES.toml, with a table for each:

  [mine]
  path = "MINE.json"
  images = "PICTURES"

  [helpful]
  path = "llava_v1_5_mix665k.json"
  images = "LLAVA_IMAGES"
  count = 5000

Data of one kind teaches a model to treat everything alike: keep some of what it should go on doing (such a "helpful" source), and hold some
conversations back to see what is learned: --config.validation.share=0.05 --config.validation.every=25. The hyperparameters are the
post-hoc recipe's (learning rate 2e-4, 3 epochs, batch 128); with fewer than a few hundred conversations take smaller steps,
--config.data.batch_size=16.
"""

from vlguard_jax import config as settings
from vlguard_jax.training import recipes


def get_config(sources=""):
    config = recipes.posthoc("", lora=True, helpful="", safety="")
    if sources:
        config.data.sources = settings.sources(sources)
    return config

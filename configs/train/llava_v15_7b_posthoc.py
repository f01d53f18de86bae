r"""Post-hoc: a finished LLaVA-v1.5-7B repaired with VLGuard and 5,000 helpful conversations, all weights of decoder and projector.

  python -m vlguard_jax.train --config configs/train/llava_v15_7b_posthoc.py --workdir runs/llava_v15_7b_posthoc \
      --config.data.sources.vlguard.path=VLGUARD_DIR --config.data.sources.vlguard.images=VLGUARD_DIR/train \
      --config.data.sources.llava_mix.path=llava_v1_5_mix665k.json --config.data.sources.llava_mix.images=LLAVA_IMAGES

The 5,000 conversations need 5,000 pictures at most, not all: `python -m vlguard_jax.prepare llava_mix` draws the same ones and
lists the pictures to fetch; zip files need not be unpacked. What a run would read: `prepare index`, `prepare inspect` with this --config.

The paper's ablations: fewer safety pictures (Fig. 4) --config.data.sources.vlguard.count=500; a category left out (Fig. 5)
--config.data.sources.vlguard.leave_out="('privacy',)"; without the pictures that are also in the test set
--config.data.sources.vlguard.leak_free=True; 10,000 helpful conversations --config.data.sources.llava_mix.count=10000.

On the way, --config.probe.every=25 --config.probe.evaluations.vlguard.benchmark.path=VLGUARD_DIR measures attack success and
over-refusal on the first 50 test questions of each kind (probe.jsonl, the report), and --config.run.keep_best.rate=vlguard/unsafes/asr
--config.run.keep_best.guard=vlguard/safe_safes/refusal_rate keeps the best checkpoint, too: see vlguard_jax/training/probe.py.

The paper's hyperparameters: learning rate 1e-5, 3 epochs of 7,000 conversations, batch 128: 165 updates. Fewer conversations at
a time on each device: --config.run.rows=N (a divisor of 128); the result is the same.
"""

from vlguard_jax.training import recipes


def get_config():
    return recipes.posthoc("liuhaotian/llava-v1.5-7b", lora=False)

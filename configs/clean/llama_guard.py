r"""Llama Guard 1 reads LLaVA's training mixture, as in the paper's "Clean" arms (section 3.2: 247 of 665,298 flagged).

  python -m vlguard_jax.prepare clean --config configs/clean/llama_guard.py --config.judge.path=meta-llama/LlamaGuard-7b \
      --mix llava_v1_5_mix665k.json --workdir runs/clean --out llava/clean_ids.txt

The ids go to a training as --config.data.sources.llava_mix.exclude_ids=llava/clean_ids.txt (configs/train, *_clean*.py).
llava/clean_ids.record.json says on how many answers the judge has no verdict: these are kept.
Another judge: --config.judge.kind=llama_guard_3, with its --config.judge.path. --config.reads=answers judges every answer
of a conversation by itself, not the conversation as a whole.
"""

from vlguard_jax import config
from vlguard_jax.preparing import cleaning


def get_config():
    return config.to_config_dict(cleaning.CleanConfig())

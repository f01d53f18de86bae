r"""VLGuard's 558 harmless questions: how often a judge prefers the answer to GPT-4V's, which test.json holds (Table 2, Safe-Safe).

  python -m vlguard_jax.evaluate --config configs/eval/win_rate.py:released --config.model.path=MODEL \
      --config.benchmark.path=VLGUARD_DIR --config.remote_judges.win_rate.endpoint.base_url=https://api.openai.com/v1 \
      --config.remote_judges.win_rate.endpoint.model=JUDGE --config.remote_judges.win_rate.endpoint.key_env=OPENAI_API_KEY \
      --config.remote_judges.win_rate.endpoint.input_price=2.5 --config.remote_judges.win_rate.endpoint.output_price=10 \
      --workdir runs/win_rate

The paper showed its judge the candidate first, always, and asked once; that judge is retired. With
`--config.judges="('win_rate', 'win_rate_swapped')"` both orders are asked and averaged, too (give win_rate_swapped the same endpoint: what
win_rate asked is not asked again). Presets and folder as in configs/eval/vlguard.py.
"""

from vlguard_jax.safety import presets


def get_config(preset="released"):
    config = presets.vlguard(preset or "released")
    config.benchmark.subsets = ("safe_safes",)
    config.judges = ("win_rate",)
    return config

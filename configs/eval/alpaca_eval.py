r"""AlpacaEval's first 300 instructions: how often a judge prefers the answer to the reference, and how often it is refused.

  python -m vlguard_jax.evaluate --config configs/eval/alpaca_eval.py:language --config.model.path=MODEL \
      --config.benchmark.path=ALPACA_DIR --config.remote_judges.alpaca_pairs.endpoint.base_url=https://api.openai.com/v1 \
      --config.remote_judges.alpaca_pairs.endpoint.model=JUDGE --config.remote_judges.alpaca_pairs.endpoint.key_env=OPENAI_API_KEY \
      --config.remote_judges.alpaca_pairs.endpoint.input_price=2.5 --config.remote_judges.alpaca_pairs.endpoint.output_price=10 \
      --workdir runs/alpaca

ALPACA_DIR holds alpaca_eval.json (`python -m vlguard_jax.prepare alpaca_eval --source ALPACA_DIR` checks it and says where it is got).
Prices are in dollars per million tokens. Without a server: `--config.judges="('keyword_vlguard_v1',)"`. Presets as in configs/eval/xstest.py.
"""

from vlguard_jax.safety import presets


def get_config(preset="released"):
    config = presets.benchmark("alpaca_eval", preset or "released")
    config.judges = ("keyword_vlguard_v1", "alpaca_pairs")
    return config

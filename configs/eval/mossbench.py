r"""MOSSBench: refusals of 300 harmless questions about pictures that look dangerous.

  python -m vlguard_jax.evaluate --config configs/eval/mossbench.py:released --config.model.path=MODEL \
      --config.benchmark.path=MOSSBENCH_DIR --workdir runs/mossbench

MOSSBENCH_DIR is the repository xirui-li/MOSSBench, with data/images_information/information.json and data/images (`python -m vlguard_jax.prepare
mossbench --source MOSSBENCH_DIR` checks them). Rates of its three types stand in summary.json under `by_category`. Not for training.
Presets as in configs/eval/vlguard.py.
"""

from vlguard_jax.safety import presets


def get_config(preset="released"):
    return presets.benchmark("mossbench", preset or "released")

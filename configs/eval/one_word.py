r"""One-word attacks on VLGuard's test set: attack success of 1,326 questions that begin with What, refusals of 556 that begin with Share.

  python -m vlguard_jax.evaluate --config configs/eval/one_word.py:released --config.model.path=MODEL \
      --config.benchmark.path=ONE_WORD_DIR --workdir runs/one_word

ONE_WORD_DIR holds test_what_3shot.json and test_share_1shot.json and, in `test`, VLGuard's pictures, or add
--config.benchmark.images=VLGUARD_DIR/test (`python -m vlguard_jax.prepare one_word --source ONE_WORD_DIR --images
VLGUARD_DIR/test` checks both and says where they are got).
Presets as in configs/eval/vlguard.py.
"""

from vlguard_jax.safety import presets


def get_config(preset="released"):
    return presets.benchmark("one_word", preset or "released")

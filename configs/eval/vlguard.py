r"""VLGuard's test set: attack success on 442 unsafe pictures and 558 unsafe questions, refusals of 558 harmless questions.

  python -m vlguard_jax.evaluate --config configs/eval/vlguard.py:released --config.model.path=MODEL \
      --config.benchmark.path=VLGUARD_DIR --workdir runs/NAME

VLGUARD_DIR holds test.json and, in `test`, the pictures (`python -m vlguard_jax.prepare vlguard` checks it). Presets: `released` asks as
VLGuard's published script does (template llava_v1, pictures cropped, fp16), `llava` as the models were trained (vicuna_v1, padded,
bf16), `llava_next`, `llava_next_mistral` and `llava_next_llama3` those of LLaVA-NeXT as they were published; on CPU all compute in
fp32. `--grid` asks in every way that suits the model. A first look: `--config.benchmark.limit=20`.
"""

from vlguard_jax.safety import presets


def get_config(preset="released"):
    return presets.vlguard(preset or "released")

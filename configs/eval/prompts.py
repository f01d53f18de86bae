r"""Your own text-only prompts: refusals of harmless ones, attack success of unsafe ones, plain and with a suffix.

  python -m vlguard_jax.evaluate --config configs/eval/prompts.py:released --config.model.path=MODEL \
      --config.benchmark.path=PROMPTS.json --workdir runs/NAME

PROMPTS.json is a list of {"id": "1", "prompt": "...", "safe": true or false, "category": "..."}, the category optional. Subsets:
text_safe, text_unsafe and text_suffix, which appends `--config.benchmark.suffix` to each unsafe prompt (by default the paper's, which
asks for a reply that begins with agreement). A file without unsafe prompts: `--config.benchmark.subsets="('text_safe',)"`. Presets as
in configs/eval/vlguard.py, and `language`, which asks a language model by the chat template that lies with it (bf16).
"""

from vlguard_jax.safety import presets


def get_config(preset="released"):
    return presets.benchmark("prompts", preset or "released")

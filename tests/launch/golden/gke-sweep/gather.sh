#!/usr/bin/env bash
# The results of all cells in one table; run it where vlguard_jax is installed, as often as you like.
set -eu
mkdir -p results
gcloud storage rsync --recursive --exclude='.*/(checkpoints|model|best|tensorboard|wandb)/.*' gs://MY-BUCKET/runs results
python -m vlguard_jax.gather --root=results --out=vlguard.html --markdown=vlguard.md vlguard-7b-posthoc-0=7b/posthoc vlguard-7b-posthoc-1=7b/posthoc vlguard-7b-posthoc-2=7b/posthoc vlguard-7b-posthoc-lora-0=7b/posthoc_lora vlguard-7b-posthoc-lora-1=7b/posthoc_lora vlguard-7b-posthoc-lora-2=7b/posthoc_lora vlguard-13b-posthoc-0=13b/posthoc vlguard-13b-posthoc-1=13b/posthoc vlguard-13b-posthoc-2=13b/posthoc vlguard-13b-posthoc-lora-0=13b/posthoc_lora vlguard-13b-posthoc-lora-1=13b/posthoc_lora vlguard-13b-posthoc-lora-2=13b/posthoc_lora

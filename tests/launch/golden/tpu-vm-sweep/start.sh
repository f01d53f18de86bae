#!/usr/bin/env bash
set -eu
cd "$(dirname "$0")"
bash vlguard-7b-posthoc-0.sh >vlguard-7b-posthoc-0.sh.log 2>&1 &
bash vlguard-7b-posthoc-1.sh >vlguard-7b-posthoc-1.sh.log 2>&1 &
bash vlguard-7b-posthoc-2.sh >vlguard-7b-posthoc-2.sh.log 2>&1 &
bash vlguard-7b-posthoc-lora-0.sh >vlguard-7b-posthoc-lora-0.sh.log 2>&1 &
bash vlguard-7b-posthoc-lora-1.sh >vlguard-7b-posthoc-lora-1.sh.log 2>&1 &
bash vlguard-7b-posthoc-lora-2.sh >vlguard-7b-posthoc-lora-2.sh.log 2>&1 &
bash vlguard-13b-posthoc-0.sh >vlguard-13b-posthoc-0.sh.log 2>&1 &
bash vlguard-13b-posthoc-1.sh >vlguard-13b-posthoc-1.sh.log 2>&1 &
bash vlguard-13b-posthoc-2.sh >vlguard-13b-posthoc-2.sh.log 2>&1 &
bash vlguard-13b-posthoc-lora-0.sh >vlguard-13b-posthoc-lora-0.sh.log 2>&1 &
bash vlguard-13b-posthoc-lora-1.sh >vlguard-13b-posthoc-lora-1.sh.log 2>&1 &
bash vlguard-13b-posthoc-lora-2.sh >vlguard-13b-posthoc-lora-2.sh.log 2>&1 &
wait

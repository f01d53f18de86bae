#!/usr/bin/env bash
set -eu
cd "$(dirname "$0")"
sky jobs launch --yes --detach-run --name posthoc-7b --secret HF_TOKEN posthoc-7b.yaml

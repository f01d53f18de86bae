#!/usr/bin/env bash
set -eu
cd "$(dirname "$0")"
sbatch posthoc-7b.sbatch

#!/usr/bin/env bash
set -eu
cd "$(dirname "$0")"
bash posthoc-7b.sh

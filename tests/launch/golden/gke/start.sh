#!/usr/bin/env bash
set -eu
cd "$(dirname "$0")"
kubectl apply -f posthoc-7b.yaml

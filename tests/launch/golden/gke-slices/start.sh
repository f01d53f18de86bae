#!/usr/bin/env bash
set -eu
cd "$(dirname "$0")"
kubectl apply -f two-slices.yaml

#!/usr/bin/env bash
set -eu
cd "$(dirname "$0")"
sky jobs launch --yes --detach-run --name two-nodes two-nodes.yaml

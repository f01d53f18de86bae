#!/usr/bin/env bash
# posthoc-7b: v5p:2x2x2, through XPK.
# XPK restarts what a lost node ends by itself (exit codes 42 and 127 to 255); 75 is named here.
set -euo pipefail

# XPK pastes a variable's value between double quotes of its manifest, where Kubernetes reads $$ as $.
as_xpk() {
  python3 -c 'import json, os, sys; print(json.dumps(os.environ[sys.argv[1]], ensure_ascii=False)[1:-1].replace("$", "$$"))' "$1"
}
: "${HF_TOKEN:?export HF_TOKEN first}"

exec xpk workload create \
  --cluster=MY-CLUSTER \
  --project=MY-PROJECT \
  --zone=us-east5-a \
  --workload=posthoc-7b \
  --tpu-type=v5p-16 \
  --num-slices=1 \
  --spot \
  --docker-image=us-docker.pkg.dev/MY-PROJECT/vlguard/vlguard_jax:latest \
  --max-restarts=10 \
  --restart-on-exit-codes=75 \
  --termination-grace-period-seconds=120 \
  --env='LIBTPU_INIT_ARGS=--xla_tpu_enable_data_parallel_all_reduce_opt=true --xla_tpu_data_parallel_opt_different_sized_ops=true --xla_tpu_enable_async_collective_fusion=true --xla_tpu_enable_async_collective_fusion_fuse_all_gather=true --xla_tpu_enable_async_collective_fusion_multiple_steps=true --xla_tpu_overlap_compute_collective_tc=true --xla_enable_async_all_gather=true --xla_tpu_megacore_fusion_allow_ags=false --xla_enable_async_collective_permute=true --xla_tpu_enable_ag_backward_pipelining=true' \
  --env=JAX_COMPILATION_CACHE_DIR=/bucket/compiled \
  --env=VLGUARD_CACHE=/bucket/index \
  --env="HF_TOKEN=$(as_xpk HF_TOKEN)" \
  --command='exec python launch/steps.py train --config=configs/train/llava_v15_7b_posthoc.py --workdir=/bucket/runs/posthoc-7b/train --config.model.path=/bucket/models/llava-v1.5-7b --config.data.sources.vlguard.path=/bucket/vlguard --config.data.sources.vlguard.images=/bucket/vlguard/train --config.data.sources.llava_mix.path=/bucket/llava/llava_v1_5_mix665k.json --config.data.sources.llava_mix.images=/bucket/llava/images --config.data.mode=pack --config.run.save_every=50 --then evaluate --config=configs/eval/vlguard.py:llava --workdir=/bucket/runs/posthoc-7b/evaluate --config.model.path=/bucket/runs/posthoc-7b/train/model --config.model_name=posthoc-7b --config.benchmark.path=/bucket/vlguard'

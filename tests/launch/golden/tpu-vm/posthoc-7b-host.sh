#!/usr/bin/env bash
# posthoc-7b: what every machine of the slice runs when it boots (as its startup script), until the program ends with 0 or 2.
set -uo pipefail
export HOME=/root

if ! mountpoint -q /bucket; then
  if ! command -v gcsfuse >/dev/null; then
    echo "deb [signed-by=/usr/share/keyrings/gcsfuse.asc] https://packages.cloud.google.com/apt gcsfuse-$(lsb_release -cs) main" >/etc/apt/sources.list.d/gcsfuse.list
    curl -fsS https://packages.cloud.google.com/apt/doc/apt-key.gpg -o /usr/share/keyrings/gcsfuse.asc
    apt-get -qq update && apt-get -qq install --yes gcsfuse
  fi
  mkdir -p /bucket
  gcsfuse -o allow_other --implicit-dirs --rename-dir-limit=200000 MY-BUCKET /bucket || exit 1
fi
exit_file=/bucket/runs/posthoc-7b/exit_codes/$(hostname)
mkdir -p "$(dirname "$exit_file")"
rm -f "$exit_file"

if [ ! -x ~/vlguard_jax/.venv/bin/python ]; then
  rm -rf ~/vlguard_jax
  git clone --quiet https://github.com/MY-NAME/vlguard_jax ~/vlguard_jax
  git -C ~/vlguard_jax checkout --quiet main
  python3 -m pip install --quiet --user uv
  python3 -m uv venv --quiet --python 3.11 ~/vlguard_jax/.venv
  VIRTUAL_ENV=~/vlguard_jax/.venv python3 -m uv pip install --quiet -r ~/vlguard_jax/requirements/py3.11.txt 'jax[tpu]'
  VIRTUAL_ENV=~/vlguard_jax/.venv python3 -m uv pip install --quiet --no-deps -e ~/vlguard_jax
fi
HF_TOKEN=$(gcloud secrets versions access latest --secret=HF_TOKEN) || exit 1
export HF_TOKEN
cd ~/vlguard_jax || exit 1
for attempt in $(seq 0 10); do
  env \
    'LIBTPU_INIT_ARGS=--xla_tpu_enable_data_parallel_all_reduce_opt=true --xla_tpu_data_parallel_opt_different_sized_ops=true --xla_tpu_enable_async_collective_fusion=true --xla_tpu_enable_async_collective_fusion_fuse_all_gather=true --xla_tpu_enable_async_collective_fusion_multiple_steps=true --xla_tpu_overlap_compute_collective_tc=true --xla_enable_async_all_gather=true --xla_tpu_megacore_fusion_allow_ags=false --xla_enable_async_collective_permute=true --xla_tpu_enable_ag_backward_pipelining=true' \
    JAX_COMPILATION_CACHE_DIR=/bucket/compiled \
    VLGUARD_CACHE=/bucket/index \
    .venv/bin/python launch/steps.py train --config=configs/train/llava_v15_7b_posthoc.py --workdir=/bucket/runs/posthoc-7b/train --config.model.path=/bucket/models/llava-v1.5-7b --config.data.sources.vlguard.path=/bucket/vlguard --config.data.sources.vlguard.images=/bucket/vlguard/train --config.data.sources.llava_mix.path=/bucket/llava/llava_v1_5_mix665k.json --config.data.sources.llava_mix.images=/bucket/llava/images --config.data.mode=pack --config.run.save_every=50 --then evaluate --config=configs/eval/vlguard.py:llava --workdir=/bucket/runs/posthoc-7b/evaluate --config.model.path=/bucket/runs/posthoc-7b/train/model --config.model_name=posthoc-7b --config.benchmark.path=/bucket/vlguard
  code=$?
  case "$code" in 0 | 2) break ;; esac
  echo "posthoc-7b: exit code $code, restart $attempt of 10"
  sleep "${RESTART_SECONDS:-10}"
done
echo "$code" >"$exit_file"

#!/usr/bin/env bash
# posthoc-7b: v5p:2x2x2 as a managed instance group of Compute Engine (2 x ct5p-hightpu-4t), all machines or none.
# Keeps running until the job has ended (in tmux, say); started again it finds its machines. They are deleted at the end.
set -uo pipefail
cd "$(dirname "$0")" || exit 1
POLL_SECONDS=${POLL_SECONDS:-60}
PROJECT=MY-PROJECT
ZONE=us-east5-a
REGION=${ZONE%-*}
GROUP=(--project="$PROJECT" --zone="$ZONE")

# A question that failed proves nothing about the machines, so they count as being there.
exists() {
  local found
  found=$(gcloud compute instance-groups managed list --project="$PROJECT" --zones="$ZONE" --filter='name=posthoc-7b' --format='value(name)') || return 0
  [ -n "$found" ]
}

# A stopped, terminated or missing machine means that the slice was taken away; one that is being made is fine.
healthy() {
  exists || return 1
  ! gcloud compute instance-groups managed list-instances posthoc-7b "${GROUP[@]}" --format='value(instanceStatus)' |
    grep -qE 'STOPP|TERMINATED|SUSPEND'
}

remove() {
  ! exists || gcloud compute instance-groups managed delete posthoc-7b "${GROUP[@]}" --quiet
  gcloud compute instance-templates delete posthoc-7b --project="$PROJECT" --region="$REGION" --quiet >/dev/null 2>&1
  gcloud compute resource-policies delete posthoc-7b --project="$PROJECT" --region="$REGION" --quiet >/dev/null 2>&1
  true
}

create() {
  gcloud compute resource-policies create workload-policy posthoc-7b --project="$PROJECT" --region="$REGION" \
    --type=HIGH_THROUGHPUT --accelerator-topology=2x2x2 || return 1
  gcloud compute instance-templates create posthoc-7b --project="$PROJECT" --instance-template-region="$REGION" \
    --machine-type=ct5p-hightpu-4t \
    --image-project=ubuntu-os-accelerator-images --image-family=ubuntu-accel-2204-amd64-tpu-v5e-v5p-v6e \
    --boot-disk-size=200GB --maintenance-policy=TERMINATE --scopes=cloud-platform \
    --provisioning-model=SPOT --instance-termination-action=STOP \
    --metadata-from-file=startup-script=posthoc-7b-host.sh || return 1
  gcloud compute instance-groups managed create posthoc-7b "${GROUP[@]}" --size=0 \
    --template="projects/$PROJECT/regions/$REGION/instanceTemplates/posthoc-7b" \
    --target-size-policy-mode=bulk \
    --workload-policy="projects/$PROJECT/regions/$REGION/resourcePolicies/posthoc-7b" \
    --default-action-on-vm-failure=do-nothing || return 1
  gcloud compute instance-groups managed resize posthoc-7b "${GROUP[@]}" --size=2
}

created=-1  # how often the machines had to be made again
while :; do
  if ! healthy; then
    created=$((created + 1))
    if [ "$created" -gt 10 ]; then
      echo "posthoc-7b: machines lost 11 times, given up" >&2
      remove
      exit 1
    fi
    remove
    gcloud storage rm --recursive --quiet gs://MY-BUCKET/runs/posthoc-7b/exit_codes >/dev/null 2>&1
    echo "$(date -u +%FT%TZ) posthoc-7b: creating machines"
    if ! create; then
      sleep "$POLL_SECONDS"
      continue
    fi
  fi
  codes=$(gcloud storage cat 'gs://MY-BUCKET/runs/posthoc-7b/exit_codes/*' 2>/dev/null)
  bad=$(printf '%s\n' "$codes" | grep -v '^0*$' | head -n1)
  if [ -n "$bad" ]; then
    echo "posthoc-7b: ended with exit code $bad" >&2
    remove
    exit "$bad"
  fi
  if [ "$(printf '%s' "$codes" | grep -c .)" -ge 2 ]; then
    echo "$(date -u +%FT%TZ) posthoc-7b: finished"
    remove
    exit 0
  fi
  sleep "$POLL_SECONDS"
done

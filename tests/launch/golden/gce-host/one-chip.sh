#!/usr/bin/env bash
# one-chip: v6e:1x1 as a managed instance group of Compute Engine (1 x ct6e-standard-1t), all machines or none.
# Keeps running until the job has ended (in tmux, say); started again it finds its machines. They are deleted at the end.
set -uo pipefail
cd "$(dirname "$0")" || exit 1
POLL_SECONDS=${POLL_SECONDS:-60}
PROJECT=MY-PROJECT
ZONE=us-east5-b
REGION=${ZONE%-*}
GROUP=(--project="$PROJECT" --zone="$ZONE")

# A question that failed proves nothing about the machines, so they count as being there.
exists() {
  local found
  found=$(gcloud compute instance-groups managed list --project="$PROJECT" --zones="$ZONE" --filter='name=one-chip' --format='value(name)') || return 0
  [ -n "$found" ]
}

# A stopped, terminated or missing machine means that the slice was taken away; one that is being made is fine.
healthy() {
  exists || return 1
  ! gcloud compute instance-groups managed list-instances one-chip "${GROUP[@]}" --format='value(instanceStatus)' |
    grep -qE 'STOPP|TERMINATED|SUSPEND'
}

remove() {
  ! exists || gcloud compute instance-groups managed delete one-chip "${GROUP[@]}" --quiet
  gcloud compute instance-templates delete one-chip --project="$PROJECT" --region="$REGION" --quiet >/dev/null 2>&1
  true
}

create() {
  gcloud compute instance-templates create one-chip --project="$PROJECT" --instance-template-region="$REGION" \
    --machine-type=ct6e-standard-1t \
    --image-project=ubuntu-os-accelerator-images --image-family=ubuntu-accel-2204-amd64-tpu-v5e-v5p-v6e \
    --boot-disk-size=200GB --maintenance-policy=TERMINATE --scopes=cloud-platform \
    --service-account=trainer@MY-PROJECT.iam.gserviceaccount.com \
    --metadata-from-file=startup-script=one-chip-host.sh || return 1
  gcloud compute instance-groups managed create one-chip "${GROUP[@]}" --size=0 \
    --template="projects/$PROJECT/regions/$REGION/instanceTemplates/one-chip" \
    --default-action-on-vm-failure=do-nothing || return 1
  gcloud compute instance-groups managed resize one-chip "${GROUP[@]}" --size=1
}

created=-1  # how often the machines had to be made again
while :; do
  if ! healthy; then
    created=$((created + 1))
    if [ "$created" -gt 10 ]; then
      echo "one-chip: machines lost 11 times, given up" >&2
      remove
      exit 1
    fi
    remove
    gcloud storage rm --recursive --quiet gs://MY-BUCKET/runs/one-chip/exit_codes >/dev/null 2>&1
    echo "$(date -u +%FT%TZ) one-chip: creating machines"
    if ! create; then
      sleep "$POLL_SECONDS"
      continue
    fi
  fi
  codes=$(gcloud storage cat 'gs://MY-BUCKET/runs/one-chip/exit_codes/*' 2>/dev/null)
  bad=$(printf '%s\n' "$codes" | grep -v '^0*$' | head -n1)
  if [ -n "$bad" ]; then
    echo "one-chip: ended with exit code $bad" >&2
    remove
    exit "$bad"
  fi
  if [ "$(printf '%s' "$codes" | grep -c .)" -ge 1 ]; then
    echo "$(date -u +%FT%TZ) one-chip: finished"
    remove
    exit 0
  fi
  sleep "$POLL_SECONDS"
done

#!/usr/bin/env bash
# two-slices: v6e:4x4 x 2 slices as a queued resource of the Cloud TPU API, which Google calls legacy.
# Keeps running until the job has ended (in tmux, say); started again it finds its machines. They are deleted at the end.
set -uo pipefail
cd "$(dirname "$0")" || exit 1
POLL_SECONDS=${POLL_SECONDS:-60}
WHERE=(--project=MY-PROJECT --zone=us-east5-b)

# Empty: there is no such request. A question that failed proves nothing about the machines.
state() {
  local found
  found=$(gcloud compute tpus queued-resources list "${WHERE[@]}" --filter='name~(^|/)two-slices$' --format='value(state.state)') || found=UNKNOWN
  echo "$found"
}

healthy() {
  case "$(state)" in ACCEPTED | PROVISIONING | ACTIVE | WAITING_FOR_RESOURCES | CREATING | UNKNOWN) true ;; *) false ;; esac
}

remove() {
  [ -z "$(state)" ] || gcloud compute tpus queued-resources delete two-slices "${WHERE[@]}" --force --quiet
}

create() {
  gcloud compute tpus queued-resources create two-slices "${WHERE[@]}" \
    --accelerator-type=v6e-16 \
    --runtime-version=v2-alpha-tpuv6e \
    --node-count=2 \
    --node-prefix=two-slices \
    --metadata-from-file=startup-script=two-slices-host.sh
}

created=-1  # how often the machines had to be made again
while :; do
  if ! healthy; then
    created=$((created + 1))
    if [ "$created" -gt 10 ]; then
      echo "two-slices: machines lost 11 times, given up" >&2
      remove
      exit 1
    fi
    remove
    gcloud storage rm --recursive --quiet gs://MY-BUCKET/runs/two-slices/exit_codes >/dev/null 2>&1
    echo "$(date -u +%FT%TZ) two-slices: creating machines"
    if ! create; then
      sleep "$POLL_SECONDS"
      continue
    fi
  fi
  codes=$(gcloud storage cat 'gs://MY-BUCKET/runs/two-slices/exit_codes/*' 2>/dev/null)
  bad=$(printf '%s\n' "$codes" | grep -v '^0*$' | head -n1)
  if [ -n "$bad" ]; then
    echo "two-slices: ended with exit code $bad" >&2
    remove
    exit "$bad"
  fi
  if [ "$(printf '%s' "$codes" | grep -c .)" -ge 8 ]; then
    echo "$(date -u +%FT%TZ) two-slices: finished"
    remove
    exit 0
  fi
  sleep "$POLL_SECONDS"
done

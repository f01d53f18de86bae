#!/usr/bin/env bash
set -eu
cd "$(dirname "$0")"
kubectl apply -f vlguard-7b-posthoc-0.yaml
kubectl apply -f vlguard-7b-posthoc-1.yaml
kubectl apply -f vlguard-7b-posthoc-2.yaml
kubectl apply -f vlguard-7b-posthoc-lora-0.yaml
kubectl apply -f vlguard-7b-posthoc-lora-1.yaml
kubectl apply -f vlguard-7b-posthoc-lora-2.yaml
kubectl apply -f vlguard-13b-posthoc-0.yaml
kubectl apply -f vlguard-13b-posthoc-1.yaml
kubectl apply -f vlguard-13b-posthoc-2.yaml
kubectl apply -f vlguard-13b-posthoc-lora-0.yaml
kubectl apply -f vlguard-13b-posthoc-lora-1.yaml
kubectl apply -f vlguard-13b-posthoc-lora-2.yaml

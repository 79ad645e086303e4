#!/usr/bin/env bash
# Rewrite constraints.txt: what a clean environment gets today, pinned.
#
# Left out are this project itself and what only some machines' torch brings (the accelerator's
# own libraries), so that the same file serves the CPU build and the CUDA build: torch names the
# versions of those by itself. Local version labels ("+cpu") are dropped for the same reason.
# TORCH=2.14.0 moves torch, which is chosen by hand because every golden number depends on it.
set -euo pipefail
cd "$(dirname "$0")/.."

torch=${TORCH:-$(sed -n 's/^torch==//p' constraints.txt)}
python=$(scripts/find-python.sh)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

"$python" -m venv "$work/venv"
"$work/venv/bin/python" -m pip install --quiet --upgrade pip
"$work/venv/bin/python" -m pip install --quiet "torch==$torch" ".[eval,bank,serve,peft,quantize,attest,keyless]" hatchling \
  --group test --group lint --group docs --group e2e
{
  echo "# Every version that make, the action and the image install, on Python 3.11 to 3.14."
  echo "# Written by \`make constraints\`; do not edit."
  "$work/venv/bin/python" -m pip list --format freeze \
    | sed -E '/^(adapterbot|nvidia-|cuda-|triton)/d; s/\+[a-z0-9.]+$//' \
    | LC_ALL=C sort --ignore-case
} >"$work/constraints.txt"
mv "$work/constraints.txt" constraints.txt

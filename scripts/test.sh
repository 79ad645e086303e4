#!/usr/bin/env bash
# Unit and integration tests, side by side on the cores there are, then the branch coverage that
# the pure modules owe. Arguments go to pytest: scripts/test.sh -k verdict runs some, and then
# coverage is not asked about.
set -euo pipefail
cd "$(dirname "$0")/.."
PATH="$PWD/.venv/bin:$PATH"

# torch would start a thread per core in every one of the processes.
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1}

mkdir -p .cache
coverage erase
# loadscope: tests of one module share its fixtures, such as a loaded model, in one process.
coverage run -m pytest --numprocesses auto --dist worksteal "$@"
if [ $# -eq 0 ]; then
  coverage combine --quiet
  coverage json --quiet -o .cache/coverage.json
  python scripts/pure_coverage.py .cache/coverage.json
fi

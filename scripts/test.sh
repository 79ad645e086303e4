#!/usr/bin/env bash
# Unit and integration tests on the cores there are, and the branch coverage that the pure modules
# owe to their own tests. Arguments go to pytest instead: scripts/test.sh -k verdict runs some.
set -euo pipefail
cd "$(dirname "$0")/.."
PATH="$PWD/.venv/bin:$PATH"

# torch would start a thread per core in every one of the processes.
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1}

# worksteal: keeps a module's tests, and so its fixtures, together until a process has nothing left.
run=(-m pytest --numprocesses auto --dist worksteal)
if [ $# -gt 0 ]; then
  exec python "${run[@]}" "$@"
fi

# Two runs, since tracing makes numerical loops several times slower and whole documents twice:
# traced are the tests that alone take all these branches.
pure=(tests/unit/test_{config,context,conventions,delta,delta_results,render,verdict}.py)
status=0
mkdir -p .cache
coverage erase
coverage run "${run[@]}" "${pure[@]}" || status=1
coverage combine --quiet
coverage json --quiet -o .cache/coverage.json
python scripts/pure_coverage.py .cache/coverage.json || status=1
python "${run[@]}" "${pure[@]/#/--ignore=}" || status=1
exit $status

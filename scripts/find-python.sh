#!/usr/bin/env bash
# Print the absolute path of a Python: $PYTHON if given, else python3 if it is new enough, else
# the newest one that is installed beside it. Usage: find-python.sh [--any]; without --any, one
# that cannot make virtual environments does not count.
# The Makefile and the action both start here, so both say the same thing when there is none.
set -euo pipefail

minimum="3.11"
too_old=()
no_venv=()

# -I: nothing in the current directory, which may be a pull request, is imported.
probe='import sys
if sys.version_info < (3, 11):
    sys.exit(3)
if "--any" not in sys.argv:
    try:
        import ensurepip, venv
    except ImportError:
        sys.exit(4)
print(sys.executable)'

fail() { # fail PROBLEM FIX: one line, an annotation where the runner shows those
  local prefix="error: "
  if [ "${GITHUB_ACTIONS:-}" = true ]; then
    prefix="::error title=adapterbot::"
  fi
  echo "$prefix$1 ($2)" >&2
  exit 2
}

case "${OSTYPE:-}" in
  msys* | cygwin*) fail "Windows is not supported" "use Linux or macOS, or Linux in WSL" ;;
esac

# A version manager's shim asks the current directory which Python to run (.tool-versions may name one
# by its path), and in a job that is the pull request's.
away="."
if [ "${GITHUB_ACTIONS:-}" = true ]; then
  away="${BASH_SOURCE[0]%/*}"
fi

candidates=(python3 python3.14 python3.13 python3.12 python3.11)
if [ -n "${PYTHON:-}" ]; then
  # Who names a Python wants that one, not a silent second choice.
  candidates=("$PYTHON")
  case "$PYTHON" in
    /*) ;;
    */*) candidates=("$PWD/$PYTHON") ;;
  esac
fi

for candidate in "${candidates[@]}"; do
  command -v "$candidate" >/dev/null || continue
  status=0
  # A version manager's shim may exist for a Python that is not installed: that is just "no".
  found=$(cd "$away" && "$candidate" -I -c "$probe" "$@" 2>/dev/null) || status=$?
  case $status in
    0)
      printf '%s\n' "$found"
      exit 0
      ;;
    3) too_old+=("$candidate") ;;
    4) no_venv+=("$candidate") ;;
  esac
done

if [ ${#no_venv[@]} -gt 0 ]; then
  fail "${no_venv[*]} cannot make virtual environments: ensurepip is missing" \
    "install it, on Debian and Ubuntu with: apt-get install python3-venv; or name another Python in PYTHON"
elif [ ${#too_old[@]} -gt 0 ]; then
  fail "${too_old[*]} is older than Python $minimum" "install a newer one, or name one in PYTHON"
elif [ -n "${PYTHON:-}" ]; then
  fail "$PYTHON is not a Python that runs" "name a Python $minimum or newer in PYTHON, or leave it empty"
else
  fail "no Python was found" "install Python $minimum or newer, or name one in PYTHON"
fi

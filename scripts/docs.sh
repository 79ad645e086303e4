#!/usr/bin/env bash
# Build the documentation as a site, strictly: a broken link, a missing anchor or a page that the
# navigation forgets is an error. Needs what `make docs` installs.
set -euo pipefail
cd "$(dirname "$0")/.."
PATH="$PWD/.venv/bin:$PATH"

# The theme advertises its successor on every build.
export NO_MKDOCS_2_WARNING=1
mkdocs build --strict --quiet

# demo, test, lint, docs, e2e, bench: the only commands to know. Each makes what it needs in .venv.
# PYTHON=/path/to/python3.12 chooses another Python for a new .venv.

.DEFAULT_GOAL := help
# Every target installs into the one .venv, and lint and test would fight for two cores.
.NOTPARALLEL:

# Hundreds of processes import torch and the like: each would compile all of it anew, which takes
# twice as long as the import itself.
unexport PYTHONDONTWRITEBYTECODE

VENV := .venv
BIN := $(VENV)/bin
# A stamp is named by what was installed, not dated: a fresh clone with a cached .venv, or a
# `git checkout` that only touches times, costs nothing. The [tool.*] tables of pyproject.toml
# come last and decide no package, so editing a lint rule does not reinstall anything.
KEY := $(shell sed '/^\[tool\./,$$d' pyproject.toml | cat - constraints.txt | cksum | cut -d' ' -f1)
STAMP := $(VENV)/.stamp-$(KEY)
# --build-constraint: the build backend is pinned too, not only what is installed. --no-compile:
# most of the 20,000 files are never imported, and what is, is compiled when it is.
PIP_INSTALL = $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-compile \
	--constraint constraints.txt --build-constraint constraints.txt

.PHONY: help
help: ## Show this
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / {printf "%-13s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: demo
demo: $(STAMP)-demo ## Review a bad adapter pull request made from examples/tiny, offline
	$(BIN)/adapterbot demo

.PHONY: test
test: $(STAMP)-test ## Unit and integration tests, and the branch coverage of the pure modules
	scripts/test.sh

.PHONY: lint
lint: $(STAMP)-lint ## Every static check: Python, import floors, workflows, Dockerfile, shell
	scripts/lint.sh

.PHONY: e2e action image
e2e: action image ## The action under a real runner engine, and the container image

action: $(STAMP)-e2e
	scripts/test.sh tests/e2e

image:
	scripts/container_test.sh

.PHONY: bench
bench: $(STAMP)-test ## Measure the headline figures and rewrite docs/benchmarks.md
	$(BIN)/python -m bench

.PHONY: docs
docs: $(STAMP)-docs ## The documentation as a site, in .cache/site
	scripts/docs.sh

.PHONY: constraints
constraints: ## Resolve the newest versions and rewrite constraints.txt
	scripts/constraints.sh

.PHONY: clean
clean: ## Remove .venv, node_modules and every cache
	rm -rf $(VENV) node_modules .cache .coverage* .pytest_cache .mypy_cache .ruff_cache .hypothesis

# What is installed, layer by layer: `make demo` waits for no linter.

$(STAMP)-venv:
	@# A .venv that was killed while being made, or whose Python has gone, is made anew.
	$(BIN)/python -m pip --version >/dev/null 2>&1 \
		|| { python=$$(scripts/find-python.sh) && "$$python" -m venv --clear $(VENV); }
	@# ensurepip's pip may be too old for --group and --build-constraint.
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt pip
	@touch $@

$(STAMP)-demo: $(STAMP)-venv
	@echo "installing torch and the rest into $(VENV): a few minutes, the first time"
	$(PIP_INSTALL) --editable '.[eval]'
	@touch $@

$(STAMP)-test: $(STAMP)-demo
	$(PIP_INSTALL) --group test
	@touch $@

$(STAMP)-docs: $(STAMP)-venv
	$(PIP_INSTALL) --group docs
	@touch $@

# All of it at once, since it is what a check of a fresh clone begins with.
$(STAMP)-lint: $(STAMP)-venv
	$(PIP_INSTALL) --editable '.[eval]' --group test --group docs --group lint
	@touch $(STAMP)-demo $(STAMP)-test $(STAMP)-docs $@

$(STAMP)-e2e: $(STAMP)-test
	$(PIP_INSTALL) --group e2e
	@touch $@

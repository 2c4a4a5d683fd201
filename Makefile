# `make` alone lists what there is. Settings: make serve PYTHON=python3.12 VENV=/elsewhere GPU=0

VENV ?= .venv
PYTHON ?= python3
CONFIG ?= serve_config.yaml
# 0 or 1; empty: look for a GPU.
GPU ?=
# Where torch's CPU build is looked for; empty: not at all.
TORCH_CPU_INDEX ?= https://download.pytorch.org/whl/cpu
# Options for pytest, which then runs once: make test ARGS='-k stream'
ARGS ?=

export VENV PYTHON GPU TORCH_CPU_INDEX
BIN = $(VENV)/bin

.DEFAULT_GOAL := help
.PHONY: help serve test check bench bench-quick bench-offload install tools lock clean

help:  ## list the targets
	@sed -n 's/^\([a-z-]*\):.*  ## /\1\t/p' Makefile | expand -t 14

serve: install  ## install what is missing, and serve CONFIG until Ctrl-C
	@$(BIN)/python -m serve_app serve $(CONFIG)

# One thread a process: the tests start many engines, and the machine may be small. Unit tests keep one
# core busy, so they run in two processes, a file in one of them; what starts Ray has the machine to itself.
PYTEST = OMP_NUM_THREADS=1 $(BIN)/python -m pytest
test: tools  ## run the whole test suite
ifeq ($(ARGS),)
	$(PYTEST) tests/unit -n 2 --dist loadfile
	$(PYTEST) --ignore tests/unit
else
	$(PYTEST) $(ARGS)
endif

check: tools  ## format, lint, types, import arrows
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: install  ## side by side with every peer, 15 minutes; peers are installed into .cache/
	$(BIN)/python -m benchmarks peers

bench-quick: install  ## side by side with bare vLLM, under 5 minutes
	$(BIN)/python -m benchmarks quick

bench-offload: install  ## a model larger than its RAM, beside accelerate; writes 6 GB meanwhile
	$(BIN)/python -m benchmarks offload

install:  ## fill VENV from constraints/, if it is not up to date
	@install/install.sh

tools:  ## the same, with the tools for tests and checks
	@TOOLS=1 install/install.sh

lock:  ## write constraints/ anew, from what is installed in VENV
	$(BIN)/python install/lock.py

clean:  ## remove VENV and every cache
	rm -rf $(VENV) .mypy_cache .pytest_cache .ruff_cache .import_linter_cache *.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# `make demo` and `make test` set up what they need in .venv first; Python 3.11 or newer is all that must be there.

VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

# How many processes run the tests: more than there are cores, since many tests wait; 0 runs them in one, where a debugger works.
WORKERS ?= 3
PYTEST := $(BIN)/python -m pytest -q -rs

# The first of these that is new enough makes the environment; `make PYTHON=python3.13 demo` takes another.
PYTHON ?= python3.11 python3 python3.12 python3.13 python3.14

.DEFAULT_GOAL := help
.PHONY: help setup demo test test-slow test-all lint format bench eval eval-full clean

help:  ## list the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

setup: $(READY)  ## install everything into .venv

demo: $(READY)  ## record a real program, watch its spans arrive, and show what was slow
	@$(BIN)/debugstore demo

test: $(READY)  ## the tests that take seconds
	$(PYTEST) --numprocesses $(WORKERS) --dist worksteal -m "not slow" $(ARGS)

test-slow: $(READY)  ## the tests that take longer
	$(PYTEST) --numprocesses $(WORKERS) --dist worksteal -m slow $(ARGS)

test-all: test test-slow  ## every test

lint: $(READY)  ## style, types and the import contract
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(READY)  ## put the sources into shape
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(READY)  ## measure the figures of the README
	$(BIN)/python -m benchmarks $(ARGS)

eval: $(READY)  ## how often the analyses are right, on data of which the truth is known
	$(BIN)/python -m evaluation $(ARGS)

eval-full: $(READY)  ## the same with as many benchmark runs as the README's figures rest on (hours)
	$(BIN)/python -m evaluation --full $(ARGS)

clean:  ## remove .venv and everything that was built
	rm -rf $(VENV) dist build .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis

$(READY): pyproject.toml
	@for python in $(PYTHON); do \
	  if $$python -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then \
	    found=$$python; break; \
	  fi; \
	done; \
	if [ -z "$$found" ]; then \
	  echo "No Python 3.11 or newer with venv among: $(PYTHON). Install one, or name it: make PYTHON=..." >&2; exit 1; \
	fi; \
	if ! $(BIN)/python -c 'import pip' 2>/dev/null; then \
	  echo "Making $(VENV) with $$($$found --version)"; \
	  $$found -m venv --clear $(VENV); \
	fi
	@echo "Installing otel-debugstore and its tools into $(VENV) (about half a minute, once)"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --upgrade 'pip>=25.1'
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable . --group test --group lint
	@touch $@

# Each target sets itself up: it makes .venv from a python3.11 to 3.13 and installs what it needs, once per change of pyproject.toml.
# PYTHON=/path/to/python3.12 chooses the interpreter.

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help demo test check reference bench clean

VENV := .venv
PY := $(VENV)/bin/python
PIP := $(PY) -m pip install --quiet --quiet --disable-pip-version-check

help:  ## list the targets
	@sed -nE 's/^([a-z]+):[^#]*## (.*)/  make \1\t\2/p' Makefile | expand -t 15

demo: $(VENV)/pipeline.stamp  ## 840 crawled pages → tokens → 20 training batches, and a report
	$(PY) -m jobs build jobs/recipes/demo-text.yaml
	$(PY) -m jobs train-tokenizer jobs/recipes/tokenizer-superbpe-8k.yaml
	$(PY) -m jobs train-classifier jobs/recipes/classifier-prose.yaml
	$(PY) -m jobs build jobs/recipes/demo.yaml
	$(PY) -m examples.read_batches build/demo
	$(PY) -m jobs report build/demo
	@echo
	@echo "The report is $$(ls -t build/demo/builds/*/report.html | head -1): open it in a browser. To try next:"
	@echo "  $(PY) -m jobs explain build/demo http://sqlite.test:8000/json1.html    what was decided on this page, and why"
	@echo "  $(PY) -m jobs plan jobs/recipes/demo.yaml --set stages.language.min_score=0.8    what one change recomputes"
	@echo "  $(PY) -m jobs stages    every stage and its parameters, to write a config of your own"

# Three workers on two cores, as each often waits for servers, retries and processes. The threads of a matrix product in one would
# only wait for those of the others. Files in the order of
# tests/conftest.py, the slowest first, not by their numbers of tests. Bytecode is kept even where an image says that it is not:
# a third of the time to collect the tests, a tenth of the start of each process.
test: $(VENV)/dev.stamp  ## run the tests
	OMP_NUM_THREADS=1 PYTHONDONTWRITEBYTECODE= $(PY) -m pytest -n 3 --dist loadfile --no-loadscope-reorder

check: $(VENV)/dev.stamp  ## lint, formatting, types, which package may import which, and docs/reference/
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy
	$(VENV)/bin/lint-imports
	$(PY) -m jobs.manual.pages --check

reference: $(VENV)/dev.stamp  ## write docs/reference/ from the code
	$(PY) -m jobs.manual.pages

bench: $(VENV)/dev.stamp build/peers.stamp build/peers-reader.stamp  ## every benchmark, beside its peer, within a minute each
	@for file in $(sort $(filter-out benchmarks/_% benchmarks/runs.py, $(wildcard benchmarks/*.py))); do \
	    name=$$(basename $$file .py); echo "== benchmarks.$$name"; $(PY) -m benchmarks.$$name --quick; \
	done
	@echo "== benchmarks.lift"; $(PY) -m benchmarks.lift --quick

clean:  ## delete build/ and the caches, keep .venv
	rm -rf "$${XDG_CACHE_HOME:-$$HOME/.cache}/gristmill" build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -not -path './$(VENV)/*' -prune -exec rm -rf {} +

# The demo needs no test tools, so there are two stamps.
$(VENV)/pipeline.stamp: pyproject.toml | $(PY)
	@echo "Installing the pipeline into $(VENV) (a minute or two, once)"
	@$(PIP) --editable '.[pipeline]'
	@touch $@

$(VENV)/dev.stamp: pyproject.toml $(VENV)/pipeline.stamp
	@echo "Installing the development tools into $(VENV)"
	@$(PIP) --editable '.[pipeline,dev]'
	@touch $@

# What datatrove's own steps need, beside ours: in a folder of its own, since one of them takes a module name of another.
build/peers.stamp: benchmarks/peers.txt | $(VENV)/dev.stamp
	@$(PIP) --no-deps --target build/peers --requirement $<
	@$(PIP) --no-deps --target build/peers kenlm==0.3.0 || echo "kenlm is built from source and could not be: its rows stay empty"
	@touch $@

# The other readers, in another folder for the same reason: this one comes last on the path, and only where one of them is driven.
build/peers-reader.stamp: benchmarks/reader_peers.txt | $(VENV)/dev.stamp
	@$(PIP) --no-deps --upgrade --target build/peers-reader --requirement $<
	@touch $@

# 3.11 first: the tests run on it. `ensurepip` is missing where Debian's python3-venv is.
$(PY):
	@for python in $(PYTHON) python3.11 python3.12 python3.13 python3; do \
	    if $$python -c 'import sys, venv, ensurepip; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' 2>/dev/null; then \
	        exec $$python -m venv $(VENV); \
	    fi; \
	done; \
	echo "make: no usable Python found: needs 3.11, 3.12 or 3.13 with its venv module (Debian: apt install python3-venv)," \
	    "or give one: make PYTHON=/path/to/python3.12" >&2; \
	exit 1

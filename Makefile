# `make run` and `make test` each do all the set-up from nothing.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
# deepspeed compiles its kernels when they are first needed, never at installation.
export DS_BUILD_OPS := 0

.PHONY: setup run check test test-slow lint bench faults clean

setup: $(INSTALLED)

$(INSTALLED): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt torch
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	touch $@

run: setup
	$(BIN)/dure batch seven --rehearse

# Two processes, whatever the machine: each may start a Ray cluster that takes all cores for its own. A file
# stays in one process, so that what its tests share is made once; the order is that of tests/conftest.py.
test: setup
	$(BIN)/python -m pytest --numprocesses 2 --dist loadfile --no-loadscope-reorder

# What can be known in two minutes: lint, and the tests that start no Ray and train no model.
check: lint
	$(BIN)/python -m pytest --numprocesses 2 --dist loadfile -m 'not slow and not heavy'

# What takes longer than the default run should; once, whole, before a release.
test-slow: setup
	$(BIN)/python -m pytest -m slow --durations 10

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: setup
	$(BIN)/python -m tests.benchmarks.start
	$(BIN)/python -m tests.benchmarks.output_layer
	$(BIN)/python -m tests.benchmarks.validation
	$(BIN)/python -m tests.benchmarks.throughput
	$(BIN)/python -m tests.benchmarks.rouge
	$(BIN)/python -m tests.benchmarks.trial_overhead
	$(BIN)/python -m tests.benchmarks.nsmc
	$(BIN)/python -m tests.benchmarks.search

# Some faults need a small disk of their own, which only root may mount; they say so where that is not possible.
faults: setup
	$(BIN)/python -m tests.faults

clean:
	rm -rf $(VENV) outputs .pytest_cache .mypy_cache .ruff_cache dist

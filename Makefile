# `make run` and `make test` each do all the set-up from nothing.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
# deepspeed compiles its kernels when they are first needed, never at installation.
export DS_BUILD_OPS := 0

.PHONY: setup run check test test-slow lint docs bench faults clean

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

# What can be known in two minutes: lint, and the tests that start no Ray, train no model and do not count for seconds.
check: lint
	$(BIN)/python -m pytest --numprocesses 2 --dist loadfile -m 'not slow and not heavy'

# What takes longer than the default run should; once, whole, before a release.
test-slow: setup
	$(BIN)/python -m pytest -m slow --durations 10

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# Strict: a broken link or an unknown reference is an error. Begins at docs/_build/index.html.
docs: setup
	$(BIN)/python -m sphinx -W --keep-going -n -q docs docs/_build

# One table of everything that is compared, and all repeats in outputs/benchmarks.json; a quarter of an hour.
bench: setup
	$(BIN)/python -m tests.benchmarks.all

# Some faults need a small disk of their own, which only root may mount; they say so where that is not possible.
faults: setup
	$(BIN)/python -m tests.faults

clean:
	rm -rf $(VENV) outputs docs/_build docs/reference .pytest_cache .mypy_cache .ruff_cache dist

# make            says what there is
# Targets run in .venv where there is one, else in the environment that is active.
PYTHON = $(if $(wildcard .venv/bin/python),.venv/bin/python,python)

.PHONY: help setup test quick lint format docs bench

help:  ## this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "make %-8s %s\n", $$1, $$2}' Makefile

setup:  ## .venv with the package as it stands here and what a contributor needs
	python -m venv .venv
	.venv/bin/python -m pip install -e '.[dev]'

test:  ## all tests
	$(PYTHON) -m pytest

quick:  ## the tests that take at most ten seconds each
	$(PYTHON) -m pytest -m 'not slow'

lint:  ## ruff and pyright; changes nothing
	$(PYTHON) -m ruff check .
	$(PYTHON) -m ruff format --check .
	$(PYTHON) -m pyright

format:  ## let ruff put files in order
	$(PYTHON) -m ruff check --fix .
	$(PYTHON) -m ruff format .

docs:  ## the pages, in site/; a warning is an error
	NO_MKDOCS_2_WARNING=1 $(PYTHON) -m mkdocs build --strict

bench:  ## a step against the step as published, a few minutes
	$(PYTHON) -m gwg_dist.bench --quick

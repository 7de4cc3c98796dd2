# `make demo` and `make test` work on a fresh machine: each makes its own environment first.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
export OMP_NUM_THREADS ?= 1

.DEFAULT_GOAL := help
.PHONY: help install demo test check bench clean

help: ## this list
	@awk -F ':.*## ' '/^[a-z]+:.*## /{printf "  make %-8s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

install: $(STAMP) ## the environment alone, into .venv

# torch goes first, pinned and by itself: everything after it finds it there
$(STAMP): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -q --disable-pip-version-check -c constraints.txt torch==2.13.0
	$(BIN)/python -m pip install -q --disable-pip-version-check -c constraints.txt -e '.[train,llm,report,trees,cf,dev]'
	@touch $(STAMP)

demo: install ## the whole job on the built-in data set, in under 3 minutes
	$(BIN)/distilrec demo

test: install ## every test (those on real data where DISTILREC_DATA names their folder)
	@scripts/system-deps.sh
	$(BIN)/python -m pytest -n 2 --dist loadfile

check: install ## style, types, room borders, sizes
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python scripts/check_sizes.py

bench: install ## measurements beside other libraries (an hour and more)
	@for script in benchmarks/*/run.sh; do if [ -x "$$script" ]; then "$$script"; fi; done

clean: ## remove caches and built files; runs and the environment stay
	rm -rf build dist .pytest_cache .ruff_cache .hypothesis .import_linter_cache
	find src tests scripts benchmarks -name __pycache__ -type d -prune -exec rm -rf {} +

# Everything goes through a virtual environment in .venv, made from requirements.lock on first use.
#   make demo    the whole product on built-in data: data, sweep, report (a few minutes)
#   make test    format, lint, types, documentation, tests
PYTHON ?= python3
BIN := .venv/bin
DEMO := demo
export PYTHONUNBUFFERED := 1

.PHONY: help demo test quick check format lint types docs tests schema lock images stack clean

help:
	@echo "make demo    run a small sweep on built-in data and write its report to $(DEMO)/"
	@echo "make test    set up, then check format, lint, types and documentation and run the tests (what CI runs)"
	@echo "make quick   format, lint, types and the tests that need no Ray, MLflow, database or training (about a minute)"
	@echo "make docs    build the documentation into site/; a broken link is an error"
	@echo "make format  rewrite the sources in the project's format"
	@echo "make schema  write the JSON schemas of configuration files anew"
	@echo "make lock    write requirements.lock anew from pyproject.toml"
	@echo "make images  build the images of the sweep and of MLflow"
	@echo "make stack   build everything and run the demo in a cluster of containers"
	@echo "make clean   remove $(DEMO)/, site/ and caches (not .venv)"

.venv/.installed: requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(None if sys.version_info >= (3, 11) else "Python 3.11 or newer is needed, this is " + sys.version.split()[0] + "; name another one: make PYTHON=python3.12 ...")'
	@echo "== Setting up .venv (once; about three minutes and 2 GB)"
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --disable-pip-version-check -r requirements.lock
	$(BIN)/python -m pip install --disable-pip-version-check --quiet --no-deps --no-build-isolation --editable .
	@touch $@

demo: .venv/.installed
	@echo "== Two procedural domains: urban (labelled) and rural (not)"
	$(BIN)/segda datasets make scenes $(DEMO)/scenes --size 128 --train 48 --val 16
	@echo "== The sweep"
	@rm -rf $(DEMO)/runs
	$(BIN)/sweeps run sweeps/configs/demo.yaml --store $(DEMO)/runs --data-root scenes=$(DEMO)/scenes

test: lint types docs tests

# While working: all but the documentation and the tests of tests/heavy.txt.
quick: lint types
	@echo "== Tests that need no Ray, MLflow, database or training"
	$(BIN)/python -m pytest -n 2 -q --quick -m "not slow" tests


check: test

lint: .venv/.installed
	@echo "== Format and lint"
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .

types: .venv/.installed
	@echo "== Types"
	$(BIN)/mypy

# Tables of keys, commands, methods and networks are made from the code on the way, networks measured: about a minute.
docs: .venv/.installed
	@echo "== Documentation"
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict

tests: .venv/.installed
	@echo "== Tests"
	$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder

format: .venv/.installed
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

# What editors complete and check files by, made from the code; a test says when they are out of date.
schema: .venv/.installed
	$(BIN)/segda schema training > segda/schemas/training.json
	$(BIN)/segda schema dataset > segda/schemas/dataset.json
	$(BIN)/sweeps schema > sweeps/schemas/sweep.json

# torch is pinned without its build suffix: the index decides between the CPU and the CUDA build.
lock:
	$(PYTHON) -m venv .lock
	.lock/bin/python -m pip install --disable-pip-version-check "torch==2.13.0" "setuptools>=77"
	.lock/bin/python -m pip install --disable-pip-version-check ".[dev,cluster]"
	.lock/bin/python -m pip freeze --all --exclude pip --exclude segda | sed 's/+cpu//' > requirements.lock
	rm -rf .lock build *.egg-info

# Both need Docker; see docker/README.md.
images:
	docker build --file docker/Dockerfile --target cpu --tag sweeps:cpu .
	docker build --file docker/Dockerfile --target mlflow --tag sweeps-mlflow:cpu .

stack:
	docker/run-stack

clean:
	rm -rf $(DEMO) site .pytest_cache .mypy_cache .ruff_cache .hypothesis

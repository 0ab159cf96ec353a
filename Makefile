# `make example` runs the main job, `make test` the tests; both start from nothing but Python, pip and make.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
EXAMPLE_ARGS ?=

.PHONY: example test test-slow test-backends compatibility lint check format gallery docs benchmarks clean

# The stamp is newer than pyproject.toml once everything is installed, so a second make installs nothing.
$(READY): pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --editable '.[plots,test,lint]'
	touch $@

example: $(READY)
	$(BIN)/python examples/mnist_search.py $(EXAMPLE_ARGS)

test: $(READY)
	$(BIN)/python -m pytest

test-slow: $(READY)
	$(BIN)/python -m pytest -m slow

# The contract of schedules, callbacks and range tests on JAX as well.
BACKEND_TESTS := $(addprefix tests/test_,schedules.py scheduler.py early_stopping.py ensemble.py callbacks.py sweep.py \
	training.py)

$(VENV)/.ready-jax: $(READY)
	$(BIN)/python -m pip install --quiet --editable '.[jax]'
	touch $@

test-backends: $(VENV)/.ready-jax
	KERAS_BACKEND=jax JAX_PLATFORMS=cpu $(BIN)/python -m pytest $(BACKEND_TESTS)

# Runs every case of docs/compatibility.md on the real Keras Tuner and writes the table.
compatibility: $(READY)
	$(BIN)/python tests/compatibility.py

lint: $(READY)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

format: $(READY)
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

check: lint test

gallery: $(READY)
	$(BIN)/python docs/gallery.py
	$(BIN)/python docs/gallery_search.py

# The site, in site/; it asks the network for nothing. `$(BIN)/mkdocs serve` shows it while you write.
$(VENV)/.ready-docs: $(READY)
	$(BIN)/python -m pip install --quiet --editable '.[docs]'
	touch $@

docs: $(VENV)/.ready-docs
	$(BIN)/mkdocs build --strict

# What the documents' tables are made from; an hour or more. Each can be stopped and started again.
benchmarks: $(READY)
	$(BIN)/python benchmarks/record_grids.py --split report
	$(BIN)/python benchmarks/bounds.py
	$(BIN)/python benchmarks/range_test.py
	$(BIN)/python benchmarks/schedules.py

clean:
	rm -rf $(VENV) build dist site .pytest_cache .mypy_cache .ruff_cache .hypothesis

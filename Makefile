# `make example` runs the main job, `make test` the tests; both start from nothing but Python, pip and make.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
EXAMPLE_ARGS ?=
# Files of tests side by side. Each process holds a TensorFlow of its own, hence not one for each of many cores; on two
# cores the third works while the others wait, for a browser say.
IN_PARALLEL := --numprocesses 3 --dist loadfile

.PHONY: example test test-slow test-backends test-lowest compatibility lint check format gallery docs benchmarks clean

# The stamp is newer than pyproject.toml once everything is installed, so a second make installs nothing.
$(READY): pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --editable '.[plots,test,lint]'
	touch $@

example: $(READY)
	$(BIN)/python examples/mnist_search.py $(EXAMPLE_ARGS)

test: $(READY)
	$(BIN)/python -m pytest $(IN_PARALLEL)

test-slow: $(READY)
	$(BIN)/python -m pytest -m slow $(IN_PARALLEL)

# The contract of schedules, callbacks and range tests on JAX as well.
BACKEND_TESTS := $(addprefix tests/test_,schedules.py scheduler.py early_stopping.py ensemble.py averaging.py callbacks.py \
	sweep.py training.py variables.py)

$(VENV)/.ready-jax: $(READY)
	$(BIN)/python -m pip install --quiet --editable '.[jax]'
	touch $@

test-backends: $(VENV)/.ready-jax
	KERAS_BACKEND=jax JAX_PLATFORMS=cpu $(BIN)/python -m pytest $(IN_PARALLEL) $(BACKEND_TESTS)

# The oldest of everything that pyproject.toml allows, in an environment of its own.
LOWEST := .venv-lowest
$(LOWEST)/.ready: pyproject.toml
	$(PYTHON) -m venv $(LOWEST)
	$(LOWEST)/bin/python -m pip install --quiet --editable '.[test]' jinja2==3.1.0 keras==3.12.0 keras-tuner==1.4.8 \
		matplotlib==3.8.0 numpy==1.26.0 rich==13.0.0 scikit-learn==1.4.0 scipy==1.12.0 tensorboard==2.18.0 tensorflow==2.18.0
	touch $@

test-lowest: $(LOWEST)/.ready
	$(LOWEST)/bin/python -m pytest $(IN_PARALLEL)

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

# Some of what the documents' tables are made from; the others, of many hours, stand above each table. What has been
# recorded is not recorded again; times are measured anew, and put into the documents.
benchmarks: $(READY)
	$(BIN)/python benchmarks/record_grids.py --split report
	$(BIN)/python benchmarks/bounds.py
	$(BIN)/python benchmarks/range_test.py
	$(BIN)/python benchmarks/schedules.py
	$(BIN)/python benchmarks/costs.py

clean:
	rm -rf $(VENV) $(LOWEST) build dist site .pytest_cache .mypy_cache .ruff_cache .hypothesis

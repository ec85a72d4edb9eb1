# Every target makes the virtual environment first, so that each works from a bare clone.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
RUN ?= run
LAVA_PYTHON ?=
PEER_PYTHON ?=
SNNTORCH_PYTHON ?= $(PEER_PYTHON)

.DEFAULT_GOAL := help
.PHONY: help install demo test lint format types bench bench-migrate check-engines check-migrate check-netx check-nir train docs clean

help:  ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "%-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

$(BIN)/.installed: pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "snnzoo needs Python 3.11 or newer: make PYTHON=python3.12")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --upgrade pip
	PYTHONWARNINGS=ignore $(BIN)/pip install --quiet --editable '.[test]'
	touch $@

install: $(BIN)/.installed  ## Make the virtual environment and install into it

demo: install  ## Train on embedded digits, score as SNN, export for netx; no network but the installation
	$(BIN)/zoo demo --force -o demo

test: install  ## Lint, types, layers, and all tests
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python -m pytest

lint: install  ## Lint and check the layers
	$(BIN)/ruff check .
	$(BIN)/lint-imports

format: install  ## Format the code
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

types: install  ## Check the types
	$(BIN)/mypy

train: install  ## Train the shipped MNIST networks into RUN (default run), an hour or two
	for name in mnist-dense mnist-dense-shallow mnist-conv; do $(BIN)/zoo train $$name -o $(RUN)/$$name --threads 1 || exit 1; done

bench: install  ## Time an ANN epoch and an SNN test run beside lava-dl: make bench LAVA_PYTHON=...
	mkdir -p tests/benchmarks/results
	$(BIN)/python tests/benchmarks/bench_lava_dl.py --lava-python "$(LAVA_PYTHON)" --json > tests/benchmarks/results/lava_dl.json
	$(BIN)/python tests/make_readme_tables.py --print lava-dl

bench-migrate: install  ## Time and memory of migrating 4 GiB of safetensors
	$(BIN)/python tests/benchmarks/bench_migrate.py

check-migrate: install  ## Migrate 10,000 random torch modules there and back
	SNNZOO_THOROUGH=1 $(BIN)/python -m pytest tests/property/test_weight_norm.py

check-engines: install  ## Compare every spike of both engines on the full MNIST test set, for each packaged model
	$(BIN)/python tests/benchmarks/check_engines.py $$($(BIN)/python -c 'import zoo; print(*zoo.model_names())')

check-netx: install  ## Export the packaged models, run them in Lava, compare every spike: make check-netx LAVA_PYTHON=...
	$(BIN)/python tests/benchmarks/check_export.py --lava-python "$(LAVA_PYTHON)" $$($(BIN)/python -c 'import zoo; print(*zoo.model_names())')

check-nir: install  ## Exchange NIR files with others: make check-nir PEER_PYTHON=(sinabs, norse) SNNTORCH_PYTHON=...
	$(BIN)/python tests/benchmarks/check_nir.py --peer-python "$(PEER_PYTHON)" --snntorch-python "$(SNNTORCH_PYTHON)"

docs: install  ## Write the tables of the README from what was measured
	$(BIN)/python tests/make_readme_tables.py

clean:  ## Remove what the targets made
	rm -rf $(VENV) demo

# Every target makes the virtual environment first, so that each works from a bare clone.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
RUN ?= run
LAVA_PYTHON ?=
PEER_PYTHON ?=
ONNX_FOLDER ?=
DATA_DIR ?=
BENCH_OPTIONS ?=
PEERS ?= $(VENV)/peers
SNNTORCH_PYTHON ?= $(PEER_PYTHON)

.DEFAULT_GOAL := help
.PHONY: help install demo test lint format types bench bench-accuracy bench-convert bench-scaling bench-migrate bench-cluster estimate-cluster check-kills profile check-engines check-migrate check-netx check-nir check-onnx train docs clean

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

# Apart from ours, as some of them ask for older versions of what we use.
$(PEERS)/.installed: pyproject.toml
	$(PYTHON) -m venv $(PEERS)
	$(PEERS)/bin/pip install --quiet '.[bench]'
	touch $@

OTHERS := $(if $(PEER_PYTHON),,$(PEERS)/.installed)
bench bench-convert bench-scaling: export PEER_PYTHON := $(or $(PEER_PYTHON),$(PEERS)/bin/python)
bench bench-accuracy: export LAVA_PYTHON := $(LAVA_PYTHON)

bench: install $(OTHERS)  ## Time inference and training beside the other programs: make bench LAVA_PYTHON=...
	$(BIN)/python tests/benchmarks/bench.py $(BENCH_OPTIONS)
	$(BIN)/python tests/make_readme_tables.py --print bench

bench-accuracy: install  ## Time to 98.7 % on MNIST beside lava-dl's tutorial, an hour: make bench-accuracy LAVA_PYTHON=...
	$(BIN)/python tests/benchmarks/bench_accuracy.py $(BENCH_OPTIONS)
	$(BIN)/python tests/make_readme_tables.py --print bench

bench-convert: install $(OTHERS)  ## Convert a folder of ONNX files beside SpikingJelly, hours: ONNX_FOLDER=... DATA_DIR=... BENCH_OPTIONS=
	$(BIN)/python tests/benchmarks/bench_convert.py --folder "$(ONNX_FOLDER)" $(if $(DATA_DIR),--data "$(DATA_DIR)") $(BENCH_OPTIONS)
	$(BIN)/python tests/make_readme_tables.py --print convert

bench-scaling: install $(OTHERS)  ## Plot time against T, width and batch, ten minutes
	$(BIN)/python tests/benchmarks/bench_scaling.py $(BENCH_OPTIONS)

profile: install  ## Where the time of a training step and of an inference goes
	$(BIN)/python tests/benchmarks/profile_steps.py

bench-migrate: install  ## Time and memory of migrating 4 GiB of safetensors
	$(BIN)/python tests/benchmarks/bench_migrate.py

bench-cluster: install  ## Train in one process and in two: losses and time
	$(BIN)/python tests/benchmarks/bench_cluster.py $(if $(DATA_DIR),--data "$(DATA_DIR)") $(BENCH_OPTIONS)
	$(BIN)/python tests/make_readme_tables.py --print cluster

estimate-cluster: install  ## What tuning a network of ImageNet's size would cost, on paper
	$(BIN)/python tests/benchmarks/estimate_cluster.py
	$(BIN)/python tests/make_readme_tables.py --print estimate

check-kills: install  ## kill -9 at 100 random moments of a training, and of a conversion
	$(BIN)/python tests/benchmarks/kill_campaign.py $(BENCH_OPTIONS)
	$(BIN)/python tests/make_readme_tables.py --print kills

check-migrate: install  ## Migrate 10,000 random torch modules there and back
	SNNZOO_THOROUGH=1 $(BIN)/python -m pytest tests/property/test_weight_norm.py

check-engines: install  ## Compare every spike of both engines on the full MNIST test set, for each packaged model
	$(BIN)/python tests/benchmarks/check_engines.py $$($(BIN)/python -c 'import zoo; print(*zoo.model_names())')

check-netx: install  ## Export the packaged models, run them in Lava, compare every spike: make check-netx LAVA_PYTHON=...
	$(BIN)/python tests/benchmarks/check_export.py --lava-python "$(LAVA_PYTHON)" $$($(BIN)/python -c 'import zoo; print(*zoo.model_names())')

check-nir: install  ## Exchange NIR files with others: make check-nir PEER_PYTHON=(sinabs, norse) SNNTORCH_PYTHON=...
	$(BIN)/python tests/benchmarks/check_nir.py --peer-python "$(PEER_PYTHON)" --snntorch-python "$(SNNTORCH_PYTHON)"

check-onnx: install  ## Import a folder of ONNX files, score them on MNIST: make check-onnx ONNX_FOLDER=... DATA_DIR=...
	$(BIN)/python tests/benchmarks/check_onnx.py --folder "$(ONNX_FOLDER)" $(if $(DATA_DIR),--data "$(DATA_DIR)")

docs: install  ## Write the tables of the README from what was measured
	$(BIN)/python tests/make_readme_tables.py

clean:  ## Remove what the targets made
	rm -rf $(VENV) demo

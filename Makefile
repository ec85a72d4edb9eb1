# Every target makes the virtual environment first, so that each works from a bare clone.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
RUN ?= run
LAVA_PYTHON ?=
PEER_PYTHON ?=
KERAS_PYTHON ?=
ONNX_FOLDER ?=
DATA ?=
DATA_DIR ?=
BENCH_OPTIONS ?=
FORMAT ?=
EXECUTIONS ?= 20000
SECONDS ?= 600
PEERS ?= $(VENV)/peers
SNNTORCH_PYTHON ?= $(PEER_PYTHON)

.DEFAULT_GOAL := help
.PHONY: help install demo test test-oldest lint format types cards bench bench-convert bench-deep bench-messages bench-small bench-stream bench-readers bench-delays bench-values fuzz profile check-c check-engines check-graphs check-migrate check-netx check-neurobench check-nir check-onnx check-site check-kills train notebooks docs docs-site wheel clean

help:  ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "%-17s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

$(BIN)/.installed: pyproject.toml setup.py $(wildcard bootstrap_core/ops/native/*)
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "snnzoo needs Python 3.11 or newer: make PYTHON=python3.12")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --upgrade pip
	PYTHONWARNINGS=ignore $(BIN)/pip install --quiet --editable '.[test]'
	touch $@

install: $(BIN)/.installed  ## Make the virtual environment and install into it

demo: install  ## A model scored and exported, an ANN converted, two pages; no network but the installation
	$(BIN)/zoo demo --force -o demo

test: lint types  ## Lint, types, layers, and all tests
	$(BIN)/python -m pytest --numprocesses auto --maxprocesses 4 --dist loadfile

test-oldest:  ## All tests with the oldest versions that pyproject.toml allows
	$(PYTHON) -m venv $(VENV)-oldest
	$(VENV)-oldest/bin/pip install --quiet uv
	$(VENV)-oldest/bin/uv pip install --quiet --python $(VENV)-oldest --resolution lowest-direct --editable '.[test]'
	$(VENV)-oldest/bin/python -m pytest --numprocesses auto --maxprocesses 4 --dist loadfile

lint: install  ## Lint, check the format, the layers and the rules of plain words
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports
	$(BIN)/python tests/lint_texts.py

format: install  ## Format the code
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

types: install  ## Check the types
	$(BIN)/mypy

train: install  ## Train the shipped networks into RUN (default run), some hours
	for name in $$($(BIN)/python -c 'import zoo; print(*zoo.model_names())'); do $(BIN)/zoo train $$name -o $(RUN)/$$name --threads 1 || exit 1; done

cards: install  ## Measure the packaged models on their full test sets; say where their cards differ: DATA_DIR=...
	failed=; for name in $$($(BIN)/python -c 'import zoo; print(*zoo.model_names())'); do \
	    $(BIN)/zoo card $$name --check $(if $(DATA_DIR),--data-dir "$(DATA_DIR)") || failed="$$failed $$name"; \
	done; test -z "$$failed" || { echo "not as their cards say:$$failed"; exit 1; }

# Apart from ours, as some of them ask for older versions of what we use.
$(PEERS)/.installed: pyproject.toml
	$(PYTHON) -m venv $(PEERS)
	$(PEERS)/bin/pip install --quiet '.[bench]'
	touch $@

OTHERS := $(if $(PEER_PYTHON),,$(PEERS)/.installed)
bench bench-convert bench-stream: export PEER_PYTHON := $(or $(PEER_PYTHON),$(PEERS)/bin/python)
bench: export LAVA_PYTHON := $(LAVA_PYTHON)

bench: install $(OTHERS)  ## Time inference and training beside the other programs: make bench LAVA_PYTHON=...
	$(BIN)/python tests/benchmarks/bench.py $(BENCH_OPTIONS)
	$(BIN)/python tests/make_readme_tables.py --print bench

bench-convert: install $(OTHERS)  ## Convert a folder of ONNX files beside SpikingJelly, hours: ONNX_FOLDER=... DATA_DIR=... BENCH_OPTIONS=
	$(BIN)/python tests/benchmarks/bench_convert.py --folder "$(ONNX_FOLDER)" $(if $(DATA_DIR),--data "$(DATA_DIR)") $(BENCH_OPTIONS)
	$(BIN)/python tests/make_readme_tables.py --print convert
	$(BIN)/python tests/make_readme_tables.py --print convert-notes

bench-deep: install  ## Convert a deep network of colour images for several T: make bench-deep ONNX=... DATA_DIR=... BENCH_OPTIONS=--raw
	$(BIN)/python tests/benchmarks/bench_deep.py "$(ONNX)" $(if $(DATA_DIR),--data-dir "$(DATA_DIR)") $(BENCH_OPTIONS)
	$(BIN)/python tests/make_readme_tables.py --print deep

bench-messages: install  ## Convert a network to sigma-delta neurons: make bench-messages ONNX=... DATA=mnist BENCH_OPTIONS=--raw
	$(BIN)/python tests/benchmarks/bench_deep.py "$(ONNX)" --messages --data "$(DATA)" $(if $(DATA_DIR),--data-dir "$(DATA_DIR)") $(BENCH_OPTIONS)
	$(BIN)/python tests/make_readme_tables.py --print messages

bench-small: install  ## Convert a file with 300 digits, 20 times for each T: make bench-small ONNX=... DATA_DIR=... BENCH_OPTIONS=
	$(BIN)/python tests/benchmarks/bench_small.py "$(ONNX)" $(if $(DATA_DIR),--data-dir "$(DATA_DIR)") $(BENCH_OPTIONS)
	$(BIN)/python tests/make_readme_tables.py --print small

bench-stream: install $(OTHERS)  ## Time one step of a stream beside norse and snnTorch, a minute
	$(BIN)/python tests/benchmarks/bench_stream.py $(BENCH_OPTIONS)
	$(BIN)/python tests/make_readme_tables.py --print stream

profile: install  ## Where the time of a training step and of an inference goes
	$(BIN)/python tests/benchmarks/profile_steps.py
	$(BIN)/python tests/make_readme_tables.py --print profile

bench-readers: install  ## Memory of each reader against the size of its file
	$(BIN)/python tests/benchmarks/bench_readers.py
	$(BIN)/python tests/make_readme_tables.py --print readers

$(BIN)/.fuzz: $(BIN)/.installed
	$(BIN)/pip install --quiet --editable '.[fuzz]'
	touch $@

fuzz: $(BIN)/.fuzz  ## Read files changed at random: make fuzz FORMAT='nir torch' EXECUTIONS=20000 SECONDS=600, each engine and format
	$(BIN)/python tests/fuzz/fuzz.py $(FORMAT) --executions $(EXECUTIONS) --seconds $(SECONDS)
	$(BIN)/python tests/make_readme_tables.py --print fuzz

bench-delays: install  ## Train networks with trained and with fixed delays, some minutes
	$(BIN)/python tests/benchmarks/bench_delays.py $(BENCH_OPTIONS)
	$(BIN)/python tests/make_readme_tables.py --print delays

bench-values: install  ## Train the network of values of bootstrap_core/README.md for several thresholds, two minutes
	$(BIN)/python tests/benchmarks/bench_values.py
	$(BIN)/python tests/make_readme_tables.py --print values

check-migrate: install  ## Migrate 10,000 random torch modules there and back
	SNNZOO_THOROUGH=1 $(BIN)/python -m pytest tests/property/test_weight_norm.py

check-engines: install  ## Compare every spike of both engines on the full test set of each packaged model's data
	$(BIN)/python tests/benchmarks/check_engines.py
	$(BIN)/python tests/make_readme_tables.py --print engines

check-c: install  ## Compile the C source of the packaged models, of networks of events and of 1,000 random ones, compare all answers: DATA_DIR=...
	$(BIN)/python tests/benchmarks/check_c.py $(if $(DATA_DIR),--data-dir "$(DATA_DIR)") $(BENCH_OPTIONS)
	$(BIN)/python tests/benchmarks/check_c_events.py
	SNNZOO_THOROUGH=1 $(BIN)/python -m pytest tests/property/test_c_source.py
	$(BIN)/python tests/make_readme_tables.py --print c
	$(BIN)/python tests/make_readme_tables.py --print c-events

check-netx: install  ## Export the packaged models and random corner cases, compare every spike with Lava: make check-netx LAVA_PYTHON=...
	$(BIN)/python tests/benchmarks/check_netx.py --lava-python "$(LAVA_PYTHON)" $$($(BIN)/python -c 'import zoo; print(*zoo.model_names())')
	$(BIN)/python tests/benchmarks/check_netx_corners.py --lava-python "$(LAVA_PYTHON)" $(BENCH_OPTIONS)
	$(BIN)/python tests/benchmarks/check_netx_corners.py --lava-python "$(LAVA_PYTHON)" --sigma-delta $(BENCH_OPTIONS)

check-nir: install  ## Exchange NIR files with others: make check-nir PEER_PYTHON=(sinabs, norse) SNNTORCH_PYTHON=(snntorch, spikingjelly)
	$(BIN)/python tests/benchmarks/check_nir.py --peer-python "$(PEER_PYTHON)" --snntorch-python "$(SNNTORCH_PYTHON)"

check-onnx: install  ## Import a folder of ONNX files, score them on MNIST: make check-onnx ONNX_FOLDER=... DATA_DIR=...
	$(BIN)/python tests/benchmarks/check_onnx.py --folder "$(ONNX_FOLDER)" $(if $(DATA_DIR),--data "$(DATA_DIR)")

check-site: install  ## Run the packaged models in their pages in Chromium, compare all answers, time them: make check-site DATA_DIR=...
	$(BIN)/python tests/benchmarks/check_site.py $(if $(DATA_DIR),--data-dir "$(DATA_DIR)") $(BENCH_OPTIONS)
	$(BIN)/python tests/make_readme_tables.py --print site

check-graphs: install  ## Convert classifiers of torchvision (pip install torchvision) with random weights: make check-graphs KERAS_PYTHON=(keras, tensorflow-cpu, tf2onnx)
	$(BIN)/python tests/benchmarks/check_graphs.py --keras-python "$(KERAS_PYTHON)"
	$(BIN)/python tests/make_readme_tables.py --print graphs

check-neurobench: install  ## Run NeuroBench's harness on three models (pip install neurobench), its figures beside ours: DATA_DIR=...
	$(BIN)/python tests/benchmarks/check_neurobench.py $(if $(DATA_DIR),--data-dir "$(DATA_DIR)")
	$(BIN)/python tests/make_readme_tables.py --print neurobench

check-kills: install  ## kill -9 at 100 random moments of zoo pull, publish and train, and of convert
	$(BIN)/python tests/benchmarks/check_kills.py $(BENCH_OPTIONS)
	$(BIN)/python tests/make_readme_tables.py --print kills

$(BIN)/.docs: $(BIN)/.installed
	$(BIN)/pip install --quiet --editable '.[docs]'
	touch $@

notebooks: $(BIN)/.docs  ## Run the notebooks in Jupyter, some minutes, into demo/notebooks
	mkdir -p demo/notebooks
	cp tests/notebooks/*.ipynb demo/notebooks/
	$(BIN)/jupyter-execute --inplace demo/notebooks/*.ipynb

docs-site: $(BIN)/.docs  ## Write the documentation as a site with search, from Markdown, docstrings and notebooks, into demo/docs
	$(BIN)/python tests/make_docs_site.py demo/docs

docs: install  ## Write the tables and pictures of the README, and the index of the package, from what was measured
	$(BIN)/python tests/make_package_index.py
	$(BIN)/zoo demo --force -o demo > tests/benchmarks/results/demo.txt
	$(BIN)/zoo predict mnist-dense demo/seven.png --animate tests/pictures/seven.gif --force
	$(BIN)/python tests/make_accuracy_picture.py
	$(BIN)/python tests/make_readme_tables.py

wheel: install  ## Build this machine's wheel, with the native library, into dist
	$(BIN)/pip wheel --quiet --no-deps --wheel-dir dist .

clean:  ## Remove what the targets made
	rm -rf $(VENV) demo build dist bootstrap_core/ops/*.so

# Every target sets up the environment that it needs. Requires Python 3.11 or newer, make and a network.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PYTEST := $(BIN)/python -m pytest
# on two cores, two processes with two threads each are many times slower than with one thread each
export OMP_NUM_THREADS ?= 1

.PHONY: help setup demo serve test test-common test-torch test-keras test-long test-long-common test-long-torch test-long-keras lint types audit clean kills server-kills test-exports test-gpu bench-gpu

help:
	@echo "make demo        five runs per framework on handwritten digits, then their comparison (under 5 minutes)"
	@echo "make serve       the MLflow UI on http://127.0.0.1:5000, or the next free port"
	@echo "make setup       the environment in $(VENV) with all development tools"
	@echo "make test        the tests (under 10 minutes)"
	@echo "make test-long   the tests that take minutes each"
	@echo "make kills       kills runs at random moments and continues them: 80 kills per framework, then 40 while files"
	@echo "                 are written (an hour or two)"
	@echo "make server-kills kills an MLflow server 21 times during runs, delays and loses its answers (half an hour)"
	@echo "make test-gpu    sixteen checks on one NVIDIA GPU (8 minutes), in an environment that has a framework"
	@echo "make bench-gpu   throughput on one NVIDIA GPU, on one page"
	@echo "make lint types  ruff and mypy"
	@echo "make audit       known vulnerabilities of the installed versions (pip-audit)"
	@echo "make clean       removes $(VENV); runs and caches are unchanged"
	@echo "one test file:   $(PYTEST) tests/data/test_split.py"

# Installs again if a list of requirements is newer than the environment.
$(VENV)/requirements.done: requirements.txt requirements-common.txt constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "Tandem needs Python 3.11 or newer; $(PYTHON) is $$($(PYTHON) --version). Try make PYTHON=python3.12"; exit 1; }
	@echo "Creating $(VENV) and installing requirements.txt: some minutes and about 9 GB"
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.txt -c constraints.txt
	@touch $@

$(VENV)/requirements-dev.done: $(VENV)/requirements.done requirements-dev.txt
	@echo "Installing requirements-dev.txt"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements-dev.txt -c constraints.txt
	@touch $@

setup: $(VENV)/requirements-dev.done

demo: $(VENV)/requirements.done
	$(BIN)/python -m tandem.launch.demo

serve: $(VENV)/requirements.done
	$(BIN)/python mlflow_server/serve.py

# One framework per process: together they crash, or compete for the GPU's memory. Two processes at a time.
test: $(VENV)/requirements-dev.done
	@$(MAKE) --no-print-directory -j2 --keep-going --output-sync=target test-common test-torch test-keras

test-common: $(VENV)/requirements-dev.done
	$(PYTEST) tests -m "not long" --ignore tests/on_torch --ignore tests/on_keras

test-torch: $(VENV)/requirements-dev.done
	$(PYTEST) tests/on_torch -m "not long"

test-keras: $(VENV)/requirements-dev.done
	$(PYTEST) tests/on_keras -m "not long"

# Two processes at a time, as in `make test`.
test-long: $(VENV)/requirements-dev.done
	@$(MAKE) --no-print-directory -j2 --keep-going --output-sync=target test-long-common test-long-torch test-long-keras

test-long-common: $(VENV)/requirements-dev.done
	$(PYTEST) tests -m long --ignore tests/on_torch --ignore tests/on_keras

test-long-torch: $(VENV)/requirements-dev.done
	$(PYTEST) tests/on_torch -m long

test-long-keras: $(VENV)/requirements-dev.done
	$(PYTEST) tests/on_keras -m long

# Exports of all backbones from Keras, each in a process of its own, which checks that it took at most 7.5 GB of memory.
EXPORTS := tests/on_keras/test_onnx_export.py::test_onnx_file_gives_the_probabilities_of_the_network
test-exports: $(VENV)/requirements-dev.done
	for name in $$($(BIN)/python -c 'from tandem.protocol.backbones import CATALOGUE; print(*CATALOGUE)'); do \
		TANDEM_TEST_EXPORTS=1 $(PYTEST) "$(EXPORTS)[$$name]" || exit 1; done

kills: $(VENV)/requirements-dev.done
	$(BIN)/python -m tests.scripts.kills --kills 50
	$(BIN)/python -m tests.scripts.kills --kills 10 --during first_phase
	$(BIN)/python -m tests.scripts.kills --kills 20 --during checkpoints
	$(BIN)/python -m tests.scripts.write_kills --kills 10

server-kills: $(VENV)/requirements-dev.done
	$(BIN)/python -m tests.scripts.server_kills --kills 20

# Not from requirements.txt, which has no CUDA packages for Keras: GPU_PYTHON is a Python with a framework for the GPU.
GPU_PYTHON ?= $(shell test -x .venv-torch/bin/python && echo .venv-torch/bin/python || echo $(BIN)/python)

test-gpu:
	$(GPU_PYTHON) -m tests.on_gpu $(ARGUMENTS)

bench-gpu:
	$(GPU_PYTHON) -m benchmarks.gpu $(ARGUMENTS)

lint: $(VENV)/requirements-dev.done
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/bandit --quiet --recursive -ll tandem mlflow_server compare.py train_torch.py train_keras.py

# Known vulnerabilities of the tested versions, from pypi.org; skipped with a line where it cannot be reached.
audit:
	@$(PYTHON) -m venv .audit && .audit/bin/python -m pip install --quiet pip-audit==2.10.1
	@if $(PYTHON) -c 'import urllib.request; urllib.request.urlopen("https://pypi.org/pypi/pip/json", timeout=10)' 2>/dev/null; \
		then .audit/bin/pip-audit --requirement constraints.txt --no-deps --disable-pip; \
		else echo "audit: skipped, since pypi.org cannot be reached"; fi

types: $(VENV)/requirements-dev.done
	$(BIN)/mypy

clean:
	rm -rf $(VENV)

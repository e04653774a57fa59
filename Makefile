# Everything a newcomer needs from a machine that has only Python >= 3.10:
#   make demo     export a model, verify it on real images, restore one of them
#   make test     lint and tests, about 9 minutes
# `make help` lists the rest.

PYTHON       ?=
PIP_FLAGS    ?=
PYTEST_FLAGS ?= --numprocesses auto --maxprocesses 4 --dist loadfile
DEMO_MODEL   ?= agileir_tiny_x2
DEMO_FLAGS   ?=
DEMO_IMAGE   ?= $(firstword $(wildcard images/samples/chelsea* images/samples/*.png images/samples/*.jpg))

VENV    := .venv
BIN     := $(VENV)/bin
LOG     := $(VENV)/install.log
CANDIDATES := $(or $(PYTHON),python3 python3.14 python3.13 python3.12 python3.11 python3.10 python)
TYPING  := build/typing
# A development environment can run the demonstration too: use it where there is one.
RUNTIME := $(if $(wildcard $(VENV)/.installed-dev),$(VENV)/.installed-dev,$(VENV)/.installed-runtime)

# Import, number types, operators, export, ladder, plugin life cycle, command line, one engine of TensorRT-RTX.
SHORT := tests/test_architecture.py tests/test_packaging.py tests/models/test_weights.py tests/models/test_checkpoint.py \
    tests/plugins/test_operators.py tests/export/test_exporter.py tests/export/test_opset.py \
    tests/engines/test_half_emulation.py tests/parity/test_ladder.py tests/contract/test_tensorrt_plugins.py \
    tests/contract/test_rtx_plugins.py tests/cli/test_process.py tests/engines/test_rtx_build.py

DEMO_ONNX   := demo/$(basename $(notdir $(DEMO_MODEL))).onnx
DEMO_RESULT := demo/$(basename $(notdir $(DEMO_IMAGE)))_restored.png

.DEFAULT_GOAL := help
.NOTPARALLEL:
.PHONY: help env venv demo test lint types unit short slow oldest format clean

help:
	@echo 'make demo     environment, export $(DEMO_MODEL), verify it on images, restore one'
	@echo 'make test     environment, ruff, pytest: about 9 minutes on two cores'
	@echo 'make lint     ruff check and ruff format --check'
	@echo 'make types    mypy'
	@echo 'make short    a choice of the tests, about 3 minutes: what another Python or other releases would break'
	@echo 'make format   let ruff fix and format the code'
	@echo 'make slow     the tests marked slow'
	@echo 'make env      only the development environment, in $(VENV)'
	@echo 'make oldest   write tests/oldest-requirements.txt, the oldest releases that pyproject.toml allows (needs uv)'
	@echo 'make clean    remove the environment, the demonstration and what tools cached in this folder'
	@echo
	@echo 'Variables: PYTHON (interpreter >= 3.10), VENV (folder of the environment), PIP_FLAGS (passed to pip install),'
	@echo '           PYTEST_FLAGS, DEMO_MODEL, DEMO_FLAGS, DEMO_IMAGE'

# ---- the environment: made again only when pyproject.toml changes ----

env: $(VENV)/.installed-dev

$(VENV)/.installed-runtime: EXTRAS :=
$(VENV)/.installed-dev: EXTRAS := [dev]

$(VENV)/.installed-runtime $(VENV)/.installed-dev: pyproject.toml
	@$(MAKE) --no-print-directory --silent venv
	@echo "Installing agileir-export$(EXTRAS) and what it needs into $(VENV): some minutes the first time ..."
	@if { $(BIN)/python -m pip install $(PIP_FLAGS) 'pip>=22.3' && \
	      $(BIN)/python -m pip install $(PIP_FLAGS) --editable '.$(EXTRAS)'; } >$(LOG) 2>&1; then \
	    touch $(VENV)/.installed-runtime $@; \
	else \
	    echo 'error: the installation failed; the end of $(LOG):' >&2; tail -n 25 $(LOG) >&2; exit 4; \
	fi

# An empty environment, unless there is a usable one.
venv:
	@if $(BIN)/python -m pip --version >/dev/null 2>&1; then exit 0; fi; \
	python=''; \
	for candidate in $(CANDIDATES); do \
	    if "$$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 10))' >/dev/null 2>&1; then python=$$candidate; break; fi; \
	done; \
	if [ -z "$$python" ]; then \
	    found=$$($(firstword $(CANDIDATES)) --version 2>&1) || found='not found'; \
	    echo "error: Python 3.10 or newer is needed; $(firstword $(CANDIDATES)): $$found" >&2; \
	    echo '       Install one, or name the one to use: make ... PYTHON=/path/to/python3' >&2; exit 4; \
	fi; \
	if ! "$$python" -c 'import ensurepip, venv' >/dev/null 2>&1; then \
	    echo "error: $$python has no complete venv module (venv and ensurepip), which makes the environment" >&2; \
	    echo '       Debian and Ubuntu have it in a package of its own: apt install python3-venv' >&2; exit 4; \
	fi; \
	echo "Making $(VENV) with $$("$$python" --version)"; \
	"$$python" -m venv --clear $(VENV)

# ---- checks ----

test: env lint unit

lint: env
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

# Not part of `make test`: releases of the libraries differ in the types they declare, which breaks nothing.
# The folder may have any name: mypy sees it as the package agileir_export through a link.
types: env
	@mkdir -p $(TYPING) && ln -sfn ../.. $(TYPING)/agileir_export
	MYPYPATH=$(TYPING) $(BIN)/mypy --package agileir_export

# The pytest command, not `python -m pytest`: the latter puts the root on sys.path, where rooms could shadow other packages.
unit: env
	$(BIN)/pytest $(PYTEST_FLAGS)

short: env
	$(BIN)/agileir-export --help
	$(BIN)/pytest $(PYTEST_FLAGS) $(SHORT)

oldest:
	uv pip compile --quiet --extra dev --resolution lowest-direct --python-version 3.10 --no-annotate \
	    pyproject.toml --output-file tests/oldest-requirements.txt

slow: env
	$(BIN)/pytest -m 'slow and not gpu' $(PYTEST_FLAGS) || [ $$? -eq 5 ]

format: env
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# ---- the demonstration ----

demo: $(RUNTIME)
	@if [ -z '$(DEMO_IMAGE)' ]; then echo 'error: no image in images/samples; name one: make demo DEMO_IMAGE=photo.png' >&2; exit 2; fi
	@mkdir -p demo && rm -f '$(DEMO_ONNX)' '$(DEMO_RESULT)'
	$(BIN)/agileir-export onnx '$(DEMO_MODEL)' $(DEMO_FLAGS) -o '$(DEMO_ONNX)'
	$(BIN)/agileir-export restore '$(DEMO_ONNX)' '$(DEMO_IMAGE)' -o '$(DEMO_RESULT)'
	@echo
	@echo 'model (ONNX):   $(DEMO_ONNX)'
	@echo 'picture before: $(DEMO_IMAGE)'
	@echo 'picture after:  $(DEMO_RESULT)'

clean:
	rm -rf $(VENV) build demo *.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

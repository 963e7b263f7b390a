# `make` prints this help. Every target makes the virtual environment it needs in .venv.

PYTHON  ?= python3
VENV    ?= .venv
NETWORK ?=
CONFIG  ?= small
SIM     ?= verilator
FRAMES  ?= 1
PDK     ?= mini
LIBERTY ?=

BIN := $(VENV)/bin
comma := ,
# One stamp per extra: installing an extra again is cheap, torch comes only with training and the tests.
install = $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[$(1)]'

.DEFAULT_GOAL := help
.PHONY: help sim synth test test-slow lint verilog train export import-matrix clean

help:  ## print this help
	@echo "Pactolus: trained low-bit networks, their integers, and RTL that computes the very same integers."
	@echo
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12
	@echo
	@echo "Variables: NETWORK=$(if $(NETWORK),$(NETWORK),all committed) CONFIG=$(CONFIG) SIM=$(SIM) FRAMES=$(FRAMES) PDK=$(PDK) LIBERTY=$(LIBERTY)"
	@echo "All else: $(BIN)/pactolus --help"

sim: $(VENV)/.sim  ## committed networks through the RTL, every code compared (NETWORK= CONFIG= SIM= FRAMES=)
	@$(BIN)/pactolus sim $(NETWORK) --config $(CONFIG) --simulator $(SIM) --frames $(FRAMES)

synth: $(VENV)/.synth  ## area per bit width: table, CSV, plot (PDK= LIBERTY=)
	@$(BIN)/pactolus synth --pdk $(PDK) $(if $(LIBERTY),--liberty $(LIBERTY))

test: $(VENV)/.test  ## every test
	@$(BIN)/python -m pytest --numprocesses auto --dist worksteal

test-slow: $(VENV)/.test $(VENV)/.search  ## what is too slow for make test: every planted fault, more networks
	@$(BIN)/python -m pytest --numprocesses auto --dist worksteal -m slow

lint: $(VENV)/.test  ## ruff and mypy
	@$(BIN)/ruff check .
	@$(BIN)/mypy

verilog: $(VENV)/.sim  ## Verilog of the accelerator (CONFIG=)
	@$(BIN)/pactolus verilog --config $(CONFIG)

train: $(VENV)/.train  ## train both digits networks at every width, ending with their accuracy
	@$(BIN)/pactolus train

import-matrix: $(VENV)/.test  ## docs/import-matrix.md: ONNX files, whether they run and how exactly (EXTERNAL=FOLDERS)
	@$(BIN)/python -m golden.tests.qonnx_graphs build/imports/generated
	@$(BIN)/python -m pactolus.tests.brevitas_models build/imports/brevitas
	@for form in integer qcdq qonnx; do $(BIN)/pactolus onnx --form $$form; done
	@$(BIN)/pactolus report imports build/imports build/onnx $(EXTERNAL) --output build/reports/import-matrix $(foreach \
		range,integer_input=0$(comma)15 integer_operators=0$(comma)255 multi_threshold_bipolar=0$(comma)255 \
		dvs_cnn=-1$(comma)1 residual_1=0$(comma)255,--input-range $(range))
	@cp build/reports/import-matrix.md docs/import-matrix.md

clean:  ## remove build/ and the virtual environment
	rm -rf build $(VENV)

$(BIN)/python:
	@echo "Making the virtual environment in $(VENV) ..."
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python must be 3.11 or newer, not " + sys.version.split()[0])'
	@$(PYTHON) -m venv $(VENV)

$(VENV)/.sim $(VENV)/.synth $(VENV)/.train $(VENV)/.search: $(VENV)/.%: $(BIN)/python pyproject.toml constraints.txt
	@echo "Installing what 'make $*' needs ..."
	@$(call install,$*)
	@touch $@

$(VENV)/.test: $(BIN)/python pyproject.toml constraints.txt
	@echo "Installing what 'make test' needs ..."
	@$(call install,sim$(comma)synth$(comma)train$(comma)test)
	@touch $@ $(VENV)/.sim $(VENV)/.synth $(VENV)/.train

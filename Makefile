# make demo · make test · make report · make lint
PYTHON ?= python3
VENV ?= .venv
JOBS ?= 2
BIN := $(VENV)/bin

# A machine whose torch is already installed keeps it: the environment then sees the system's packages.
HAS_TORCH := $(shell $(PYTHON) -c "import torch" 2>/dev/null && echo yes)
VENV_FLAGS := $(if $(HAS_TORCH),--system-site-packages)
DROP := $(if $(HAS_TORCH),^torch==|^triton==|^nvidia,^$$)

.PHONY: demo example published test test-slow test-gpu test-cluster torture report bench lint clean help
.DEFAULT_GOAL := help

help: ## list the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*##/\t/' | expand -t 14

$(VENV)/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV_FLAGS) $(VENV)
	grep -vE '$(DROP)' constraints.txt > $(VENV)/constraints.txt
	$(BIN)/python -m pip install -q --disable-pip-version-check -c $(VENV)/constraints.txt -e '.[dev]'
	touch $@

demo: $(VENV)/installed ## a real sweep on a real model, about twelve minutes on two cores: prints the table
	$(BIN)/ptq-bench assets --fetch smollm2-135m wiki news analogies
	$(BIN)/ptq-bench run experiment=demo
	$(BIN)/ptq-bench report --results results/demo --reports reports/local --name demo
	@echo "The whole report: reports/local/demo/report.html (git ignores reports/local and results/demo)"

example: $(VENV)/installed ## the demo's report as it is shown in README.md: rewrites reports/demo, which git tracks
	$(BIN)/ptq-bench run experiment=demo
	$(BIN)/ptq-bench report --results results/demo --name demo

test: $(VENV)/installed ## the tests, under ten minutes on two cores; JOBS=0: in one process
	$(BIN)/python -m pytest -m "not slow and not gpu and not cluster and not torture" -n $(JOBS) --dist loadfile --no-loadscope-reorder

test-slow: $(VENV)/installed ## the slow tests too
	$(BIN)/python -m pytest -m "not gpu and not cluster and not torture" --timeout=1800

test-gpu: $(VENV)/installed ## the tests that need a GPU
	$(BIN)/python -m pytest -m gpu --timeout=1800

$(VENV)/clusters: $(VENV)/installed
	$(BIN)/python -m pip install -q --disable-pip-version-check -c $(VENV)/constraints.txt -e '.[dev,ray,slurm]'
	touch $@

test-cluster: $(VENV)/clusters ## sweeps on Ray and submitit whose processes and nodes are killed, about ten minutes on two cores
	$(BIN)/python -m pytest -m cluster --timeout=600

torture: $(VENV)/installed ## hundreds of kills and disk faults, a few hours
	$(BIN)/python -m pytest -s -m torture --timeout=14400

published: $(VENV)/installed ## the published sweep and its report, some hours on two cores; data sets from the hub
	$(BIN)/ptq-bench run experiment=published hydra.launcher.slots=$(JOBS)
	$(BIN)/ptq-bench report --results results/published --name published

report: $(VENV)/installed ## tables and figures of everything in results/, into reports/report
	$(BIN)/ptq-bench report

bench: $(VENV)/installed ## measure the solvers on this machine, into reports/local
	$(BIN)/ptq-bench bench solvers --out reports/local

lint: $(VENV)/installed ## ruff
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

clean: ## remove the environment, not the results
	rm -rf $(VENV) build dist *.egg-info

# make demo · make test · make report · make lint
PYTHON ?= python3
VENV ?= .venv
JOBS ?= 0
BIN := $(VENV)/bin

# A machine whose torch is already installed keeps it: the environment then sees the system's packages.
HAS_TORCH := $(shell $(PYTHON) -c "import torch" 2>/dev/null && echo yes)
VENV_FLAGS := $(if $(HAS_TORCH),--system-site-packages)
DROP := $(if $(HAS_TORCH),^torch==|^triton==|^nvidia,^$$)

.PHONY: demo test test-slow test-gpu report bench lint clean help
.DEFAULT_GOAL := help

help: ## list the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*##/\t/' | expand -t 14

$(VENV)/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV_FLAGS) $(VENV)
	grep -vE '$(DROP)' constraints.txt > $(VENV)/constraints.txt
	$(BIN)/python -m pip install -q --disable-pip-version-check -c $(VENV)/constraints.txt -e '.[dev]'
	touch $@

demo: $(VENV)/installed ## a real sweep on a real model, about twelve minutes on two cores: prints the table, writes reports/demo.md
	$(BIN)/ptq-bench assets --fetch smollm2-135m wiki news analogies
	$(BIN)/ptq-bench run experiment=demo
	$(BIN)/ptq-bench report name=demo paths.results=results/demo

test: $(VENV)/installed ## the tests, under ten minutes on two cores; JOBS=2: in two processes
	$(BIN)/python -m pytest -m "not slow and not gpu" -n $(JOBS) --dist loadfile

test-slow: $(VENV)/installed ## the slow tests too
	$(BIN)/python -m pytest -m "not gpu" --timeout=1800

test-gpu: $(VENV)/installed ## the tests that need a GPU
	$(BIN)/python -m pytest -m gpu --timeout=1800

report: $(VENV)/installed ## tables and figures of everything in results/
	$(BIN)/ptq-bench report

bench: $(VENV)/installed ## measure the solvers on this machine
	$(BIN)/ptq-bench bench solvers

lint: $(VENV)/installed ## ruff
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

clean: ## remove the environment, not the results
	rm -rf $(VENV) build dist *.egg-info

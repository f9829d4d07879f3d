# Every target does its own set-up on a fresh machine: make, Python >= 3.10 with venv, and nothing else.
PYTHON  ?= python3
WORKERS ?= 2
VENV    := .venv
BIN     := $(VENV)/bin
READY   := $(VENV)/.ready

# Where `make search` writes: runs/digits, or the first of runs/digits-2, runs/digits-3, … that is free.
ifndef OUT
OUT := $(shell d=runs/digits; n=1; while [ -e "$$d" ]; do n=$$((n + 1)); d=runs/digits-$$n; done; echo "$$d")
endif
SEARCH_ARGS ?=
TRAIN_ARGS  ?= --epochs 45
BENCH_ARGS  ?=

export NO_MKDOCS_2_WARNING = 1

.PHONY: search test test-slow check docs bench bench-native clean

# MSG-DAS on the embedded digits, retraining of what it finds, and the report
search: $(READY)
	$(BIN)/msgdas search --data digits --space nasbench201 --method msgdas --out "$(OUT)" $(SEARCH_ARGS)
	$(BIN)/msgdas train "$(OUT)" $(TRAIN_ARGS)
	$(BIN)/msgdas report "$(OUT)"

test: $(READY)
	$(BIN)/pytest -n $(WORKERS) --dist loadfile

# every test, the slow ones too
test-slow: $(READY)
	$(BIN)/pytest -n $(WORKERS) --dist loadfile -m "slow or not slow"

check: $(READY)
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/lint-imports --no-logo
	$(BIN)/mypy msgdas $(wildcard recipes/*.py benchmarks/*.py examples/*.py)
	@$(BIN)/mkdocs build --strict >$(VENV)/docs.log 2>&1 || { grep -v INFO $(VENV)/docs.log; false; }

docs: $(READY)
	$(BIN)/mkdocs build --strict

# Time and memory of search steps; fails if a ratio has grown since the committed result. bench-native: with the kernels.
bench: $(READY)
	$(BIN)/python benchmarks/memory_and_speed.py --compare benchmarks/results/memory_and_speed.csv \
		--out runs/bench/memory_and_speed.csv $(BENCH_ARGS)

bench-native: $(READY)
	$(BIN)/python benchmarks/memory_and_speed.py --native --compare benchmarks/results/native.csv \
		--out runs/bench/native.csv $(BENCH_ARGS)

# what can be made again; runs/ stays
clean:
	rm -rf $(VENV) site build dist .pytest_cache .ruff_cache .mypy_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# Once, and again when the dependencies change. The stamp is written last: a set-up that was cut short is repeated.
$(READY): pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet torch==2.14.1 torchvision==0.29.1
	$(BIN)/python -m pip install --quiet --editable ".[dev]"
	touch $@

# Everything from a bare clone: needs only Python >= 3.11 and make.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: demo test check soak bench bench-speed bench-accuracy setup clean

setup: $(VENV)/.ready

$(VENV)/.ready: pyproject.toml constraints.txt
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet -c constraints.txt torch
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[dev]'
	@touch $@

demo: setup
	$(BIN)/quickstudy demo

test: setup check
	$(BIN)/python -m pytest -m "not slow" -n auto --dist worksteal

check: setup
	$(BIN)/ruff check src tests benchmarks examples
	$(BIN)/ruff format --check src tests benchmarks examples
	$(BIN)/mypy
	$(BIN)/lint-imports

soak: setup
	$(BIN)/python -m pytest -m slow

bench: setup
	$(BIN)/python benchmarks/tasks.py
	$(BIN)/python benchmarks/scaling.py
	$(BIN)/python benchmarks/memory.py
	$(BIN)/python benchmarks/hessian_products.py
	$(BIN)/python benchmarks/results_table.py --write

bench-speed: setup  # beside the peers; hours
	$(BIN)/python benchmarks/strategies.py --threads 2
	$(BIN)/python benchmarks/strategies.py --threads 1
	$(BIN)/python benchmarks/strategies.py --compile
	$(BIN)/python benchmarks/meta_step.py --modes second first evaluate
	$(BIN)/python benchmarks/meta_step.py --channels 64
	$(BIN)/python benchmarks/results_table.py --write

bench-accuracy: setup  # of bf16, of a search and of adapters, on the data in $$QUICKSTUDY_DATA; an hour
	$(BIN)/python benchmarks/precision.py
	$(BIN)/python benchmarks/tune.py
	$(BIN)/python examples/lora_strokes.py --out results/lora_strokes.json
	$(BIN)/python benchmarks/results_table.py --write

clean:
	rm -rf $(VENV) build dist .pytest_cache .mypy_cache .ruff_cache

# Everything from a bare clone: needs only Python >= 3.11 and make.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: demo test check docs docs-links soak bench bench-speed bench-accuracy setup clean

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
	$(BIN)/ruff check src tests benchmarks examples docs
	$(BIN)/ruff format --check src tests benchmarks examples docs
	$(BIN)/mypy
	$(BIN)/lint-imports

docs: setup  # the site, in build/docs/index.html; fetches nothing
	$(BIN)/python -m sphinx -n -W --keep-going -q -b html -d build/doctrees docs build/docs

docs-links: setup  # whether the addresses of others that the pages name still answer
	$(BIN)/python -m sphinx -q -b linkcheck -d build/doctrees docs build/links

soak: setup
	$(BIN)/python -m pytest -m slow

bench: setup
	$(BIN)/python benchmarks/tasks.py
	$(BIN)/python benchmarks/adaptation.py
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

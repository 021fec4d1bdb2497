# linfair: two commands from a fresh clone. `make help` lists them.
#
# Needs make and Python 3.11 or newer. Variables, all optional:
#   PYTHON=/path/to/python3.11   the Python that the environment is made from
#   PIP_OPTIONS="..."            extra options for pip install, such as an index that holds CPU builds
#   HASHES=no                    the tested versions without their hashes: for builds that requirements.txt does not list
#   PYTEST_OPTIONS="..."         extra options for pytest, such as -x or -k toy
#   NOTEBOOKS=                    with nothing behind it, `make test` leaves the notebooks out
#   WORKERS=2                    processes that share the tests, one thread each
#   VENV=.venv                   where the environment lives

VENV ?= .venv
PIP_OPTIONS ?=
PYTEST_OPTIONS ?=
WORKERS ?= 2
NOTEBOOKS ?= notebooks

CANDIDATES := $(or $(PYTHON),python3.11 python3.12 python3.13 python3)
PY := $(VENV)/bin/python
STAMP := $(VENV)/.linfair-installed
PIP := $(VENV)/.pip-installed
# pip prefers files whose index states a hash: a CPU build in a plain folder of wheels has to be asked for.
CPU := $(shell sed -n 's/^\(torch==[^ ]*\).*/\1+cpu/p' requirements.txt)
OFFERED = $(shell $(PY) -m pip index versions torch $(PIP_OPTIONS) 2>/dev/null | grep -qwF '$(subst torch==,,$(CPU))' && \
  echo '$(CPU)' > $(VENV)/cpu.txt && echo '-c $(VENV)/cpu.txt')
TEST = $(PY) -m pytest -n $(WORKERS) --dist loadfile
RECENT := import sys; sys.exit(sys.version_info < (3, 11))
ENGINE := .venv-mpc
FITS := import sys; sys.exit(sys.version_info[:2] not in ((3, 10), (3, 11)))

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help env book test slow lint mpc lock clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-6s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

env: $(STAMP) ## create .venv and install the pinned versions (the targets below do so by themselves)

book: $(STAMP) ## run the notebooks at their small profile, build the site, print the file to open
	$(PY) -m linfair_book.build prepare
	$(VENV)/bin/jupyter-book build . -W -n --keep-going
	$(PY) -m linfair_book.build check

test slow: export OMP_NUM_THREADS := 1
test: $(STAMP) ## run the tests, and every notebook at its smoke profile (browser tests are skipped without a built book and Chromium)
	$(TEST) -m "not slow" $(PYTEST_OPTIONS)
	$(if $(NOTEBOOKS),LINFAIR_PROFILE=smoke $(TEST) -q --nbval-lax $(NOTEBOOKS))

slow: $(STAMP) ## run the tests that kill processes, start a cluster or a compiler, or run a how-to page
	$(TEST:loadfile=worksteal) -m slow $(PYTEST_OPTIONS)

lint: $(STAMP) ## check the style of code, docstrings and notebooks
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .

mpc: $(ENGINE)/.installed ## install the engine of private inference into .venv-mpc, for `linfair cost --measure` (Python 3.10 or 3.11)

lock: $(PIP) ## write the tested versions and their hashes anew (needs uv; .ci/lock.py says more)
	$(PY) .ci/lock.py $(LOCK_OPTIONS)

clean: ## remove what was built and cached (.venv stays)
	rm -rf _build .pytest_cache .ruff_cache .hypothesis
	find linfair tests book -type d -name __pycache__ -prune -exec rm -rf {} +

# A folder, what its Python must fit, that in words, and candidates: they are run, not looked up, as a name on the PATH
# may belong to a version that is not installed. Debian's Python comes without ensurepip; its pip then fills the
# environment from outside.
define environment
	@if ! $(1)/bin/python -c '$(2)' 2>/dev/null || ! $(1)/bin/python -m pip --version >/dev/null 2>&1; then \
	  found=; \
	  for candidate in $(4); do \
	    if "$$candidate" -c '$(2)' >/dev/null 2>&1; then found=$$candidate; break; fi; \
	  done; \
	  if [ -z "$$found" ]; then \
	    echo "No $(3) among: $(4). Name one: make $(or $(MAKECMDGOALS),env) PYTHON=/path/to/python3.11" >&2; \
	    exit 2; \
	  fi; \
	  echo "Creating $(1) with $$("$$found" --version)"; \
	  if "$$found" -c 'import ensurepip' 2>/dev/null; then \
	    "$$found" -m venv "$(1)"; \
	  else \
	    "$$found" -m venv --without-pip "$(1)" && \
	    "$$found" -m pip --python "$(1)/bin/python" install --quiet $(PIP_OPTIONS) --require-hashes -r requirements-pip.txt; \
	  fi || exit 2; \
	fi
	$(1)/bin/python -m pip install $(PIP_OPTIONS) --require-hashes -r requirements-pip.txt
endef

$(PIP): requirements-pip.txt
	$(call environment,$(VENV),$(RECENT),Python 3.11 or newer,$(CANDIDATES))
	@touch $@

$(ENGINE)/.installed: requirements-pip.txt requirements-mpc.txt
	$(call environment,$(ENGINE),$(FITS),Python 3.10 or 3.11,$(or $(PYTHON),python3.11 python3.10 python3))
	$(ENGINE)/bin/python -m pip install $(PIP_OPTIONS) --require-hashes -r requirements-mpc.txt
	$(ENGINE)/bin/python -c 'import jax, onnx, spu'
	@touch $@

$(STAMP): $(PIP) pyproject.toml requirements.txt requirements-cuda.txt
ifeq ($(HASHES),no)
	sed -e '/^[#-]/d' -e '/--hash/d' -e 's/ \\$$//' requirements.txt requirements-cuda.txt > $(VENV)/versions.txt
	$(PY) -m pip install $(PIP_OPTIONS) -c $(VENV)/versions.txt -e ".[all]"
else
	$(PY) -m pip install $(PIP_OPTIONS) --require-hashes -r requirements.txt $(OFFERED)
	$(PY) -m pip install --no-deps --no-build-isolation -e .
endif
	@touch $@

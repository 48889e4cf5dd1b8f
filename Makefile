# Short names for the commands of the README and CONTRIBUTING.md. All of them can be run again and again.

.PHONY: run test fast lint format

run:
	python3 -m venv .venv && .venv/bin/pip install -q -r requirements.txt && .venv/bin/python app.py $(ARGS)

test: .venv/dev
	.venv/bin/python -m pytest $(ARGS)

fast: .venv/dev
	.venv/bin/python -m pytest -m "not slow" $(ARGS)

lint: .venv/dev
	.venv/bin/ruff check . && .venv/bin/ruff format --check . && .venv/bin/mypy

format: .venv/dev
	.venv/bin/ruff check --fix . && .venv/bin/ruff format .

.venv/dev: requirements.txt requirements-ray.txt requirements-dev.txt
	python3 -m venv .venv && .venv/bin/pip install -q -r requirements-dev.txt && touch $@

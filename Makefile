.PHONY: test lint quickstart

test:
	bash scripts/test.sh

lint:
	ruff check . && ruff format --check . && mypy

quickstart:
	bash scripts/quickstart.sh

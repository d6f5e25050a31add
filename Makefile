.PHONY: test lint quickstart

test:
	bash scripts/test.sh

lint:
	ruff check . && ruff format --check .

quickstart:
	bash scripts/quickstart.sh

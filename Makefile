# make demo       a small project with sources of its own, locked and built here: no network, no Docker, no root
# make test       the suite; tests that need Docker or the test environment are skipped, and the last line counts them
# make test-all   the suite with the test environment: real R, conda packages and wheels (Debian 12, root; minutes at first)
# make proofs     the long series: random kills, mutants of every parser, more real packages (Docker, root; hours)
# make lint       ruff and mypy --strict
# make bench      lock and build against what this machine can read, hash and compress
# make bench-buildkit, bench-scale, bench-pushes   against BuildKit; a thousand profiles; what a bump pushes
# make bench-remote-segments   a fresh machine with and without segments in the remote cache
#
# Each does its own set-up in .venv. Needed beforehand: Python 3.11 or later, with venv.
#   make PYTHON=python3.12 test    another interpreter
#   make ARGS="-k lock -x" test    other arguments for pytest

SHELL := /bin/sh
PY := .venv/bin/python
ARGS ?=
# Workers of pytest: a count, or `auto`.
JOBS ?= auto

.PHONY: demo test test-all proofs lint bench bench-buildkit bench-scale bench-pushes bench-remote-segments help

help:
	@sed -n '1,12s/^# \{0,1\}//p' Makefile

demo: .venv/ready
	@n=1; dir=build/demo; \
	while [ -e "$$dir" ]; do n=$$((n + 1)); dir=build/demo-$$n; done; \
	mkdir -p build && .venv/bin/cregraph demo "$$dir"

test: .venv/ready
	$(PY) -m pytest -n $(JOBS) --dist loadgroup $(ARGS)

test-all: .venv/ready
	$(PY) -m pytest -n $(JOBS) --dist loadgroup --environment $(ARGS)

proofs: .venv/ready
	$(PY) -m pytest -n $(JOBS) --dist loadgroup --environment --proofs $(ARGS)

lint: .venv/ready
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/mypy

bench: .venv/ready
	$(PY) benchmarks/run.py $(ARGS)

bench-buildkit: .venv/ready
	$(PY) benchmarks/against_buildkit.py $(ARGS)

bench-scale: .venv/ready
	$(PY) benchmarks/scale.py $(ARGS)

bench-pushes: .venv/ready
	$(PY) benchmarks/pushes.py $(ARGS)

bench-remote-segments: .venv/ready
	$(PY) benchmarks/remote_segments.py $(ARGS)

# The first interpreter that is new enough makes the environment; one that it already has is kept.
.venv/ready: pyproject.toml
	@set -e; \
	if ! $(PY) -c 'import pip, sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then \
	  rm -rf .venv; \
	  found=; \
	  for name in $(PYTHON) python3 python3.13 python3.12 python3.11 python3.14; do \
	    if command -v "$$name" >/dev/null 2>&1 && "$$name" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; \
	    then found=$$name; break; fi; \
	  done; \
	  if [ -z "$$found" ]; then \
	    echo "make: Python 3.11 or later is required, and no python3 in PATH is new enough. Run make PYTHON=/path/to/python" >&2; \
	    exit 1; \
	  fi; \
	  echo "make: .venv from $$found ($$("$$found" --version))" >&2; \
	  "$$found" -m venv .venv || { \
	    rm -rf .venv; \
	    echo "make: $$found has no venv module. On Debian and Ubuntu, run apt-get install python3-venv" >&2; exit 1; }; \
	fi; \
	echo "make: installing cregraph and its tools into .venv (about a minute, from the package index)" >&2; \
	$(PY) -m pip install --quiet --disable-pip-version-check -e '.[dev]'; \
	touch .venv/ready

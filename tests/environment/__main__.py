"""`python -m tests.environment`: make the test environment, and say where it is."""

from __future__ import annotations

import sys

from . import EnvironmentUnavailable, make


def main() -> int:
    try:
        environment = make(lambda said: print(said, file=sys.stderr, flush=True))
    except EnvironmentUnavailable as why:
        print(f"the test environment cannot be made here: {why}", file=sys.stderr)
        return 1
    print(environment.root)
    return 0


raise SystemExit(main())

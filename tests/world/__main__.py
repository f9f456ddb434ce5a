"""`python -m tests.world`: make the real world, and say where it is."""

from __future__ import annotations

import sys

from . import WorldUnavailable, make


def main() -> int:
    try:
        world = make(lambda said: print(said, file=sys.stderr, flush=True))
    except WorldUnavailable as why:
        print(f"the real world cannot be made here: {why}", file=sys.stderr)
        return 1
    print(world.root)
    return 0


raise SystemExit(main())

"""The program that builds a lock a second time, in the circumstances that its parent sets (session/second_build.py).

It reads JSON on stdin: profile, options, processors. The store is $CREGRAPH_CACHE. It records nothing and sends nothing.
"""

from __future__ import annotations

import json
import os
import sys
from typing import Any

__all__ = ["main"]


def main() -> int:
    """Build the image. Return the exit code; progress and errors go to stderr."""
    from cregraph.errors import CregraphError

    asked = json.load(sys.stdin)
    if asked["processors"] and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, asked["processors"])
    try:
        _build(asked)
    except CregraphError as error:
        print(f"error: {error.message}", file=sys.stderr)
        if error.hint:
            print(f"hint: {error.hint}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        return 130
    return 0


def _build(asked: dict[str, Any]) -> None:
    from cregraph.build.image_build import build, missing_work
    from cregraph.cli.build_progress import Display
    from cregraph.session.session import BuildOptions, Session

    session = Session.of(asked["profile"], BuildOptions(**asked["options"]))
    plan, store = session.plan, session.store
    session.base.check_facts(session.facts)
    with Display(f"{plan.tag} again", missing_work(plan, store), layers=len(plan.layers)) as display:
        build(
            plan,
            session.facts,
            store=store,
            fetch=session.sources.fetch,
            engine=lambda: session.engine(fresh=True),
            jobs=session.options.workers,
            on_event=display,
        )


if __name__ == "__main__":
    sys.exit(main())

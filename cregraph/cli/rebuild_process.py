"""The program that builds a lock a second time, in the circumstances that its parent sets (session/second_build.py).

It reads JSON on stdin: profile, options, processors. The store is $CREGRAPH_CACHE. It writes nothing outside that store.
"""

from __future__ import annotations

import json
import os
import sys

__all__ = ["main"]


def main() -> int:
    """Build the image. Return the exit code; progress and errors go to stderr."""
    from cregraph.build.image_build import missing_work
    from cregraph.cli.build_progress import Display
    from cregraph.cli.error_output import report
    from cregraph.errors import CregraphError
    from cregraph.session.session import BuildOptions, Session
    from cregraph.session.session_build import build_image

    asked = json.load(sys.stdin)
    if asked["processors"] and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, asked["processors"])
    try:
        session = Session.of(asked["profile"], BuildOptions(**asked["options"]))
        plan = session.plan
        with Display(f"{plan.tag} again", missing_work(plan, session.store), layers=len(plan.layers)) as display:
            build_image(session, record=False, on_event=display)
    except CregraphError as error:
        return report(error.message, error.hint, code=error.exit_code)
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())

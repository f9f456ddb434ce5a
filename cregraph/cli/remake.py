"""A program of its own: the build of a lock into another store, under circumstances that its parent has set. See cli/rebuild.py.

What to build is JSON on stdin: profile, sources, engine, builder, context, jobs, processors. The store is $CREGRAPH_CACHE. It
resolves nothing, records nothing beside the lock and sends the image nowhere.
"""

from __future__ import annotations

import json
import os
import sys

__all__ = ["main"]


def main() -> int:
    """Build; the exit code is the command's. What happens is said on stderr."""
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


def _build(asked: dict[str, object]) -> None:
    from cregraph.build.image_build import build, missing_work
    from cregraph.cli.build import world_of
    from cregraph.cli.lock import fresh_lock
    from cregraph.cli.progress import Display
    from cregraph.engines import choice
    from cregraph.image.bases.base_image import find
    from cregraph.plan.planner import make_plan
    from cregraph.session.project import Project

    def text(name: str) -> str | None:
        return str(asked[name]) if asked[name] is not None else None

    project = Project.of(text("profile"))
    lock = fresh_lock(project)
    facts = project.facts(lock.base)
    plan = make_plan(lock, facts)
    store = project.store()
    world = world_of(project, text("sources"))
    base = find(lock.base.artifact, routes=world.routes, project=project.folder, store=store)
    base.check_facts(facts)
    root = find(lock.build_root.artifact, routes=world.routes, project=project.folder, store=store)
    display = Display(f"{plan.tag} again", missing_work(plan, store), layers=len(plan.layers))
    with display:
        build(
            plan,
            facts,
            store=store,
            fetch=world.fetch,
            engine=lambda: choice.choose(
                str(asked["engine"]),
                store=store,
                root=root,
                builder=text("builder"),
                context=text("context"),
                fresh=True,
            ),
            jobs=int(str(asked["jobs"])),
            on_event=display,
        )


if __name__ == "__main__":
    sys.exit(main())

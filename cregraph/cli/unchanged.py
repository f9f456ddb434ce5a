"""`cregraph build` where there is nothing to do: looked for first, with what that takes and no more of the program loaded.

The lock must be the one of the last finished build, fresh, and recorded as it is in `outputs`, and the layers must be here. All
else is `cregraph.cli.build`, which comes to the same answer for these too.
"""

from __future__ import annotations

import time
from typing import Any

from cregraph.build.image_build import Built, finished
from cregraph.cli.lock import fresh_lock
from cregraph.cli.say import as_json, counted, megabytes, projects, result, seconds, talk
from cregraph.digest import sha256
from cregraph.image.model.reference import check_repository
from cregraph.lock import lock_file as locks
from cregraph.lock.outputs import updated
from cregraph.plan.planner import make_plan
from cregraph.session.project import Project
from cregraph.store.known import known_of
from cregraph.store.task_records import task_results

__all__ = ["answer", "image_name", "run", "summary"]


def run(named: list[str], *, every: bool, json: bool, **options: Any) -> None:
    """Answer for these profiles when there is nothing to do for any; else, and where `options` ask for more, build."""
    plain = options["engine"] == "auto" and not any(
        options.get(name) for name in ("builder", "context", "outputs", "cache", "cache_write", "rebuild")
    )
    if plain:
        chosen = list(projects(named, every=every))
        start = time.monotonic()
        if all(_is_known(project) for project in chosen):
            found = [built for project in chosen if (built := _unchanged(project)) is not None]
            if len(found) == len(chosen):
                for built in found:
                    talk(summary(built, start, fetched="0 files fetched"))
                    if not json:
                        result(f"{image_name(built)}@{built.image.digest}")
                if json:
                    as_json([answer(built) for built in found])
                return
    from cregraph.cli import build

    build.run(named, every=every, json=json, **options)


def _is_known(project: Project) -> bool:
    """Whether the last finished build was of the lock as it is now."""
    try:
        text = project.lock_file.read_bytes()
    except OSError:
        return False
    known = known_of(project.store(), project.lock_file)
    return known is not None and known.built is not None and known.built.text == sha256(text)


def _unchanged(project: Project) -> Built | None:
    lock = fresh_lock(project, project.asked())
    facts = project.facts(lock.base)
    plan = make_plan(lock, facts)
    store = project.store()
    store.sweep()
    outputs = project.read_outputs()
    if updated(outputs, plan.tasks, task_results(plan.tasks, store)) != outputs:
        return None
    if not store.has(sha256(locks.dumps(lock).encode())):
        return None
    return finished(plan, facts, store)


def image_name(built: Built) -> str:
    """`image:tag`, in the letters that registries accept."""
    name = built.plan.lock.identity.image.lower()
    check_repository(name, where="cre.image")
    return f"{name}:{built.plan.tag}"


def answer(built: Built) -> dict[str, object]:
    """The answer for `--json`, of a build that sent the image nowhere and asked no cache."""
    return {
        "image": image_name(built),
        "tag": built.plan.tag,
        "digest": built.image.digest,
        "key": built.plan.key,
        "outputs": [],
        "made": built.made,
        "cache": {},
    }


def summary(built: Built, start: float, *, fetched: str) -> str:
    """One line on what a build made and reused, since `start` (a monotonic time)."""
    made, own = built.made, sum(layer.size for layer in built.layers)
    return (
        f"{counted(len(built.layers), 'layer')}, {megabytes(own)} over the base: "
        f"{made['layers']} made, {len(built.layers) - made['layers']} reused; "
        f"tasks: {made['tasks']} run, {len(built.plan.tasks) - made['tasks']} reused; {fetched}; "
        f"{seconds(time.monotonic() - start)}"
    )

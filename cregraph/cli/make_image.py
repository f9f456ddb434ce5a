"""The build of a session's image, with its progress on stderr, for every command that needs the image."""

from __future__ import annotations

import functools
import time

from cregraph.build.failure_report import Origin
from cregraph.build.image_build import Built, missing_work
from cregraph.cli.build_progress import Display
from cregraph.cli.build_report import summary
from cregraph.cli.notes import tell
from cregraph.cli.remote_cache_use import RemoteCacheUse
from cregraph.cli.store_use import hold
from cregraph.cli.terminal_output import counted, megabytes, talk
from cregraph.plan.parts import Task
from cregraph.review.why import why
from cregraph.session.session import Session
from cregraph.session.session_build import build_image

__all__ = ["make_image"]


def make_image(session: Session, caches: RemoteCacheUse | None = None, *, record: bool = True) -> Built:
    """Make the image of the lock in the store.

    `make_image` records results of tasks next to the lock and gives them to the remote cache, unless `record` is false: then
    a rebuild comes first.

    Raises:
        Refused: A result contradicts the recorded one, or that of the remote cache.
    """
    start = time.monotonic()
    plan, store = session.plan, session.store
    hold(session, "build")
    store.sweep()
    if record:
        session.new_outputs()  # a store that contradicts what is recorded makes no image
    caches = caches or RemoteCacheUse(session)
    caches.take()
    work = missing_work(plan, store)
    display = Display(plan.tag, work, layers=len(plan.layers))
    session.on_bytes = display.received
    with display:
        built, fresh = build_image(session, record=record, on_event=display, origin=functools.partial(_origin, session))
    fetched = counted(built.made["artifacts"], "file") + " fetched"
    if work.artifacts:
        fetched += f", {megabytes(sum(artifact.size for artifact in work.artifacts))}"
    talk(summary(built, start, fetched=fetched))
    if fresh:
        tell(session.lock, store, only=fresh)
    if record:
        caches.give()
    return built


def _origin(session: Session, task: Task) -> Origin:
    """Return the version of the package of `task`, and the shortest way from the profile to it."""
    profile = session.project.profile.as_posix()
    for answer in why(session.lock, f"{task.kind}:{task.name}", current=session.asked.targets)[:1]:
        for path in answer.paths[:1]:
            chain = " -> ".join(["", *(pin.name for pin in path.pins)]) if len(path.pins) > 1 else ""
            return Origin(answer.pin.version, f"{path.ask.where}: `{path.ask.text}`{chain}", profile)
        return Origin(answer.pin.version, "", profile)
    return Origin(profile=profile)

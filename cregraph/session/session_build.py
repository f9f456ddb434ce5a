"""One build of a session's lock: find out whether there is anything to do, build, record the results."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from cregraph.build.image_build import Built, build, finished
from cregraph.digest import sha256
from cregraph.lock import lock_file as locks
from cregraph.session.session import Session
from cregraph.store.known import Built as LastBuild
from cregraph.store.known import known_of, remember

if TYPE_CHECKING:
    from cregraph.build.build_run import Event
    from cregraph.build.failure_report import Origin
    from cregraph.plan.parts import Task

__all__ = ["build_image", "is_last_build", "unchanged_image"]


def is_last_build(session: Session) -> bool:
    """Return whether the last finished build was of the lock file as it is now. Reads the lock file and one record."""
    try:
        text = session.project.lock_file.read_bytes()
    except OSError:
        return False
    known = known_of(session.store, session.project.lock_file)
    return known is not None and known.built is not None and known.built.text == sha256(text)


def unchanged_image(session: Session) -> Built | None:
    """Return the image of the lock if the store holds it whole and nothing is left to record; else None."""
    plan, store = session.plan, session.store
    store.sweep()
    if session.new_outputs() != session.outputs or not store.has(sha256(locks.dumps(session.lock).encode())):
        return None
    return finished(plan, session.facts, store)


def build_image(
    session: Session, *, record: bool, on_event: Callable[[Event], None], origin: Callable[[Task], Origin] | None = None
) -> tuple[Built, set[str]]:
    """Make the image of the lock in the store. Return it with the names of the segments that were made.

    `record` says whether results are held against those recorded next to the lock, and recorded there. `origin` says for a
    message where a failed task comes from.

    Raises:
        CregraphError: Something cannot be fetched or made. Complete objects stay in the store.
        Refused: A task gave another result than the recorded one.
    """
    from cregraph.store.throughput import Throughput

    plan, store = session.plan, session.store
    session.base.check_facts(session.facts)
    throughput = Throughput()
    fresh: set[str] = set()

    def noted(event: Event) -> None:
        on_event(event)
        if (event.what, event.subject) == ("made", "segment"):
            fresh.add(event.name)
        if event.what in ("fetched", "made") and event.subject in ("artifact", "segment", "layer"):
            throughput.note(event.subject, event.seconds, event.size)

    built = build(
        plan,
        session.facts,
        store=store,
        fetch=session.sources.fetch,
        engine=session.engine,
        jobs=session.options.workers,
        keep_going=session.options.keep_going,
        on_event=noted,
        recorded=session.outputs.expected() if record else {},
        origin=origin,
    )
    if record:
        session.write_outputs()
    throughput.save(store)
    _remember(session, built)
    return built, fresh


def _remember(session: Session, built: Built) -> None:
    """Keep what was built of this lock file: `plan` compares with it, and `cache gc` keeps it."""
    store, file = session.store, session.project.lock_file
    text = locks.dumps(session.lock).encode()  # not the file's: it may have changed while this was built
    now = LastBuild(text=sha256(text), key=built.plan.key, digest=built.image.digest)
    before = known_of(store, file)
    if before is None or before.built != now or not store.has(now.text):
        store.add(text)
        remember(store, file, built=now)

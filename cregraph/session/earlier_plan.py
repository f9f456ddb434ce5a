"""The plan that a session's plan is compared with: of the last build, or of a lock that the user named."""

from __future__ import annotations

from dataclasses import dataclass

from cregraph.errors import CregraphError
from cregraph.kinds import KINDS
from cregraph.lock import lock_file as locks
from cregraph.plan.planner import Plan, make_plan
from cregraph.session.revision import END, Files, Revision, Side, facts_at, lock_at, lock_named, project_of
from cregraph.session.session import Session
from cregraph.store.known import known_of
from cregraph.text import printable

__all__ = ["EarlierPlan", "last_build", "named_plan"]


@dataclass(frozen=True, kw_only=True, slots=True)
class EarlierPlan:
    """The plan to compare with. `name` is for people; `plan` is None if it cannot be made any more, and `lost` says why."""

    name: str
    plan: Plan | None
    lost: str = ""


def named_plan(session: Session, text: str) -> EarlierPlan:
    """Return the plan of a lock file, of a profile's lock, or of this profile's lock in a git revision."""
    file = lock_named(text)
    side: Side = Files(folder=project_of(file)) if file else Revision.of(text, session.project.folder)
    path = file.relative_to(side.folder).as_posix() if file else f"locks/{session.project.name}{END}"
    lock = lock_at(side, path)
    if lock is None:
        raise CregraphError(f"`{printable(side.shown(path))}` does not exist", hint="name a lock file, or a revision that has it")
    where, facts = facts_at(side, lock)
    if facts is None:
        raise CregraphError(
            f"`{printable(side.shown(path))}` cannot be compared: `{where}` does not exist",
            hint="restore the facts of its base (`git checkout -- bases`)",
        )
    return EarlierPlan(name=printable(text), plan=make_plan(lock, facts))


def last_build(session: Session) -> EarlierPlan | None:
    """Return the plan of the last finished build of this lock file in this store; None if there was no build."""
    known = known_of(session.store, session.project.lock_file)
    if known is None or known.built is None:
        return None
    if known.built.key == session.plan.key:
        return EarlierPlan(name="the last build", plan=session.plan)
    try:
        text = session.store.verified(known.built.text, "the lock of the last build").read_text(encoding="utf-8")
        lock = locks.loads(text, name="the lock of the last build", kinds=KINDS)
        where, facts = facts_at(Files(folder=session.project.folder), lock)
        if facts is None:
            return EarlierPlan(name="the last build", plan=None, lost=f"`{where}`, the facts of its base, does not exist")
        return EarlierPlan(name="the last build", plan=make_plan(lock, facts))
    except (CregraphError, OSError, UnicodeDecodeError) as error:
        return EarlierPlan(name="the last build", plan=None, lost=printable(str(error)))

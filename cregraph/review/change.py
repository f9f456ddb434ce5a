"""A change of a lock and its consequences: what differs, which stages rebuild, which tag and key the image gets. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from cregraph.kinds import KINDS
from cregraph.lock.diff import AskChange, PinChange, Setting, compare
from cregraph.lock.lock_file import Lock
from cregraph.plan.planner import Plan

__all__ = ["LockChange", "change_of"]


@dataclass(frozen=True, kw_only=True, slots=True)
class LockChange:
    """All that differs between two locks.

    Pins and asks are sorted by ecosystem. `rebuilds`, `stages` (the number that the new lock has), tags and keys are None
    without plans.
    """

    same: bool
    pins: tuple[PinChange, ...] = ()
    asks: tuple[AskChange, ...] = ()
    settings: tuple[Setting, ...] = ()
    rebuilds: tuple[str, ...] | None = None
    stages: int | None = None
    old_tag: str | None = None
    new_tag: str | None = None
    old_key: str | None = None
    new_key: str | None = None


def change_of(old: Lock, new: Lock, *, old_plan: Plan | None = None, new_plan: Plan | None = None) -> LockChange:
    """Return what `new` changes. Stages that rebuild need both plans."""
    diff = compare(old, new, KINDS)
    rebuilds = None
    if old_plan is not None and new_plan is not None:
        rebuilds = tuple(name for name, key in new_plan.stages.items() if old_plan.stages.get(name) != key)
    return LockChange(
        same=diff.same and (old_plan is None or new_plan is None or old_plan.key == new_plan.key),
        pins=tuple(sorted(diff.pins, key=_rank)),
        asks=tuple(sorted(diff.asks, key=lambda a: (list(KINDS).index(a.kind), not a.added, a.text, a.stage))),
        settings=diff.settings,
        rebuilds=rebuilds,
        stages=None if rebuilds is None else len(new.stages),
        old_tag=old_plan.tag if old_plan else None,
        new_tag=new_plan.tag if new_plan else None,
        old_key=old_plan.key if old_plan else None,
        new_key=new_plan.key if new_plan else None,
    )


def _rank(change: PinChange) -> tuple[int, bool, int, str, str]:
    """Pins that both have, then added, then removed ones; those that only the sandbox sees come last."""
    order = {"added": 1, "removed": 2}
    return list(KINDS).index(change.kind), change.build, order.get(change.how, 0), change.name, change.target

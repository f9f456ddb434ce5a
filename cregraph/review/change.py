"""A change of a lock and its consequences: what differs, which stages rebuild, which tag and key the image gets. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from cregraph.kinds import KINDS
from cregraph.lock.diff import LockDiff, compare
from cregraph.lock.lock_file import Lock
from cregraph.plan.planner import Plan

__all__ = ["LockChange", "change_of"]


@dataclass(frozen=True, kw_only=True, slots=True)
class LockChange:
    """What differs between two locks, and their plans, which are None if they are not known."""

    diff: LockDiff
    old: Plan | None
    new: Plan | None

    @property
    def same(self) -> bool:
        """Return whether both locks give the same image, as far as it is known."""
        return self.diff.same and (self.old is None or self.new is None or self.old.key == self.new.key)

    @property
    def rebuilds(self) -> tuple[str, ...] | None:
        """Return the stages of the new lock that rebuild; None unless both plans are known."""
        if self.old is None or self.new is None:
            return None
        return tuple(name for name, key in self.new.stages.items() if self.old.stages.get(name) != key)


def change_of(old: Lock, new: Lock, *, old_plan: Plan | None = None, new_plan: Plan | None = None) -> LockChange:
    """Return what `new` changes."""
    return LockChange(diff=compare(old, new, KINDS), old=old_plan, new=new_plan)

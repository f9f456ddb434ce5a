"""A change of a lock as JSON."""

from __future__ import annotations

from cregraph.digest import Json
from cregraph.kinds import KINDS
from cregraph.lock.pins import Pin
from cregraph.review.change import LockChange

__all__ = ["as_json"]


def as_json(change: LockChange) -> dict[str, Json]:
    """Return the change for a program. What is not known is null."""
    return {
        "same": change.same,
        "packages": [
            {
                "ecosystem": KINDS[c.kind].ECOSYSTEM,
                "target": c.target,
                "name": c.name,
                "how": c.how,
                "build": c.build,
                "old": _pin(c.old),
                "new": _pin(c.new),
                "asked_by": list(c.asked_by),
            }
            for c in change.diff.pins
        ],
        "asks": [
            {
                "ecosystem": KINDS[a.kind].ECOSYSTEM,
                "stage": a.stage,
                "text": a.text,
                "where": a.where,
                "how": "added" if a.added else "removed",
            }
            for a in change.diff.asks
        ],
        "settings": [{"section": s.section, "name": s.name, "old": s.old, "new": s.new} for s in change.diff.settings],
        "rebuilds": None if change.rebuilds is None else list(change.rebuilds),
        "stages": None if change.rebuilds is None or change.new is None else len(change.new.stages),
        "tag": {"old": change.old.tag if change.old else None, "new": change.new.tag if change.new else None},
        "key": {"old": change.old.key if change.old else None, "new": change.new.key if change.new else None},
    }


def _pin(pin: Pin | None) -> Json:
    return None if pin is None else {"version": pin.version, "sha256": pin.artifact.sha256}

"""How long tasks took: history, not result, so in a section of the store of its own, `history`, that decides nothing but order.

`<task key>` {"seconds"} is that task; a second record, by kind and package name, is whichever task of it ran last.
"""

from __future__ import annotations

from cregraph.digest import key_of
from cregraph.plan.parts import Task
from cregraph.store import Store
from cregraph.store.throughput import Throughput

__all__ = ["expected", "known", "recalled", "remember"]

_SECTION = "history"
_START = 2.0  # seconds that a task takes which nobody knows, besides what its source weighs
_RATE = 50_000  # bytes of such a source in a second


def remember(store: Store, task: Task, seconds: float) -> None:
    """Note how long `task` ran."""
    for key in (task.key, _name(task)):
        store.put_record(_SECTION, key, {"seconds": round(seconds, 3)})
    throughput = Throughput()  # what a source weighs says something of those that nobody knows
    throughput.note("task", seconds, sum(artifact.size for artifact in task.artifacts))
    throughput.save(store)


def recalled(store: Store, task: Task) -> tuple[float, str] | None:
    """The seconds that `task` took (`task`), or another version of the same package (`package`); None when neither ran here."""
    for key, of in ((task.key, "task"), (_name(task), "package")):
        record = store.record(_SECTION, key)
        found = record.get("seconds") if isinstance(record, dict) else None
        if isinstance(found, int | float) and 0 <= found < 1e7:
            return float(found), of
    return None


def known(store: Store, task: Task) -> float | None:
    """The seconds of `recalled`."""
    found = recalled(store, task)
    return found[0] if found else None


def expected(store: Store, task: Task) -> float:
    """The seconds that `task` took before, else a guess from the size of its source."""
    found = known(store, task)
    return found if found is not None else _START + sum(artifact.size for artifact in task.artifacts) / _RATE


def _name(task: Task) -> str:
    return key_of({"history": task.kind, "name": task.name.partition(" ")[0]})

"""Records of tasks in a store: the result, the log, and how long a task took.

    tasks/ab/<key>.json      {"sha256", "size"}: the result, an object that is a normalised tar (`cregraph.engines.capture`)
    history/ab/<key>.json    {"seconds"}: by task key, and by kind and package name for other versions of the package
    logs/<name>-<12 digits of the key>.log

The section `tasks` decides what a build reuses. The section `history` decides nothing but the order of jobs.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from cregraph.digest import is_sha256, key_of
from cregraph.errors import CregraphError
from cregraph.plan.parts import Task
from cregraph.store import Store
from cregraph.store.throughput import Throughput

__all__ = [
    "expected_seconds",
    "log_file",
    "record_result",
    "record_seconds",
    "recorded_result",
    "recorded_seconds",
    "task_results",
    "verified_result",
]

_HISTORY = "history"
_START = 2.0  # seconds that a task without history is expected to take, in addition to the time for its sources
_RATE = 50_000  # bytes of its sources that such a task gets through in a second


def recorded_result(store: Store, key: str) -> tuple[str, int] | None:
    """Return sha256 and size (bytes) of the result that `store` records for a task key, or None. The object is not read."""
    record = store.fields("tasks", key)
    sha256, size = record.get("sha256"), record.get("size")
    return (str(sha256), size) if is_sha256(sha256) and type(size) is int else None


def task_results(tasks: Iterable[Task], store: Store) -> dict[str, tuple[str, int]]:
    """Return `recorded_result` of every task that has one, by key."""
    return {task.key: found for task in tasks if (found := recorded_result(store, task.key)) is not None}


def verified_result(store: Store, key: str) -> str | None:
    """Return the sha256 of a recorded result whose bytes are whole, or None if the task must run."""
    found = recorded_result(store, key)
    if found is None:
        return None
    try:
        store.verified(found[0], f"the result of task {key[:12]}")
    except CregraphError:
        return None
    return found[0]


def record_result(store: Store, key: str, sha256: str, size: int) -> None:
    """Record the object `sha256` of `size` bytes as the result of a task key."""
    store.put_record("tasks", key, {"sha256": sha256, "size": size})


def log_file(store: Store, task: Task) -> Path:
    """Return the path of a task's log. The file need not exist."""
    name = re.sub(r"[^A-Za-z0-9._+-]", "_", task.name)[:80]
    return store.root / "logs" / f"{name}-{task.key[:12]}.log"


def record_seconds(store: Store, task: Task, seconds: float) -> None:
    for key in (task.key, _package(task)):
        store.put_record(_HISTORY, key, {"seconds": round(seconds, 3)})
    throughput = Throughput()  # the size of its sources predicts tasks that have no history
    throughput.note("task", seconds, sum(artifact.size for artifact in task.artifacts))
    throughput.save(store)


def recorded_seconds(store: Store, task: Task) -> tuple[float, str] | None:
    """Return how long `task` took ("task"), else another version of its package ("package"); None if neither ran here."""
    for key, basis in ((task.key, "task"), (_package(task), "package")):
        found = store.fields(_HISTORY, key).get("seconds")
        if isinstance(found, int | float) and 0 <= found < 1e7:
            return float(found), basis
    return None


def expected_seconds(store: Store, task: Task) -> float:
    """Return the recorded seconds of `task`, else an estimate from the size of its sources."""
    found = recorded_seconds(store, task)
    return found[0] if found else _START + sum(artifact.size for artifact in task.artifacts) / _RATE


def _package(task: Task) -> str:
    return key_of({"history": task.kind, "name": task.name.partition(" ")[0]})

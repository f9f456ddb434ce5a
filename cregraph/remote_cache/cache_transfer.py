"""Transfers between a store and a remote cache.

No transfer fails a build. A refused entry is named, and the build makes the result itself. After the first failure to answer, the
cache is not asked again.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import TypeVar

from cregraph.build.image_build import missing_work
from cregraph.image.model import segment as segments_of
from cregraph.lock.outputs import Output, Outputs
from cregraph.plan.missing_work import Inventory, MissingWork, work_for
from cregraph.plan.parts import Segment, Task
from cregraph.plan.planner import Plan
from cregraph.remote_cache.cache_entry import BadEntry
from cregraph.remote_cache.cache_repository import Conflict, RemoteCache, Unreachable
from cregraph.scheduler import threads
from cregraph.store import Store
from cregraph.store.task_records import record_result, recorded_result, verified_result

__all__ = ["Downloaded", "Offer", "Uploaded", "download", "download_disputed", "find_offer", "left_after", "upload"]

T = TypeVar("T")
#: Threads. Each holds blocks of 1 MiB; a writer also holds a few gzip members.
_READERS = 8
_WRITERS = 4


@dataclass(frozen=True, kw_only=True, slots=True)
class Downloaded:
    """Counts of downloaded entries, their bytes, why entries were refused, and why the cache did not answer."""

    tasks: int = 0
    segments: int = 0
    bytes: int = 0
    refused: list[str] = field(default_factory=list)
    unreachable: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class Uploaded:
    """Counts of written entries, of entries that were `there` before, bytes sent, and why the cache did not answer."""

    tasks: int
    segments: int
    there: int
    bytes: int
    conflicts: list[Conflict]
    unreachable: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Offer:
    """Bytes that a download would move, by key of task or segment, and why the cache did not answer."""

    tasks: Mapping[str, int] = field(default_factory=dict)
    segments: Mapping[str, int] = field(default_factory=dict)
    unreachable: str = ""


class _Access:
    """Questions of many threads to one cache. Nothing is asked after the first failure to answer."""

    def __init__(self, cache: RemoteCache) -> None:
        self.unreachable = ""
        self.refused: list[str] = []
        self.ask(cache.ping)

    def ask(self, question: Callable[[], T]) -> T | None:
        """Return the answer, or None for a refused entry and for a cache that does not answer."""
        if self.unreachable:
            return None
        try:
            return question()
        except BadEntry as error:
            self.refused.append(error.message)
        except Unreachable as error:
            self.unreachable = self.unreachable or error.message
        return None


def download(
    plan: Plan, store: Store, cache: RemoteCache, expected: Mapping[str, str], sizes: Mapping[str, int] | None = None
) -> Downloaded:
    """Download into `store` what it lacks of `plan`: task results, then segments if the cache is trusted.

    `expected` and `sizes` are the sha256 and bytes that the outputs record, by task key.

    Raises CregraphError if the store cannot be written to.
    """
    work = missing_work(plan, store)
    if not work.tasks and not (cache.trusted and work.segments):
        return Downloaded()
    access = _Access(cache)

    def task(one: Task) -> int | None:
        known = expected.get(one.key)
        if known is not None and _restored(store, one.key, known):
            return 0
        return access.ask(lambda: cache.fetch_task(one, store, known, (sizes or {}).get(one.key)))

    def segment(one: Segment) -> int | None:
        return access.ask(lambda: cache.fetch_segment(one, store, plan.lock.assembly))

    tasks = _ask_tasks(work, access, task)
    segments = _ask_segments(missing_work(plan, store), segment) if cache.trusted else {}
    return Downloaded(
        tasks=sum(1 for size in tasks.values() if size),
        segments=len(segments),
        bytes=sum(tasks.values()) + sum(segments.values()),
        refused=sorted(access.refused),
        unreachable=access.unreachable,
    )


def _restored(store: Store, key: str, sha256: str) -> bool:
    """Record an object that the store holds as the result of a task whose record was lost; False if it is damaged."""
    if not store.has(sha256):
        return False
    record_result(store, key, sha256, store.path_of(sha256).stat().st_size)
    return verified_result(store, key) is not None


def download_disputed(plan: Plan, store: Store, cache: RemoteCache, recorded: Outputs) -> None:
    """Download, as objects only, the results in `recorded` for whose keys `store` holds other results."""
    access = _Access(cache)

    def fetch(task: Task, wanted: Output) -> None:
        entry = cache.task(task.key, task.name)
        if entry is not None and (entry.sha256, entry.size) == (wanted.sha256, wanted.size):
            cache.fetch_result(entry, store, what=f"task {task.name}")

    for task in plan.tasks:
        known, mine = recorded.tasks.get(task.key), verified_result(store, task.key)
        if known is not None and mine not in (None, known.sha256) and not store.has(known.sha256):
            access.ask(functools.partial(fetch, task, known))


def find_offer(plan: Plan, work: MissingWork, cache: RemoteCache, expected: Mapping[str, str]) -> Offer:
    """Return what `download` would transfer of `work` according to the entries, without their blobs."""
    access = _Access(cache)

    def task(one: Task) -> int | None:
        known = expected.get(one.key)
        if known is None and not cache.trusted:
            return None
        entry = access.ask(lambda: cache.task(one.key, one.name))
        return entry.blob.size if entry is not None and known in (None, entry.sha256) else None

    def segment(one: Segment) -> int | None:
        entry = access.ask(lambda: cache.segment(one.key, one.name, plan.lock.assembly))
        return None if entry is None else sum(blob.size for blob in entry.blobs)

    tasks = _ask_tasks(work, access, task)
    left = left_after(plan, work, Offer(tasks=tasks))
    segments = _ask_segments(left, segment) if cache.trusted else {}
    return Offer(tasks=tasks, segments=segments, unreachable=access.unreachable)


def left_after(plan: Plan, work: MissingWork, offer: Offer) -> MissingWork:
    """Return what is left of `work` after a download of `offer`."""
    segments = {segment.key for segment in work.segments} - offer.segments.keys()
    tasks = {task.key for task in work.tasks} - offer.tasks.keys()
    artifacts = {artifact.sha256 for artifact in work.artifacts}
    there = Inventory(
        segment=lambda key: key not in segments,
        result=lambda key: key not in tasks,
        artifact=lambda sha256: sha256 not in artifacts,
    )
    return work_for(plan, there, layers=work.layers, segments=plan.segments.values())


def _ask_tasks(work: MissingWork, access: _Access, ask: Callable[[Task], int | None]) -> dict[str, int]:
    """Ask for the results that segments need, and for the needs of a task only if its own result is not there."""
    lacking = {task.key: task for task in work.tasks}
    found: dict[str, int] = {}
    asked: set[str] = set()
    todo = {segment.task_key for segment in work.segments if segment.task_key} & lacking.keys()
    with threads(_READERS) as pool:
        while todo and not access.unreachable:
            asked |= todo
            tasks = [lacking[key] for key in sorted(todo)]
            found |= _answered(tasks, pool.map(ask, tasks))
            todo = {need for task in tasks if task.key not in found for need in task.needs if need in lacking} - asked
    return found


def _ask_segments(work: MissingWork, ask: Callable[[Segment], int | None]) -> dict[str, int]:
    """Ask for the segments that are packed from artifacts. The others are packed from a task's result."""
    wanted = [segment for segment in work.segments if segment.task_key is None]
    with threads(_READERS) as pool:
        return _answered(wanted, pool.map(ask, wanted))


def _answered(things: Iterable[Task | Segment], sizes: Iterable[int | None]) -> dict[str, int]:
    return {thing.key: size for thing, size in zip(things, sizes, strict=True) if size is not None}


def upload(plan: Plan, store: Store, cache: RemoteCache) -> Uploaded:
    """Write to `cache` what `store` holds of `plan`. Existing entries are never overwritten: see `Conflict`.

    Segments of task results are not written: the result is enough to pack them.
    """
    access = _Access(cache)

    def task(one: Task) -> int | Conflict | None:
        found = recorded_result(store, one.key)
        if found is None or not store.has(found[0]):
            return None
        return access.ask(lambda: cache.upload_task(one, store, *found))

    def segment(one: Segment) -> int | Conflict | None:
        record = segments_of.read(store, one.key)
        return None if record is None else access.ask(lambda: cache.upload_segment(one, store, record))

    every = {**plan.segments, **plan.hidden}
    with threads(_WRITERS) as pool:
        tasks = list(pool.map(task, plan.tasks))
        segments = list(pool.map(segment, [every[key] for key in sorted(every) if every[key].task_key is None]))
    sizes = [one for one in (*tasks, *segments) if isinstance(one, int)]
    conflicts = [one for one in (*tasks, *segments) if isinstance(one, Conflict)]
    return Uploaded(
        tasks=sum(1 for one in tasks if isinstance(one, int) and one),
        segments=sum(1 for one in segments if isinstance(one, int) and one),
        there=sizes.count(0),
        bytes=sum(sizes),
        conflicts=sorted(conflicts, key=lambda one: (one.what, one.key)),
        unreachable=access.unreachable,
    )

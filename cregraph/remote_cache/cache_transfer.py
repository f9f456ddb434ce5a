"""What a build takes from a remote cache before it begins, and gives to one when it is done.

    bring     what the store lacks of a plan: results of tasks first, those of their needs only where a task must run;
              then segments, from a trusted cache
    disputed  results that outputs record, and for which the store holds others
    offered   what a build would be brought, only asked for
    give      what the store holds of a plan

None fails a build: an entry that is not what it should be is named and made here instead, and a cache that does not answer is
named once and not asked again.
"""

from __future__ import annotations

import contextlib
import functools
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TypeVar

from cregraph.build.image_build import missing_work
from cregraph.image.model import segment as segments_of
from cregraph.lock.outputs import Output, Outputs
from cregraph.plan.missing_work import MissingWork
from cregraph.plan.parts import Segment, Task
from cregraph.plan.planner import Plan
from cregraph.remote_cache.cache_entry import BadEntry
from cregraph.remote_cache.cache_repository import Incident, RemoteCache, Unreachable
from cregraph.store import Store
from cregraph.store.task_records import record_result, recorded_result, verified_result

__all__ = ["Downloaded", "Offer", "Uploaded", "bring", "disputed", "give", "offered", "without"]

T = TypeVar("T")
#: At once: each holds blocks of 1 MiB, and on writing a few more.
_READERS = 8
_WRITERS = 4


@dataclass(kw_only=True, slots=True)
class Downloaded:
    """What came: counts of entries, bytes that moved, entries that were refused (why, in words), and why the cache is out."""

    tasks: int = 0
    segments: int = 0
    bytes: int = 0
    refused: list[str] = field(default_factory=list)
    unreachable: str = ""


@dataclass(kw_only=True, slots=True)
class Uploaded:
    """What was written: counts of entries, bytes that moved, what was there before, what contradicts, and why it ended early."""

    tasks: int = 0
    segments: int = 0
    there: int = 0
    bytes: int = 0
    incidents: list[Incident] = field(default_factory=list)
    unreachable: str = ""


@dataclass(kw_only=True, slots=True)
class Offer:
    """What a cache has: bytes that would move, by key, of task results and of segments; and why it is out."""

    tasks: dict[str, int] = field(default_factory=dict)
    segments: dict[str, int] = field(default_factory=dict)
    unreachable: str = ""


class _Out:
    """Whether the cache still answers. The first failure is remembered, and nothing is asked after it."""

    def __init__(self) -> None:
        self.why = ""
        self._guard = threading.Lock()

    def ask(self, question: Callable[[], T]) -> T | None:
        if self.why:
            return None
        try:
            return question()
        except Unreachable as error:
            with self._guard:
                self.why = self.why or error.message
            return None


def bring(
    plan: Plan, store: Store, cache: RemoteCache, expected: Mapping[str, str], sizes: Mapping[str, int] | None = None
) -> Downloaded:
    """Bring into `store` what it lacks of `plan` and `cache` holds. `expected` is the sha256 that outputs record, by task key;
    `sizes` the bytes.

    Raises CregraphError for a fault of the store (a full disk) only.
    """
    found = Downloaded()
    work = missing_work(plan, store)
    if not work.tasks and not (cache.trusted and work.segments):
        return found
    out = _Out()
    out.ask(cache.ping)
    guard = threading.Lock()
    by_key = {task.key: task for task in plan.tasks}

    def task(one: Task) -> bool:
        known = expected.get(one.key)
        if known is not None and store.has(known):  # a result of before, whose record was lost
            record_result(store, one.key, known, store.path_of(known).stat().st_size)
            if verified_result(store, one.key) is not None:  # else it was damaged, and is set aside now
                return True
        try:
            moved = out.ask(lambda: cache.fetch_task(one, store, known, (sizes or {}).get(one.key)))
        except BadEntry as error:
            with guard:
                found.refused.append(error.message)
            return False
        if moved is None:
            return False
        with guard:
            found.tasks += 1
            found.bytes += moved
        return True

    def segment(one: Segment) -> None:
        try:
            moved = out.ask(lambda: cache.fetch_segment(one, store, plan.lock.assembly))
        except BadEntry as error:
            with guard:
                found.refused.append(error.message)
            return
        if moved is not None:
            with guard:
                found.segments += 1
                found.bytes += moved

    with _pool(_READERS) as pool:
        tried: set[str] = set()
        todo = {s.task_key for s in work.segments if s.task_key} & {t.key for t in work.tasks}
        while todo and not out.why:
            tried |= todo
            ordered = [by_key[key] for key in sorted(todo)]
            missed = [one for one, got in zip(ordered, pool.map(task, ordered), strict=True) if not got]
            todo = {key for one in missed for key in one.needs if key not in tried and verified_result(store, key) is None}
        if cache.trusted and not out.why:
            list(pool.map(segment, (s for s in missing_work(plan, store).segments if s.task_key is None)))
    found.refused.sort()
    found.unreachable = out.why
    return found


def disputed(plan: Plan, store: Store, cache: RemoteCache, recorded: Outputs) -> str:
    """Bring the results that `recorded` names where `store` holds others for their keys, as objects and no more: to compare with.

    Returns why the cache is out, empty when it is not. One that it does not have whole is left.
    """
    out = _Out()
    for task in plan.tasks:
        known, mine = recorded.tasks.get(task.key), verified_result(store, task.key)
        if known is None or mine in (None, known.sha256) or store.has(known.sha256):
            continue
        with contextlib.suppress(BadEntry):
            out.ask(functools.partial(_object, cache, task, known, store))
    return out.why


def _object(cache: RemoteCache, task: Task, wanted: Output, store: Store) -> None:
    entry = cache.task(task.key, task.name)
    if entry is not None and (entry.sha256, entry.size) == (wanted.sha256, wanted.size):
        cache.fetch_result(entry, store, what=f"task {task.name}")


def offered(plan: Plan, work: MissingWork, cache: RemoteCache, expected: Mapping[str, str]) -> Offer:
    """What `bring` would take of `work`, as far as entries say it: their bytes are not asked for."""
    found = Offer()
    out = _Out()
    out.ask(cache.ping)
    lacking = {task.key: task for task in work.tasks}

    def task(one: Task) -> int | None:
        known = expected.get(one.key)
        if known is None and not cache.trusted:
            return None
        with contextlib.suppress(BadEntry):
            entry = out.ask(lambda: cache.task(one.key, one.name))
            if entry is not None and known in (None, entry.sha256):
                return entry.blob.size
        return None

    def segment(one: Segment) -> int | None:
        with contextlib.suppress(BadEntry):
            entry = out.ask(lambda: cache.segment(one.key, one.name, plan.lock.assembly))
            if entry is not None:
                return entry.object.size + entry.index.size
        return None

    with _pool(_READERS) as pool:
        tried: set[str] = set()
        todo = {s.task_key for s in work.segments if s.task_key} & lacking.keys()
        while todo and not out.why:
            tried |= todo
            ordered = [lacking[key] for key in sorted(todo)]
            sizes = list(zip(ordered, pool.map(task, ordered), strict=True))
            found.tasks |= {one.key: size for one, size in sizes if size is not None}
            todo = {need for one, size in sizes if size is None for need in one.needs if need in lacking} - tried
        if cache.trusted:
            wanted = [one for one in without(work, found).segments if one.task_key is None]
            asked = zip(wanted, pool.map(segment, wanted), strict=True)
            found.segments |= {one.key: size for one, size in asked if size is not None}
    found.unreachable = out.why
    return found


def without(work: MissingWork, offer: Offer) -> MissingWork:
    """What is left of `work` to make and to fetch from the lock's sources when what is on offer has come."""
    lacking = {task.key: task for task in work.tasks if task.key not in offer.tasks}
    beneath = {key for task in work.tasks for key in task.environment}  # in no layer, but for those that are
    inside = {segment.key for layer in work.layers for segment in layer.segments}
    segments = [one for one in work.segments if one.key not in offer.segments]
    tasks: dict[str, Task] = {}
    todo = [one.task_key for one in segments if one.task_key]
    while todo:
        key = todo.pop()
        if key in lacking and key not in tasks:
            tasks[key] = lacking[key]
            todo.extend(lacking[key].needs)
    wanted = {key for task in tasks.values() for key in task.environment}
    segments = [one for one in segments if one.key in inside or one.key in wanted or one.key not in beneath]
    needed = {one.artifact.sha256 for one in segments if one.artifact} | {a.sha256 for t in tasks.values() for a in t.artifacts}
    return MissingWork(
        layers=work.layers,
        segments=tuple(segments),
        tasks=tuple(task for task in work.tasks if task.key in tasks),
        artifacts=tuple(artifact for artifact in work.artifacts if artifact.sha256 in needed),
    )


def give(plan: Plan, store: Store, cache: RemoteCache) -> Uploaded:
    """Write to `cache` what `store` holds of `plan`. Nothing that is there is written again; see `Incident`.

    Segments of task results are left out: they are packed from the result, of which one fact is enough.
    """
    found = Uploaded()
    out = _Out()
    out.ask(cache.ping)
    guard = threading.Lock()

    def told(moved: int | Incident | None, kind: str) -> None:
        with guard:
            if isinstance(moved, Incident):
                found.incidents.append(moved)
            elif moved == 0:
                found.there += 1
            elif moved is not None:
                found.bytes += moved
                found.tasks += kind == "task"
                found.segments += kind == "segment"

    def task(one: Task) -> None:
        result = recorded_result(store, one.key)
        if result is not None and store.has(result[0]):
            told(out.ask(lambda: cache.give_task(one, store, *result)), "task")

    def segment(one: Segment) -> None:
        record = segments_of.read(store, one.key)
        if record is not None:
            told(out.ask(lambda: cache.give_segment(one, store, record)), "segment")

    with _pool(_WRITERS) as pool:
        list(pool.map(task, plan.tasks))
        list(pool.map(segment, _own(plan)))
    found.incidents.sort(key=lambda one: (one.what, one.key))
    found.unreachable = out.why
    return found


@contextlib.contextmanager
def _pool(size: int) -> Iterator[ThreadPoolExecutor]:
    """Threads; after a failure what has not begun is not begun, and Ctrl-C waits for no server."""
    pool = ThreadPoolExecutor(size, thread_name_prefix="cache")
    try:
        yield pool
    except BaseException as error:
        pool.shutdown(wait=isinstance(error, Exception), cancel_futures=True)
        raise
    pool.shutdown()


def _own(plan: Plan) -> Iterable[Segment]:
    every = {**plan.segments, **plan.hidden}
    return [every[key] for key in sorted(every) if every[key].task_key is None]

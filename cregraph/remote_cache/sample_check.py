"""A sample of a shared cache made again: is what it holds for the keys of a plan what these keys give?"""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from cregraph.build.build_run import Event, Making, MissingWork
from cregraph.build.compare.finding import Finding
from cregraph.build.compare.task_results import differing_tars
from cregraph.build.image_build import gave
from cregraph.build.rebuild_comparison import Difference, seed
from cregraph.engines.contract import Engine
from cregraph.engines.run import kept
from cregraph.image.model import segment as segments_of
from cregraph.lock.base_facts import BaseFacts
from cregraph.lock.pins import Artifact
from cregraph.plan.parts import Segment, Task
from cregraph.plan.planner import Plan
from cregraph.remote_cache.cache_entry import BadEntry, SegmentEntry, TaskEntry
from cregraph.remote_cache.cache_repository import SharedCache
from cregraph.store import Store

__all__ = ["Verified", "verify_remote"]


@dataclass(kw_only=True, slots=True)
class Verified:
    """What was made again, by name; what came out otherwise; and entries that are no whole entries, in words."""

    tasks: list[str] = field(default_factory=list)
    segments: list[str] = field(default_factory=list)
    differences: list[Difference] = field(default_factory=list)
    damaged: list[str] = field(default_factory=list)


def verify_remote(
    plan: Plan,
    facts: BaseFacts,
    cache: SharedCache,
    *,
    store: Store,
    other: Store,
    sample: int,
    fetch: Callable[[Artifact], Path],
    engine: Callable[[], Engine],
    jobs: int,
    on_event: Callable[[Event], None] = lambda _event: None,
    shuffled: Callable[[Sequence[str]], list[str]] = lambda keys: random.SystemRandom().sample(keys, len(keys)),
) -> Verified:
    """Make at most `sample` of the entries that `cache` holds for keys of `plan` again (0: all), and compare.

    Everything is made in `other`, an empty store; `fetch` and `engine` work on it. `store` gives what a task only stands on:
    artifacts, and the segments of its environment. Results of needed tasks are the cache's own where it has them, so that each
    entry is judged by itself. Raises Unreachable, and CregraphError for a task that fails.
    """
    found = Verified()
    cache.ping()
    by_key = {task.key: task for task in plan.tasks}
    own = {segment.key: segment for segment in (*plan.segments.values(), *plan.hidden.values()) if segment.task_key is None}
    tasks: dict[str, TaskEntry] = {}
    segments: dict[str, SegmentEntry] = {}
    # A task and a segment in turn: results are few, and are what a cache could be wrong in.
    turns = itertools.zip_longest(shuffled(sorted(by_key)), shuffled(sorted(own)))
    for key in (key for job_context in turns for key in job_context if key is not None):
        if sample and len(tasks) + len(segments) >= sample:
            break
        try:
            if key in by_key:
                entry = cache.task(key, by_key[key].name)
                if entry is not None:
                    cache.fetch_result(entry, other, what=f"task {by_key[key].name} in the cache {cache.name}")
                    tasks[key] = entry
            elif (part := cache.segment(key, own[key].name, plan.lock.assembly)) is not None:
                cache.check_there(part, f"segment {own[key].name}")
                segments[key] = part
        except BadEntry as error:
            found.damaged.append(error.message)
    making = [by_key[key] for key in sorted(tasks)]
    making += _needs(making, by_key, cache, store, other, set(tasks))
    _make(plan, facts, making, [own[key] for key in sorted(segments)], store, other, fetch, engine, jobs, on_event)
    again = gave(plan, other)
    for key, entry in sorted(tasks.items(), key=lambda item: by_key[item[0]].name):
        found.tasks.append(by_key[key].name)
        if again[key][0] != entry.sha256:
            paths = other.verified(entry.sha256), other.verified(again[key][0])
            found.differences.append(_difference("task", by_key[key], entry.sha256, again[key][0], differing_tars(*paths)))
    for key, part in sorted(segments.items(), key=lambda item: own[item[0]].name):
        found.segments.append(own[key].name)
        made = segments_of.read(other, key)
        if made is None or (made.object, made.index) != (part.record.object, part.record.index):
            theirs = made.object if made else ""
            found.differences.append(_difference("segment", own[key], part.record.object, theirs, []))
    return found


def _needs(
    making: Sequence[Task], by_key: dict[str, Task], cache: SharedCache, store: Store, other: Store, have: set[str]
) -> list[Task]:
    """Bring the results that `making` needs into `other`; the tasks of those that nobody has, which must run too."""
    more: list[Task] = []
    todo = [key for task in making for key in task.needs]
    while todo:
        key = todo.pop()
        if key in have:
            continue
        have.add(key)
        entry = None
        try:
            entry = cache.task(key, by_key[key].name)
            if entry is not None:
                cache.fetch_result(entry, other, what=f"task {by_key[key].name}")
        except BadEntry:
            entry = None
        result = entry.sha256 if entry else kept(store, key)
        if result is None:
            more.append(by_key[key])
            todo.extend(by_key[key].needs)
            continue
        seed(store, other, [result])
        other.put_record("tasks", key, {"sha256": result, "size": other.path_of(result).stat().st_size})
    return more


def _make(
    plan: Plan,
    facts: BaseFacts,
    tasks: Sequence[Task],
    segments: Sequence[Segment],
    store: Store,
    other: Store,
    fetch: Callable[[Artifact], Path],
    engine: Callable[[], Engine],
    jobs: int,
    on_event: Callable[[Event], None],
) -> None:
    everything = {**plan.segments, **plan.hidden}
    wanted = {segment.key: segment for segment in segments}
    for key in {key for task in tasks for key in task.environment} - wanted.keys():
        record = segments_of.read(store, key)
        if record is not None:
            seed(store, other, [record.object, record.index])
            found = store.record("segments", key)
            other.put_record("segments", key, found)
        if segments_of.read(other, key) is None:
            wanted[key] = everything[key]
    artifacts = {segment.artifact.sha256: segment.artifact for segment in wanted.values() if segment.artifact}
    artifacts |= {artifact.sha256: artifact for task in tasks for artifact in task.artifacts}
    seed(store, other, sorted(artifacts))
    work = MissingWork(
        segments=tuple(wanted.values()),
        tasks=tuple(tasks),
        artifacts=tuple(artifact for sha256, artifact in artifacts.items() if not other.has(sha256)),
    )
    part = replace(plan, layers=(), segments=wanted, hidden={}, tasks=tuple(tasks))
    making = Making(plan=part, facts=facts, work=work, store=other, fetch=fetch, engine=engine, on_event=on_event, recorded={})
    making.run(jobs=jobs, keep_going=False)


def _difference(what: str, thing: Task | Segment, one: str, two: str, findings: list[Finding]) -> Difference:
    return Difference(
        what="task" if what == "task" else "segment",
        name=thing.name,
        key=thing.key,
        stage=thing.stage,
        one=one,
        two=two,
        findings=tuple(findings),
    )

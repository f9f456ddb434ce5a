"""Build: what a plan names, made. Fetches by digest only, runs tasks without network, chooses nothing.

Each step leaves what it made in the store by key, so an interrupted build goes on where it stopped: artifacts, then the
segments that need no task, the tasks, their segments, the layers, the image. An image whose record is there and whose
layers are whole is not made again.
"""

from __future__ import annotations

import contextlib
import errno
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, Literal

from cregraph.digest import Json, is_sha256
from cregraph.engines.contract import Engine
from cregraph.engines.run import TaskEvent, kept, run_tasks
from cregraph.errors import CregraphError
from cregraph.facts import BaseFacts
from cregraph.image import layer as layers_of
from cregraph.image import segment as segments_of
from cregraph.image.config import Image, compose
from cregraph.image.layer import LayerRecord
from cregraph.image.segment import SegmentRecord
from cregraph.image.split import LayerPlan
from cregraph.kinds import kind
from cregraph.pins import Artifact
from cregraph.plan import Segment, Task
from cregraph.planning import Plan
from cregraph.store import Store

__all__ = ["Built", "Event", "Work", "build", "pending"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Event:
    """Something that a build did. `seconds` it took, `size` bytes it concerns, where known."""

    what: Literal["begin", "fetched", "made", "reused", "failed"]
    subject: Literal["artifact", "segment", "task", "layer", "image"]
    name: str
    stage: str = ""
    seconds: float = 0.0
    size: int = 0


@dataclass(frozen=True, kw_only=True, slots=True)
class Work:
    """What a build has to do besides reading: the keys of what the store lacks."""

    layers: tuple[LayerPlan, ...] = ()
    segments: tuple[Segment, ...] = ()
    tasks: tuple[Task, ...] = ()
    artifacts: tuple[Artifact, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class Built:
    """An image whose layers are in the store. `made` counts what was not there before."""

    plan: Plan
    image: Image
    layers: tuple[LayerRecord, ...]
    made: dict[str, int] = field(default_factory=dict)


def pending(plan: Plan, store: Store) -> Work:
    """What the store lacks of `plan`."""
    missing_layers = tuple(layer for layer in plan.layers if layers_of.read(store, layer.key) is None)
    if not missing_layers and _digest_before(store.record("images", plan.key)) is not None:
        return Work()
    segments = [s for s in plan.segments.values() if segments_of.read(store, s.key) is None]
    by_key = {task.key: task for task in plan.tasks}
    wanted: dict[str, Task] = {}
    todo = [s.task_key for s in segments if s.task_key]
    while todo:
        key = todo.pop()
        if key in wanted:
            continue
        if kept(store, key) is None:
            wanted[key] = by_key[key]
            todo.extend(by_key[key].needs)
    everything = {**plan.segments, **plan.hidden}
    beneath = {key for task in wanted.values() for key in task.environment}
    segments += [
        everything[key]
        for key in sorted(beneath)
        if segments_of.read(store, key) is None and not any(s.key == key for s in segments)
    ]
    artifacts = {s.artifact.sha256: s.artifact for s in segments if s.artifact}
    artifacts |= {a.sha256: a for task in wanted.values() for a in task.artifacts}
    lacking = tuple(a for a in artifacts.values() if not store.has(a.sha256))
    ordered = tuple(task for task in plan.tasks if task.key in wanted)
    return Work(layers=missing_layers, segments=tuple(segments), tasks=ordered, artifacts=lacking)


def build(
    plan: Plan,
    facts: BaseFacts,
    *,
    store: Store,
    fetch: Callable[[Artifact], Path],
    engine: Callable[[], Engine],
    jobs: int = 2,
    keep_going: bool = False,
    on_event: Callable[[Event], None] = lambda _event: None,
) -> Built:
    """The image of `plan`, its own layers in the store.

    `fetch` gives an artifact's verified file; `engine` is asked for only when a task must run. Events come from any thread.
    Raises CregraphError; what is complete is kept.
    """
    work = pending(plan, store)
    records: dict[str, SegmentRecord] = {}
    made = {"artifacts": len(work.artifacts), "segments": len(work.segments), "tasks": len(work.tasks)}
    first = [s for s in work.segments if s.task_key is None]
    after = [s for s in work.segments if s.task_key is not None]
    with _pool(jobs) as pool:
        fetching = [pool.submit(_fetch, a, fetch, on_event) for a in _of_tasks(work)]
        making = [pool.submit(_segment, s, store, fetch, None, on_event, plan.lock.assembly) for s in first]
        _all([*fetching, *making])
        if work.tasks:
            results = _tasks(work, store, fetch, engine(), jobs, keep_going, on_event)
        else:
            results = {}
        for s in after:
            assert s.task_key is not None
            results.setdefault(s.task_key, kept(store, s.task_key) or "")
        _all([pool.submit(_segment, s, store, fetch, results[s.task_key or ""], on_event, plan.lock.assembly) for s in after])
        for key in plan.segments:
            record = segments_of.read(store, key)
            if record is None:
                raise CregraphError(
                    f"segment {plan.segments[key].name} vanished from the store while it was used", hint="run the command again"
                )
            records[key] = record
        settled = layers_of.settle(plan.layers, records, plan.planner, store)
        assembling = [pool.submit(_layer, each, records, facts, plan, store, on_event) for each in settled]
        _all(assembling)
        done = [future.result() for future in assembling]
    made["layers"] = sum(1 for _, fresh in done if fresh)
    built_layers = tuple(record for record, _ in done)
    image = compose(
        facts,
        [(each.name, record) for each, record in zip(settled, built_layers, strict=True)],
        env=plan.env,
        labels=plan.labels,
    )
    before = _digest_before(store.record("images", plan.key))
    if before not in (None, image.digest):
        raise CregraphError(
            f"the image of key {plan.key[:12]} was {before} before and is {image.digest} now; nothing is published",
            hint="a task gave other bytes than before: please report it; with another store ($CREGRAPH_CACHE) all is made anew",
        )
    store.put_record("images", plan.key, {"digest": image.digest})
    on_event(Event(what="made", subject="image", name=image.digest))
    return Built(plan=plan, image=image, layers=built_layers, made=made)


def _digest_before(record: Json | None) -> str | None:
    """The digest that an image had; None for a record that is none."""
    found = record.get("digest") if isinstance(record, dict) else None
    return found if isinstance(found, str) and is_sha256(found.removeprefix("sha256:")) else None


@contextlib.contextmanager
def _pool(jobs: int) -> Iterator[ThreadPoolExecutor]:
    pool = ThreadPoolExecutor(max_workers=max(2, jobs))
    try:
        yield pool
    except BaseException as error:
        # Ctrl-C waits for no server: the command line ends the process, and what is half-done is swept later.
        pool.shutdown(wait=isinstance(error, Exception), cancel_futures=True)
        raise
    pool.shutdown(wait=True)


def _all(futures: Sequence[Future[Any]]) -> None:
    """Wait for all; the first failure cancels what has not begun, and is raised."""
    _, waiting = wait(futures, return_when=FIRST_EXCEPTION)
    failed = next((f for f in futures if f.done() and not f.cancelled() and f.exception()), None)
    if failed is not None:
        for future in waiting:
            future.cancel()
        wait(futures)
        failed.result()


def _of_tasks(work: Work) -> list[Artifact]:
    lacking = {a.sha256 for a in work.artifacts}
    wanted = {a.sha256: a for task in work.tasks for a in task.artifacts if a.sha256 in lacking}
    return list(wanted.values())


def _fetch(artifact: Artifact, fetch: Callable[[Artifact], Path], on_event: Callable[[Event], None]) -> None:
    start = time.monotonic()
    fetch(artifact)
    name = artifact.file.rsplit("/", 1)[-1] or artifact.source
    on_event(Event(what="fetched", subject="artifact", name=name, seconds=time.monotonic() - start, size=artifact.size))


@dataclass(frozen=True, kw_only=True, slots=True)
class _Bytes:
    """The input of a segment; scratch files live until the segment is written."""

    file: Path | None
    store: Store
    held: contextlib.ExitStack

    def path(self) -> Path:
        assert self.file is not None, "this segment has no input"
        return self.file

    def scratch(self) -> IO[bytes]:
        file = self.store.scratch_file()
        self.held.callback(_drop, file)
        return file


def _drop(file: IO[bytes]) -> None:
    """Close what nobody wants any more: that a full disk does not take its last bytes is no error, and must hide none."""
    with contextlib.suppress(OSError):
        file.close()


def _segment(
    segment: Segment,
    store: Store,
    fetch: Callable[[Artifact], Path],
    result: str | None,
    on_event: Callable[[Event], None],
    assembly: int,
) -> None:
    start = time.monotonic()
    file: Path | None = None
    if result is not None:
        file = store.verified(result, f"the result of task {segment.name}")
    elif segment.artifact is not None:
        lacking = not store.has(segment.artifact.sha256)
        file = fetch(segment.artifact)
        if lacking:
            seconds = time.monotonic() - start
            name = segment.artifact.file.rsplit("/", 1)[-1] or segment.artifact.source
            on_event(
                Event(
                    what="fetched",
                    subject="artifact",
                    name=name,
                    stage=segment.stage,
                    seconds=seconds,
                    size=segment.artifact.size,
                )
            )
    start = time.monotonic()
    with contextlib.ExitStack() as held:
        source = _Bytes(file=file, store=store, held=held)
        try:
            record = segments_of.write(kind(segment.kind).entries(segment, source), store, segment.key, assembly)
        except CregraphError as error:
            with store.explained():  # a disk that is full while an archive is read is not the archive's fault
                for cause in _causes(error):
                    if isinstance(cause, OSError) and cause.errno in (errno.ENOSPC, errno.EDQUOT):
                        raise cause from None
            if segment.name in error.message:
                raise
            raise CregraphError(f"{segment.name}: {error.message}", error.hint) from error
    seconds = time.monotonic() - start
    on_event(Event(what="made", subject="segment", name=segment.name, stage=segment.stage, seconds=seconds, size=record.size))


def _causes(error: BaseException) -> Iterator[BaseException]:
    """What led to `error`, the nearest first."""
    cause = error.__cause__ or error.__context__
    while cause is not None:
        yield cause
        cause = cause.__cause__ or cause.__context__


def _layer(
    each: LayerPlan,
    records: dict[str, SegmentRecord],
    facts: BaseFacts,
    plan: Plan,
    store: Store,
    on_event: Callable[[Event], None],
) -> tuple[LayerRecord, bool]:
    start = time.monotonic()
    fresh = layers_of.read(store, each.key) is None
    record = layers_of.assemble(each, records, facts, plan.planner, store)
    what: Literal["made", "reused"] = "made" if fresh else "reused"
    on_event(Event(what=what, subject="layer", name=each.name, seconds=time.monotonic() - start, size=record.size))
    return record, fresh


def _tasks(
    work: Work,
    store: Store,
    fetch: Callable[[Artifact], Path],
    engine: Engine,
    jobs: int,
    keep_going: bool,
    on_event: Callable[[Event], None],
) -> dict[str, str]:
    by_key = {task.key: task for task in work.tasks}
    whole = {**by_key}
    # What the missing tasks need and the store has is handed to the runner too: it reuses it by key.
    for task in work.tasks:
        for key in task.needs:
            whole.setdefault(key, _done(key, task))

    def told(event: TaskEvent) -> None:
        if event.task.key not in by_key:
            return
        what = {"started": "begin", "done": "made", "reused": "reused", "failed": "failed"}[event.what]
        on_event(
            Event(what=what, subject="task", name=event.task.name, stage=event.task.stage, seconds=event.seconds)  # type: ignore[arg-type]
        )

    return run_tasks(
        whole.values(),
        store=store,
        engine=engine,
        artifact=fetch,
        jobs=jobs,
        keep_going=keep_going,
        on_event=told,
        hint=_way_out,
    )


def _done(key: str, by: Task) -> Task:
    """A task of which only the kept result matters."""
    return Task(
        key=key, kind=by.kind, stage=by.stage, name=key[:12], root=by.root, argv=("true",), env={}, output=by.results[key]
    )


def _way_out(task: Task) -> str | None:
    if task.kind == "r":
        return (
            f"take the conda package instead (r-{task.name.split(' ')[0].lower()} in extras.conda_r), or another version; "
            "a library that it needs to compile against is asked for by name in extras.conda_r"
        )
    if task.kind == "python":
        return "ask for a version that has a wheel for the base's Python, or add what it needs to `build` in the recipe"
    return None

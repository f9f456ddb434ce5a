"""What a build has to make, as one graph of jobs: nothing waits for anything but what it needs.

    artifact ─> segment ─> layer ─┐
                  │  │            ├─> the image (cregraph.build.image_build)
                  │  └─> settle ──┘
                  └─> preparation ─> task ─> segment ─> ...

A result is known by its job's being done: `records` of segments, `layers` by key, the outcome of `settle`.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Literal

from cregraph.engines.contract import Ahead, Engine
from cregraph.engines.failures import listed, way_out
from cregraph.engines.run import EXPECTED, TaskEvent, TaskRun, said
from cregraph.errors import CregraphError
from cregraph.image.model import layer as layers_of
from cregraph.image.model import segment as segments_of
from cregraph.image.model.layer import LayerRecord
from cregraph.image.model.segment import SegmentRecord
from cregraph.kinds import kind
from cregraph.lock.base_facts import BaseFacts
from cregraph.lock.pins import Artifact
from cregraph.plan.layer_split import LayerPlan
from cregraph.plan.missing_work import MissingWork
from cregraph.plan.parts import Segment, Task
from cregraph.plan.planner import Plan
from cregraph.scheduler import Failure, Id, Job, JobContext, run_jobs
from cregraph.store import Store
from cregraph.store.task_records import log_file, verified_result

__all__ = ["Event", "Making"]

_FETCHES = 6  # files that are fetched at once
#: Bytes of artifacts in a second, about: what orders jobs, and nothing else.
_FETCHED, _PACKED, _JOINED = 20e6, 12e6, 50e6


@dataclass(frozen=True, kw_only=True, slots=True)
class Event:
    """One thing that a build did. `seconds` is how long it took, `size` how many bytes it is about, where known."""

    what: Literal["begin", "fetched", "made", "reused", "failed"]
    subject: Literal["artifact", "segment", "task", "layer", "image"]
    name: str
    stage: str = ""
    seconds: float = 0.0
    size: int = 0


@dataclass(frozen=True, kw_only=True)
class Making:
    """The jobs of one build. `fetch` gives an artifact's verified file; `engine` is asked for only when a task must run;
    `recorded` is the sha256 that a task's result must have, by key, where that is known.

    After `run`: `records` has all segments of the plan by key, `settled` the layers of the image in order, `layers` each of them
    by key; `fresh` are the keys of those that were not there before.
    """

    plan: Plan
    facts: BaseFacts
    work: MissingWork
    store: Store
    fetch: Callable[[Artifact], Path]
    engine: Callable[[], Engine]
    on_event: Callable[[Event], None]
    recorded: Mapping[str, str]
    records: dict[str, SegmentRecord] = field(default_factory=dict)
    layers: dict[str, LayerRecord] = field(default_factory=dict)
    fresh: set[str] = field(default_factory=set)
    settled: list[LayerPlan] = field(default_factory=list)

    def run(self, *, jobs: int, keep_going: bool) -> None:
        """Make everything, at most `jobs` things at once and a few downloads.

        Events come from the thread that calls this. Raises CregraphError; what is complete is kept. See `run_jobs` for the rest.
        """
        missing = {segment.key for segment in self.work.segments}
        for key in self.plan.segments.keys() - missing:
            self.records[key] = self._read(key)
        run, engine = None, None
        if self.work.tasks:
            engine = self.engine()
            run = TaskRun(
                self._tasks(),
                store=self.store,
                engine=engine,
                artifact=self.fetch,
                on_event=self._told,
                hint=self._way_out,
                recorded=self.recorded,
            )
        graph = [*self._artifacts(), *self._segments(run), *self._layers(missing)]
        if run is not None and engine is not None:
            graph += self._with_preparations(run, engine, missing)
        failures = run_jobs(
            graph,
            pools={"work": jobs, "fetch": _FETCHES},
            keep_going=keep_going,
            stop=engine.stop if engine is not None else lambda: None,
            expected=EXPECTED,
        )
        if failures:
            raise _all_of(failures, run)

    # -- artifacts

    def _artifacts(self) -> Iterator[Job]:
        for artifact in self.work.artifacts:
            yield Job(
                id=("artifact", artifact.sha256),
                run=functools.partial(self._artifact, artifact),
                seconds=artifact.size / _FETCHED,
                pool="fetch",
            )

    def _artifact(self, artifact: Artifact, job_context: JobContext) -> None:
        start = time.monotonic()
        self.fetch(artifact)
        name = artifact.file.rsplit("/", 1)[-1] or artifact.source
        self._say(job_context, "fetched", "artifact", name, start, size=artifact.size)

    def _fetched(self, artifacts: Iterable[Artifact]) -> set[Id]:
        """The jobs that fetch what the store lacks of `artifacts`."""
        lacking = {artifact.sha256 for artifact in self.work.artifacts}
        return {("artifact", artifact.sha256) for artifact in artifacts if artifact.sha256 in lacking}

    # -- segments

    def _segments(self, run: TaskRun | None) -> Iterator[Job]:
        for segment in self.work.segments:
            needs = self._fetched([segment.artifact] if segment.artifact else [])
            if run is not None and segment.task_key in run.tasks:
                needs.add(("task", segment.task_key))
            yield Job(
                id=("segment", segment.key),
                run=functools.partial(self._segment, segment, run),
                needs=tuple(needs),
                seconds=segment.size / _PACKED,
            )

    def _segment(self, segment: Segment, run: TaskRun | None, job_context: JobContext) -> None:
        file: Path | None = None
        if segment.task_key is not None:
            made = run.results.get(segment.task_key) if run is not None else None
            result = made or verified_result(self.store, segment.task_key) or ""
            file = self.store.verified(result, f"the result of task {segment.name}")
        elif segment.artifact is not None:
            file = self.fetch(segment.artifact)
        start = time.monotonic()
        with contextlib.ExitStack() as held:
            source = _Bytes(file=file, store=self.store, held=held)
            try:
                entries = kind(segment.kind).entries(segment, source)
                record = segments_of.write(entries, self.store, segment.key, self.plan.lock.assembly)
            except CregraphError as error:
                with self.store.explained():  # a disk that is full while an archive is read is not the archive's fault
                    for cause in _causes(error):
                        if isinstance(cause, OSError) and cause.errno in (errno.ENOSPC, errno.EDQUOT):
                            raise cause from None
                if segment.name in error.message:
                    raise
                raise CregraphError(f"{segment.name}: {error.message}", error.hint) from error
        self.records[segment.key] = record
        self._say(job_context, "made", "segment", segment.name, start, stage=segment.stage, size=record.size)

    def _read(self, key: str) -> SegmentRecord:
        record = segments_of.read(self.store, key)
        if record is None:
            raise CregraphError(
                f"segment {self.plan.segments[key].name} vanished from the store while it was used", hint="run the command again"
            )
        return record

    # -- tasks

    def _tasks(self) -> list[Task]:
        """The tasks to run, and those whose kept results they need: the runner reuses these by key."""
        tasks = {task.key: task for task in self.work.tasks}
        for task in self.work.tasks:
            for key in task.needs:
                tasks.setdefault(key, _done(key, task))
        return list(tasks.values())

    def _with_preparations(self, run: TaskRun, engine: Engine, missing: set[str]) -> Iterator[Job]:
        """The tasks' jobs, after those that make what their engine wants to have ready."""
        before: dict[str, set[Id]] = {}
        if isinstance(engine, Ahead):
            for each in engine.ahead(self.work.tasks):
                segments = (("segment", key) for key in each.segments if key in missing)
                yield Job(
                    id=("preparation", each.name),
                    run=lambda _turn, make=each.make: make(),  # type: ignore[misc]
                    needs=(*segments, *(("preparation", name) for name in each.needs)),
                    seconds=each.seconds,
                )
                for key in each.tasks:
                    before.setdefault(key, set()).add(("preparation", each.name))

        def besides(task: Task) -> set[Id]:
            environment = {("segment", key) for key in task.environment if key in missing}
            return environment | self._fetched(task.artifacts) | before.get(task.key, set())

        yield from run.jobs(besides)

    def _told(self, event: TaskEvent) -> None:
        if any(event.task is task for task in self.work.tasks):
            what: Literal["begin", "made", "reused", "failed"] = {  # type: ignore[assignment]
                "started": "begin", "done": "made", "reused": "reused", "failed": "failed",
            }[event.what]  # fmt: skip
            self.on_event(Event(what=what, subject="task", name=event.task.name, stage=event.task.stage, seconds=event.seconds))

    def _way_out(self, task: Task) -> str | None:
        return way_out(task, said(log_file(self.store, task)), lambda package: listed(self.store, package))

    # -- layers

    def _layers(self, missing: set[str]) -> Iterator[Job]:
        for plan in self.plan.layers:
            yield Job(
                id=("layer", plan.key),
                run=functools.partial(self._layer, plan),
                needs=tuple(("segment", s.key) for s in plan.segments if s.key in missing),
                seconds=sum(s.size for s in plan.segments) / _JOINED,
            )
        yield Job(
            id=("settle", self.plan.key),
            run=self._settle,
            needs=tuple(("segment", key) for key in self.plan.segments if key in missing),
            seconds=len(self.plan.segments) / 1000,
        )

    def _layer(self, plan: LayerPlan, job_context: JobContext) -> None:
        """One layer of the plan; where a path stands twice in it, with equal bytes, it becomes several."""
        start = time.monotonic()
        found = layers_of.read(self.store, plan.key)
        if found is not None and found.segments == tuple(self.records[s.key].object for s in plan.segments):
            self.layers[plan.key] = found
            self._say(job_context, "reused", "layer", plan.name, start, size=found.size)
            return
        rest, alone = layers_of.apart(plan, self.records, self.plan.planner, self.store)
        for each in (rest, *alone):
            start = time.monotonic()
            fresh = layers_of.read(self.store, each.key) is None
            record = layers_of.assemble(each, self.records, self.facts, self.plan.planner, self.store)
            self.layers[each.key] = record
            if fresh:
                self.fresh.add(each.key)
            self._say(job_context, "made" if fresh else "reused", "layer", each.name, start, size=record.size)

    def _settle(self, _turn: JobContext) -> None:
        self.settled.extend(layers_of.settle(self.plan.layers, self.records, self.plan.planner, self.store))

    def _say(
        self,
        job_context: JobContext,
        what: Literal["fetched", "made", "reused"],
        subject: Literal["artifact", "segment", "layer"],
        name: str,
        start: float,
        *,
        stage: str = "",
        size: int = 0,
    ) -> None:
        event = Event(what=what, subject=subject, name=name, stage=stage, seconds=time.monotonic() - start, size=size)
        job_context.tell(lambda: self.on_event(event))


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


def _causes(error: BaseException) -> Iterator[BaseException]:
    """What led to `error`, the nearest first."""
    cause = error.__cause__ or error.__context__
    while cause is not None:
        yield cause
        cause = cause.__cause__ or cause.__context__


def _all_of(failures: list[Failure], run: TaskRun | None) -> Exception:
    """One error for what failed: tasks are told whole; of the others, whose cause is often one and the same, the first is."""
    others = [failure.error for failure in failures if failure.job.id[0] != "task"]
    if run is None or len(others) == len(failures):
        return others[0]
    told = run.failed(failures)
    if not others:
        return told
    first = others[0]
    assert isinstance(first, CregraphError)
    return CregraphError(f"{first.message}\n{told.message}", hint="\n".join(filter(None, (first.hint, told.hint))) or None)


def _done(key: str, by: Task) -> Task:
    """A task of which only the kept result matters."""
    return Task(
        key=key, kind=by.kind, stage=by.stage, name=key[:12], root=by.root, argv=("true",), env={}, output=by.results[key]
    )

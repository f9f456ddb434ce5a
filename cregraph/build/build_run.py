"""One run of a build: its missing work as a graph of jobs, in which a job waits for nothing but what it needs.

artifact ─> segment ─> layer ─┐
              │  │            ├─> the image (cregraph.build.image_build)
              │  └─> settle ──┘
              └─> preparation ─> task ─> segment ─> ...
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from cregraph.build.failure_report import Origin, build_error
from cregraph.build.segment_writer import write_segment
from cregraph.build.task_execution import hold_task, run_task
from cregraph.engines.contract import Engine, TaskFailed
from cregraph.errors import CregraphError
from cregraph.image.model import layer as layers_of
from cregraph.image.model.layer import LayerRecord
from cregraph.image.model.segment import SegmentRecord
from cregraph.image.model.segment_files import stored
from cregraph.lock.base_facts import BaseFacts
from cregraph.lock.pins import Artifact
from cregraph.plan.layer_split import LayerPlan
from cregraph.plan.missing_work import MissingWork
from cregraph.plan.parts import Segment, Task
from cregraph.plan.planner import Plan
from cregraph.scheduler import Id, Job, JobContext, run_jobs
from cregraph.store import Store
from cregraph.store.task_records import expected_seconds, record_seconds, verified_result

__all__ = ["BuildRun", "Event"]

_DOWNLOADS = 6  # artifacts that are downloaded at once
#: Bytes of artifacts in a second, about. They order jobs and decide nothing else.
_DOWNLOADED, _PACKED, _JOINED = 20e6, 12e6, 50e6

What = Literal["begin", "fetched", "made", "reused", "failed"]
Subject = Literal["artifact", "segment", "task", "layer", "image"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Event:
    """A step of a build. `seconds` is its duration, `size` its number of bytes; 0 if not known."""

    what: What
    subject: Subject
    name: str
    stage: str = ""
    seconds: float = 0.0
    size: int = 0


@dataclass(kw_only=True)
class BuildRun:
    """One run of a build.

    Attributes:
        work: What is missing of `plan`.
        fetch: Returns the verified file of an artifact.
        engine: Returns what runs tasks. It is called only if `work` has a task.
        on_event: Called in the thread that calls `run`.
        origin: Says for a message where a failed task comes from.
        recorded: The sha256 that a task's result must have, by task key, where outputs record one.
        records: After `run`, all segments of the plan's layers by key.
        results: After `run`, the sha256 of the results of `work.tasks` by key.
        layers: After `run`, the layers by key. `settled` are those of the image, in order; `fresh` the keys of new ones.
    """

    plan: Plan
    facts: BaseFacts
    work: MissingWork
    store: Store
    fetch: Callable[[Artifact], Path]
    engine: Callable[[], Engine]
    on_event: Callable[[Event], None]
    recorded: Mapping[str, str]
    origin: Callable[[Task], Origin] = field(default=lambda _task: Origin())
    records: dict[str, SegmentRecord] = field(default_factory=dict)
    results: dict[str, str] = field(default_factory=dict)
    layers: dict[str, LayerRecord] = field(default_factory=dict)
    settled: list[LayerPlan] = field(default_factory=list)
    fresh: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        self._artifacts = {artifact.sha256 for artifact in self.work.artifacts}
        self._segments = {segment.key for segment in self.work.segments}
        self._tasks = {task.key: task for task in self.work.tasks}

    def run(self, *, jobs: int, keep_going: bool) -> None:
        """Run all jobs, at most `jobs` at once and a few downloads. See `run_jobs` for failures.

        Two processes that need the same task run it once.

        Raises:
            CregraphError: A job failed. Everything that is complete stays in the store.
            Refused: Each failed task gave another result than `recorded` names.
        """
        for segment in (s for layer in self.plan.layers for s in layer.segments if s.key not in self._segments):
            self.records[segment.key] = stored(self.store, segment.key, segment.name)
        graph = [*self._artifact_jobs(), *self._segment_jobs(), *self._layer_jobs()]
        engine = self.engine() if self._tasks else None
        if engine is not None:
            graph += self._task_jobs(engine)
        failures = run_jobs(
            graph,
            pools={"work": jobs, "fetch": _DOWNLOADS},
            keep_going=keep_going,
            stop=engine.stop if engine is not None else lambda: None,
            expected=(CregraphError, TaskFailed),
        )
        if failures:
            raise build_error(failures, self._tasks, self.results, self.store, self.origin)

    # -- artifacts

    def _artifact_jobs(self) -> Iterator[Job]:
        for artifact in self.work.artifacts:
            download = functools.partial(self._download, artifact)
            yield Job(id=("artifact", artifact.sha256), run=download, seconds=artifact.size / _DOWNLOADED, pool="fetch")

    def _download(self, artifact: Artifact, context: JobContext) -> None:
        start = time.monotonic()
        self.fetch(artifact)
        name = artifact.file.rsplit("/", 1)[-1] or artifact.source
        self._report(context, "fetched", "artifact", name, start=start, size=artifact.size)

    def _downloads_of(self, artifacts: Iterable[Artifact]) -> set[Id]:
        return {("artifact", artifact.sha256) for artifact in artifacts if artifact.sha256 in self._artifacts}

    # -- segments

    def _segment_jobs(self) -> Iterator[Job]:
        for segment in self.work.segments:
            needs = self._downloads_of([segment.artifact] if segment.artifact else [])
            if segment.task_key in self._tasks:
                needs.add(("task", segment.task_key))
            write = functools.partial(self._write_segment, segment)
            yield Job(id=("segment", segment.key), run=write, needs=tuple(needs), seconds=segment.size / _PACKED)

    def _write_segment(self, segment: Segment, context: JobContext) -> None:
        file: Path | None = None
        if segment.task_key is not None:
            file = self._result_file(segment.task_key, segment.name)
        elif segment.artifact is not None:
            file = self.fetch(segment.artifact)
        start = time.monotonic()
        record = write_segment(segment, file, self.store, self.plan.lock.assembly)
        self.records[segment.key] = record
        self._report(context, "made", "segment", segment.name, stage=segment.stage, start=start, size=record.size)

    def _segments_of(self, keys: Iterable[str]) -> set[Id]:
        return {("segment", key) for key in keys if key in self._segments}

    # -- tasks

    def _task_jobs(self, engine: Engine) -> Iterator[Job]:
        """Yield the jobs of tasks, and of the preparations that their engine makes before them."""
        preparations: dict[str, set[Id]] = {}
        for each in engine.ahead(self.work.tasks):
            yield Job(
                id=("preparation", each.name),
                run=lambda _context, make=each.make: make(),  # type: ignore[misc]
                needs=(*self._segments_of(each.segments), *(("preparation", name) for name in each.needs)),
                seconds=each.seconds,
            )
            for key in each.tasks:
                preparations.setdefault(key, set()).add(("preparation", each.name))
        for task in self.work.tasks:
            needs = self._segments_of(task.environment) | self._downloads_of(task.artifacts) | preparations.get(task.key, set())
            yield Job(
                id=("task", task.key),
                run=functools.partial(self._make_or_reuse, task, engine),
                needs=(*needs, *(("task", key) for key in task.needs if key in self._tasks)),
                seconds=expected_seconds(self.store, task),
                ends=True,
            )

    def _make_or_reuse(self, task: Task, engine: Engine, context: JobContext) -> None:
        """Run a task, unless another process has run it since `work` was found."""
        report = functools.partial(self._report, context, subject="task", name=task.name, stage=task.stage)
        start = time.monotonic()
        try:
            with hold_task(task, self.store, context.stopped):
                found = verified_result(self.store, task.key)
                if found is None:
                    report("begin")
                    start = time.monotonic()
                    self.results[task.key] = self._make(task, engine, context.slot)
                    record_seconds(self.store, task, time.monotonic() - start)
                    report("made", start=start)
                    return
            self.results[task.key] = found
            report("reused")
        except BaseException:
            report("failed", start=start)
            raise

    def _make(self, task: Task, engine: Engine, slot: int) -> str:
        return run_task(
            task,
            engine,
            store=self.store,
            inputs={name: self.fetch(artifact) for name, artifact in zip(task.inputs, task.artifacts, strict=True)},
            results={key: self._result_file(key, key[:12]) for key in task.needs},
            recorded=self.recorded.get(task.key),
            slot=slot,
        )

    def _result_file(self, key: str, name: str) -> Path:
        """Return the verified result of a task that ran, or that the store had before."""
        found = self.results.get(key) or verified_result(self.store, key)
        if found is None:
            raise CregraphError(
                f"the result of task {name} was removed from the store during its use", hint="run the command again"
            )
        return self.store.verified(found, f"the result of task {name}")

    # -- layers

    def _layer_jobs(self) -> Iterator[Job]:
        for layer in self.plan.layers:
            needs, size = self._segments_of(s.key for s in layer.segments), sum(s.size for s in layer.segments)
            assemble = functools.partial(self._assemble, layer)
            yield Job(id=("layer", layer.key), run=assemble, needs=tuple(needs), seconds=size / _JOINED)
        if self.plan.layers:
            needs = self._segments_of(s.key for layer in self.plan.layers for s in layer.segments)
            seconds = len(self.plan.segments) / 1000
            yield Job(id=("settle", self.plan.key), run=self._settle, needs=tuple(needs), seconds=seconds)

    def _assemble(self, layer: LayerPlan, context: JobContext) -> None:
        """Write one layer of the plan. If two of its segments list a path, with equal bytes, it becomes several layers."""
        start = time.monotonic()
        found = layers_of.read(self.store, layer.key)
        if found is not None and found.segments == tuple(self.records[s.key].object for s in layer.segments):
            self.layers[layer.key] = found
            self._report(context, "reused", "layer", layer.name, start=start, size=found.size)
            return
        rest, alone = layers_of.apart(layer, self.records, self.plan.planner, self.store)
        for each in (rest, *alone):
            start = time.monotonic()
            is_new = layers_of.read(self.store, each.key) is None
            record = layers_of.assemble(each, self.records, self.facts, self.plan.planner, self.store)
            self.layers[each.key] = record
            if is_new:
                self.fresh.add(each.key)
            self._report(context, "made" if is_new else "reused", "layer", each.name, start=start, size=record.size)

    def _settle(self, _context: JobContext) -> None:
        self.settled.extend(layers_of.settle(self.plan.layers, self.records, self.plan.planner, self.store))

    def _report(
        self, context: JobContext, what: What, subject: Subject, name: str, *, stage: str = "", start: float = 0.0, size: int = 0
    ) -> None:
        """Report an event. `start` is when it began, on the monotonic clock; 0 if no duration is reported."""
        seconds = time.monotonic() - start if start else 0.0
        event = Event(what=what, subject=subject, name=name, stage=stage, seconds=seconds, size=size)
        context.report(functools.partial(self.on_event, event))

"""The work of a build: the missing parts of a plan, and everything to make and download for them."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from cregraph.lock.pins import Artifact
from cregraph.plan.layer_split import LayerPlan
from cregraph.plan.parts import Segment, Task
from cregraph.plan.planner import Plan

__all__ = ["Inventory", "MissingWork", "work_for"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Inventory:
    """Functions that tell whether something exists already. Each takes a key, or the sha256 of an artifact."""

    segment: Callable[[str], bool]
    result: Callable[[str], bool]
    artifact: Callable[[str], bool]


@dataclass(frozen=True, kw_only=True, slots=True)
class MissingWork:
    """Layers and segments to write, tasks to run (each after those that it needs), artifacts to download."""

    layers: tuple[LayerPlan, ...] = ()
    segments: tuple[Segment, ...] = ()
    tasks: tuple[Task, ...] = ()
    artifacts: tuple[Artifact, ...] = ()


def work_for(
    plan: Plan, there: Inventory, *, layers: Iterable[LayerPlan] = (), segments: Iterable[Segment] = (), task: Task | None = None
) -> MissingWork:
    """Return what is missing for `layers` and `segments` of `plan`, and for opening the sandbox of `task`.

    A task runs only if something that is missing needs its result, and the segments of its environment are needed only then.
    """
    wanted = [segment for segment in segments if not there.segment(segment.key)]
    runs = _tasks_to_run(plan, there, [*(s.task_key for s in wanted if s.task_key), *(task.needs if task else ())])
    sandboxes = [*runs, *([task] if task else [])]
    environment = {key for each in sandboxes for key in each.environment} - {segment.key for segment in wanted}
    everything = {**plan.segments, **plan.hidden}
    wanted += [everything[key] for key in sorted(environment) if not there.segment(key)]
    artifacts = _artifacts(wanted, sandboxes, there)
    return MissingWork(layers=tuple(layers), segments=tuple(wanted), tasks=tuple(runs), artifacts=artifacts)


def _artifacts(segments: Iterable[Segment], tasks: Iterable[Task], there: Inventory) -> tuple[Artifact, ...]:
    needed = {segment.artifact.sha256: segment.artifact for segment in segments if segment.artifact}
    needed |= {artifact.sha256: artifact for task in tasks for artifact in task.artifacts}
    return tuple(artifact for artifact in needed.values() if not there.artifact(artifact.sha256))


def _tasks_to_run(plan: Plan, there: Inventory, results: Iterable[str]) -> list[Task]:
    """Return the tasks whose results are missing among `results` (task keys) and among what these need, in the plan's order."""
    by_key = {task.key: task for task in plan.tasks}
    runs: set[str] = set()
    todo = list(results)
    while todo:
        key = todo.pop()
        if key not in runs and not there.result(key):
            runs.add(key)
            todo.extend(by_key[key].needs)
    return [task for task in plan.tasks if task.key in runs]

"""Runs tasks, and nothing else, as a build does."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from cregraph.build.build_run import BuildRun, Event
from cregraph.engines.contract import Engine
from cregraph.lock.pins import Artifact
from cregraph.plan.missing_work import MissingWork
from cregraph.plan.parts import Task
from cregraph.store import Store


def run_tasks(
    tasks: Iterable[Task],
    *,
    store: Store,
    engine: Engine,
    artifact: Callable[[Artifact], Path],
    jobs: int = 1,
    keep_going: bool = False,
    on_event: Callable[[Event], None] = lambda _event: None,
) -> dict[str, str]:
    """Make or reuse the results of `tasks`; the sha256 of each by key."""
    nothing: Any = SimpleNamespace(layers=())
    run = BuildRun(
        plan=nothing,
        facts=nothing,
        work=MissingWork(tasks=tuple(tasks)),
        store=store,
        fetch=artifact,
        engine=lambda: engine,
        on_event=on_event,
        recorded={},
    )
    run.run(jobs=jobs, keep_going=keep_going)
    return {task.key: run.results[task.key] for task in run.work.tasks}

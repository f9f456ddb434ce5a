"""Execution of one task in an engine, and the record of its result."""

from __future__ import annotations

import contextlib
import fcntl
import threading
import time
from collections.abc import Iterator

from cregraph.engines.contract import Engine, Files, Stopped, TaskFailed
from cregraph.lock.outputs import contradiction
from cregraph.plan.parts import Task
from cregraph.store import Store
from cregraph.store.task_records import log_file, record_result, recorded_result

__all__ = ["hold_task", "run_task"]


def run_task(task: Task, engine: Engine, *, store: Store, inputs: Files, results: Files, recorded: str | None, slot: int) -> str:
    """Run `task`, record its result and return the result's sha256. See `Engine.perform` for the arguments.

    Raises:
        Refused: The result is not the `recorded` sha256. Nothing is recorded.
        TaskFailed: The task failed, or the store records another result for its key.
        Stopped: The engine was told to stop.
    """
    log = log_file(store, task)
    log.parent.mkdir(parents=True, exist_ok=True)
    log.unlink(missing_ok=True)
    log.touch(mode=0o600, exist_ok=False)
    with store.writer() as out:
        start = time.monotonic()
        try:
            engine.perform(task, inputs=inputs, results=results, write=out.write, log=log, slot=slot)
        except TaskFailed as error:
            error.seconds = time.monotonic() - start
            raise
    if recorded not in (None, out.sha256):
        raise contradiction(task.name, recorded=str(recorded), gave=out.sha256)
    before = recorded_result(store, task.key)
    if before is not None and before[0] != out.sha256:
        raise TaskFailed(
            f"it gave sha256:{out.sha256}, and before sha256:{before[0]} for the same key",
            hint="report it to the authors, or use a binary package: its command is not reproducible",
        )
    record_result(store, task.key, out.sha256, out.size)
    return out.sha256


@contextlib.contextmanager
def hold_task(task: Task, store: Store, stopped: threading.Event) -> Iterator[None]:
    """Hold `task` against other processes. The wait for them can take hours; `stopped` ends it, unlike that of `Store.lock`.

    Raises:
        Stopped: `stopped` was set before the task was free.
    """
    with store.lock_file(f"task-{task.key}") as file:
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if stopped.wait(0.1):
                    raise Stopped from None
        yield

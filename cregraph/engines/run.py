"""All tasks of a build: in the order of what they need, several at a time, results kept by key.

A result is a normalised tar in the store; the record `tasks/<key>` names it: {"sha256", "size"}. How long it took is history, not
result, and has a record of its own: `history/<key>` {"seconds"}. A log lies in the store's folder `logs`.
"""

from __future__ import annotations

import contextlib
import fcntl
import graphlib
import queue
import re
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from cregraph.digest import is_sha256
from cregraph.engines.contract import Engine, Stopped, TaskFailed
from cregraph.errors import CregraphError
from cregraph.pins import Artifact
from cregraph.plan import Task
from cregraph.store import Store

__all__ = ["TaskEvent", "kept", "log_of", "run_tasks"]

_SHOWN = 20  # lines of a log that an error shows
_PATIENCE = 15  # seconds that an interrupted run waits for its threads to clear up
_TAIL = 64 << 10  # bytes of it that are looked at for them


@dataclass(frozen=True, kw_only=True, slots=True)
class TaskEvent:
    """Something that happened to a task, for the display. `seconds` is how long it ran, where it did."""

    what: Literal["started", "done", "reused", "failed"]
    task: Task
    seconds: float = 0.0


def kept(store: Store, key: str) -> str | None:
    """The sha256 of the kept result of the task `key`, its bytes verified; None when it must be made."""
    record = store.record("tasks", key)
    found = record.get("sha256") if isinstance(record, dict) else None
    if not isinstance(found, str) or not is_sha256(found):
        return None
    try:
        store.verified(found, f"the result of task {key[:12]}")
    except CregraphError:
        return None
    return found


def log_of(store: Store, task: Task) -> Path:
    """Where the task's log lies or would lie."""
    name = re.sub(r"[^A-Za-z0-9._+-]", "_", task.name)[:80]
    return store.root / "logs" / f"{name}-{task.key[:12]}.log"


def run_tasks(
    tasks: Iterable[Task],
    *,
    store: Store,
    engine: Engine,
    artifact: Callable[[Artifact], Path],
    jobs: int = 1,
    keep_going: bool = False,
    on_event: Callable[[TaskEvent], None] = lambda _event: None,
    hint: Callable[[Task], str | None] = lambda _task: None,
) -> dict[str, str]:
    """Make or reuse the results of all `tasks`; the sha256 of each by key.

    `artifact` gives the verified file of an artifact. At most `jobs` run at once. After a failure what runs is let finish and is
    kept, and nothing new is started (`keep_going`: all that does not need it). Events come from the calling thread. `hint` says
    the way out of a task's failure, where its reason does not.
    Raises CregraphError for failed tasks: reason, end of the log, where the log is, what was skipped. Any other exception, Ctrl-C
    too, ends all that runs before it leaves. Two processes that want one task make it once.
    """
    by_key = {task.key: task for task in tasks}
    run = _Run(store, engine, artifact, by_key)
    order = _order(by_key)
    waiting: list[Task] = []
    slots = list(range(max(jobs, 1) - 1, -1, -1))
    messages: queue.SimpleQueue[_Message] = queue.SimpleQueue()
    threads: list[threading.Thread] = []
    failures: list[tuple[Task, BaseException]] = []
    busy = 0
    try:
        while True:
            waiting.extend(by_key[key] for key in order.get_ready())
            while waiting and slots and (keep_going or not failures):
                slot = slots.pop()
                task = waiting.pop(0)
                # Not daemonic for Ctrl-C's sake: the except below ends what they wait for.
                thread = threading.Thread(target=run.one, args=(task, slot, messages), name=f"task-{task.name}", daemon=True)
                threads.append(thread)
                thread.start()
                busy += 1
            if not busy:
                break
            message = messages.get()
            if message.event is not None:
                on_event(message.event)
            if message.slot is not None:
                busy -= 1
                slots.append(message.slot)
                if message.error is None:
                    order.done(message.task.key)
                elif isinstance(message.error, CregraphError | TaskFailed):
                    failures.append((message.task, message.error))
                else:
                    raise message.error
    except BaseException:
        run.stopped.set()
        engine.stop()
        until = time.monotonic() + _PATIENCE
        for thread in threads:
            thread.join(max(until - time.monotonic(), 0))
        raise
    if failures:
        raise _failed(failures, [t for t in by_key.values() if t.key not in run.results], store, hint)
    return {key: run.results[key] for key in by_key}


@dataclass(frozen=True, kw_only=True, slots=True)
class _Message:
    """From a worker: an event, the end of its work (then `slot` is free again), or both."""

    task: Task
    event: TaskEvent | None = None
    slot: int | None = None
    error: BaseException | None = None


class _Run:
    def __init__(self, store: Store, engine: Engine, artifact: Callable[[Artifact], Path], tasks: Mapping[str, Task]) -> None:
        self._store = store
        self._engine = engine
        self._artifact = artifact
        self._tasks = tasks
        self.results: dict[str, str] = {}
        self.stopped = threading.Event()

    def one(self, task: Task, slot: int, messages: queue.SimpleQueue[_Message]) -> None:
        """Make or reuse one task, and say so. Runs in a thread of its own."""

        def say(what: Literal["started", "done", "reused", "failed"], seconds: float = 0.0) -> TaskEvent:
            return TaskEvent(what=what, task=task, seconds=seconds)

        started = time.monotonic()
        try:
            found = kept(self._store, task.key)
            if found is None:
                with self._alone(task):
                    found = kept(self._store, task.key)
                    if found is None:
                        messages.put(_Message(task=task, event=say("started")))
                        started = time.monotonic()
                        self.results[task.key] = self._make(task, slot)
                        seconds = time.monotonic() - started
                        self._store.put_record("history", task.key, {"seconds": round(seconds, 3)})
                        messages.put(_Message(task=task, event=say("done", seconds), slot=slot))
                        return
            self.results[task.key] = found
            messages.put(_Message(task=task, event=say("reused"), slot=slot))
        except BaseException as error:
            seconds = time.monotonic() - started
            messages.put(_Message(task=task, event=say("failed", seconds), slot=slot, error=error))

    def _make(self, task: Task, slot: int) -> str:
        inputs = {name: self._artifact(artifact) for name, artifact in zip(task.inputs, task.artifacts, strict=True)}
        results = {key: self._store.path_of(self.results[key]) for key in task.needs}
        log = log_of(self._store, task)
        log.parent.mkdir(parents=True, exist_ok=True)
        log.write_bytes(b"")
        with self._store.writer() as out:
            self._engine.perform(task, inputs=inputs, results=results, write=out.write, log=log, slot=slot)
        before = self._store.record("tasks", task.key)
        if isinstance(before, dict) and is_sha256(before.get("sha256")) and before["sha256"] != out.sha256:
            raise TaskFailed(
                f"it gave sha256:{out.sha256}, and before sha256:{before['sha256']} for the same key",
                hint="its command is not reproducible: tell its authors, or take a binary package; a new store starts anew",
            )
        self._store.put_record("tasks", task.key, {"sha256": out.sha256, "size": out.size})
        return out.sha256

    @contextlib.contextmanager
    def _alone(self, task: Task) -> Iterator[None]:
        """Hold the task against other processes. Unlike `Store.lock` this can be interrupted: the other may take hours."""
        folder = self._store.root / "locks"
        folder.mkdir(parents=True, exist_ok=True)
        with (folder / f"task-{task.key}").open("a") as file:
            while True:
                try:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    if self.stopped.wait(0.1):
                        raise Stopped from None
            yield


def _order(by_key: Mapping[str, Task]) -> graphlib.TopologicalSorter[str]:
    order: graphlib.TopologicalSorter[str] = graphlib.TopologicalSorter()
    for task in by_key.values():
        missing = [key for key in task.needs if key not in by_key]
        if missing:
            raise ValueError(f"task {task.name} needs tasks that are not in the plan: {', '.join(missing)}")
        order.add(task.key, *task.needs)
    order.prepare()
    return order


def _failed(
    failures: Sequence[tuple[Task, BaseException]], unmade: Sequence[Task], store: Store, hint: Callable[[Task], str | None]
) -> CregraphError:
    lines = []
    hints = []
    for task, error in failures:
        log = log_of(store, task)
        lines.append(f"task {task.name} (stage {task.stage}) failed: {error.reason if isinstance(error, TaskFailed) else error}")
        tail = _tail(log)
        if tail:
            lines += [f"  the end of its log, {log}:", *(f"  | {line}" for line in tail)]
        way = getattr(error, "hint", None) or hint(task)
        if way and way not in hints:
            hints.append(way)
    bad = {task.key for task, _ in failures}
    because = set(bad)
    for _ in unmade:  # at most as many rounds as a chain is long
        more = {task.key for task in unmade if because.intersection(task.needs)} - because
        if not more:
            break
        because |= more
    for what, skipped in (
        ("skipped because of it", sorted(task.name for task in unmade if task.key in because - bad)),
        ("not begun", sorted(task.name for task in unmade if task.key not in because)),
    ):
        if skipped:
            lines.append(f"{what}: {', '.join(skipped)}")
    return CregraphError("\n".join(lines), hint="\n".join(hints) or None)


def _tail(log: Path) -> list[str]:
    try:
        with log.open("rb") as file:
            size = file.seek(0, 2)
            file.seek(max(size - _TAIL, 0))
            text = file.read().decode("utf-8", "replace")
    except OSError:
        return []
    # A terminal would obey what a hostile package prints.
    clean = "".join(c if c.isprintable() or c in "\n\t" else " " for c in text)
    return clean.rstrip().splitlines()[-_SHOWN:]

"""All tasks of a build: in the order of what they need, several at a time, results kept by key.

A result is a normalised tar in the store; the record `tasks/<key>` names it: {"sha256", "size"}. A log lies in the store's folder
`logs`.
"""

from __future__ import annotations

import contextlib
import fcntl
import functools
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from cregraph.engines.contract import Engine, Stopped, TaskFailed
from cregraph.engines.failures import findings
from cregraph.errors import CregraphError, Refused
from cregraph.lock.outputs import contradiction
from cregraph.lock.pins import Artifact
from cregraph.plan.parts import Task
from cregraph.scheduler import Failure, Id, Job, JobContext, run_jobs
from cregraph.store import Store
from cregraph.store.task_records import (
    expected_seconds,
    log_file,
    record_result,
    record_seconds,
    recorded_result,
    verified_result,
)
from cregraph.text import printable

__all__ = ["EXPECTED", "TaskEvent", "TaskRun", "run_tasks", "said"]

#: What a job of a build may raise without ending the others at once.
EXPECTED = (CregraphError, TaskFailed)

_SHOWN = 20  # lines of a log that an error shows
_TAIL = 256 << 10  # bytes of it that are looked at for them


@dataclass(frozen=True, kw_only=True, slots=True)
class TaskEvent:
    """Something that happened to a task, for the display. `seconds` is how long it ran, where it did."""

    what: Literal["started", "done", "reused", "failed"]
    task: Task
    seconds: float = 0.0


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
    """Make or reuse the results of all `tasks`, and nothing else; the sha256 of each by key.

    At most `jobs` run at once. After a failure what runs is let finish and is kept, and nothing new is started (`keep_going`: all
    that does not need it). Raises the CregraphError of `TaskRun.failed`. Any other exception, Ctrl-C too, ends all that runs
    before it leaves.
    """
    run = TaskRun(tasks, store=store, engine=engine, artifact=artifact, on_event=on_event, hint=hint)
    failures = run_jobs(run.jobs(), pools={"work": jobs}, keep_going=keep_going, stop=engine.stop, expected=EXPECTED)
    if failures:
        raise run.failed(failures)
    return {key: run.results[key] for key in run.tasks}


class TaskRun:
    """The tasks of one build as jobs, the result of each by key in `results` once its job is done.

    `artifact` gives the verified file of an artifact. Events come from the thread that runs the jobs. `hint` says the way out
    of a task's failure, where its reason does not. Two processes that want one task make it once. A result other than the sha256
    that `recorded` has for its key is Refused, and not kept.
    """

    def __init__(
        self,
        tasks: Iterable[Task],
        *,
        store: Store,
        engine: Engine,
        artifact: Callable[[Artifact], Path],
        on_event: Callable[[TaskEvent], None],
        hint: Callable[[Task], str | None],
        recorded: Mapping[str, str] | None = None,
    ) -> None:
        self.tasks = {task.key: task for task in tasks}
        self.results: dict[str, str] = {}
        self._store = store
        self._engine = engine
        self._artifact = artifact
        self._on_event = on_event
        self._hint = hint
        self._recorded = recorded or {}

    def jobs(self, besides: Callable[[Task], Iterable[Id]] = lambda _task: ()) -> Iterator[Job]:
        """A job `("task", key)` for each; `besides` names what a task waits for besides the tasks that it needs."""
        for task in self.tasks.values():
            missing = [key for key in task.needs if key not in self.tasks]
            if missing:
                raise ValueError(f"task {task.name} needs tasks that are not in the plan: {', '.join(missing)}")
            yield Job(
                id=("task", task.key),
                run=functools.partial(self._one, task),
                needs=(*(("task", key) for key in task.needs), *besides(task)),
                seconds=expected_seconds(self._store, task),
                ends=True,
            )

    def failed(self, failures: Iterable[Failure]) -> CregraphError:
        """The error that tells failed tasks whole: reason, end of the log, where the log is, what was skipped."""
        of_tasks = [(self.tasks[f.job.id[1]], f.error) for f in failures if f.job.id[0] == "task"]
        unmade = [task for task in self.tasks.values() if task.key not in self.results]
        return _failed(of_tasks, unmade, self._store, self._hint)

    def _one(self, task: Task, job_context: JobContext) -> None:
        """Make or reuse one task, and say so. Runs in a thread of its own."""

        def say(what: Literal["started", "done", "reused", "failed"], seconds: float = 0.0) -> None:
            event = TaskEvent(what=what, task=task, seconds=seconds)
            job_context.tell(lambda: self._on_event(event))

        started = time.monotonic()
        try:
            found = verified_result(self._store, task.key)
            if found is None:
                with self._alone(task, job_context):
                    found = verified_result(self._store, task.key)
                    if found is None:
                        say("started")
                        started = time.monotonic()
                        self.results[task.key] = self._make(task, job_context.slot)
                        seconds = time.monotonic() - started
                        record_seconds(self._store, task, seconds)
                        say("done", seconds)
                        return
            self.results[task.key] = found
            say("reused")
        except BaseException:
            say("failed", time.monotonic() - started)
            raise

    def _make(self, task: Task, slot: int) -> str:
        inputs = {name: self._artifact(artifact) for name, artifact in zip(task.inputs, task.artifacts, strict=True)}
        results = {key: self._store.path_of(self.results[key]) for key in task.needs}
        log = log_file(self._store, task)
        log.parent.mkdir(parents=True, exist_ok=True)
        log.write_bytes(b"")
        with self._store.writer() as out:
            self._engine.perform(task, inputs=inputs, results=results, write=out.write, log=log, slot=slot)
        recorded = self._recorded.get(task.key, out.sha256)
        if recorded != out.sha256:
            raise contradiction(task.name, recorded=recorded, gave=out.sha256)
        before = recorded_result(self._store, task.key)
        if before is not None and before[0] != out.sha256:
            raise TaskFailed(
                f"it gave sha256:{out.sha256}, and before sha256:{before[0]} for the same key",
                hint="its command is not reproducible: tell its authors, or take a binary package; a new store starts anew",
            )
        record_result(self._store, task.key, out.sha256, out.size)
        return out.sha256

    @contextlib.contextmanager
    def _alone(self, task: Task, job_context: JobContext) -> Iterator[None]:
        """Hold the task against other processes. Unlike `Store.lock` this can be interrupted: the other may take hours."""
        folder = self._store.root / "locks"
        folder.mkdir(parents=True, exist_ok=True)
        with (folder / f"task-{task.key}").open("a") as file:
            while True:
                try:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    if job_context.stopped.wait(0.1):
                        raise Stopped from None
            yield


def _failed(
    failures: Sequence[tuple[Task, BaseException]], unmade: Sequence[Task], store: Store, hint: Callable[[Task], str | None]
) -> CregraphError:
    lines = []
    hints = []
    for task, error in failures:
        if isinstance(error, Refused):  # it ran, and gave what it may not
            lines.append(error.message)
            hints += [error.hint] if error.hint and error.hint not in hints else []
            continue
        log = log_file(store, task)
        lines.append(f"task {task.name} (stage {task.stage}) failed: {error.reason if isinstance(error, TaskFailed) else error}")
        text = said(log)
        tail = text.splitlines()[-_SHOWN:]
        if tail:
            before = [one.line for one in findings(text) if not any(one.line in line for line in tail)]
            shown = [*before, "…", *tail] if before else tail  # what a compiler said first often stands far above the end
            lines += [f"  the end of its log, {log}:", *(f"  | {line}" for line in shown)]
        way = getattr(error, "hint", None) or hint(task)
        if way and len(failures) > 1:
            way = f"{task.name}: {way}"
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
        if skipped and what == "not begun":
            hints.append("what was made is kept; with `--keep-going` what was not begun is made too")
    kind = Refused if all(isinstance(error, Refused) for _, error in failures) else CregraphError
    return kind("\n".join(lines), hint="\n".join(hints) or None)


def said(log: Path) -> str:
    """The end of what a task printed, without what would command a terminal; empty where there is no log."""
    try:
        with log.open("rb") as file:
            size = file.seek(0, 2)
            file.seek(max(size - _TAIL, 0))
            text = file.read().decode("utf-8", "replace")
    except OSError:
        return ""
    return printable(text.rstrip(), keep="\n\t")

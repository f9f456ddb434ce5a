"""A scheduler for jobs of a graph, in threads: each after the jobs that it needs, those with the longest path to the end first.

A job is a function with an id. Jobs of one pool share its slots, so that downloads do not keep a processor idle and no more
jobs compute at once than there are processors.
"""

from __future__ import annotations

import contextlib
import graphlib
import heapq
import queue
import threading
import time
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TypeVar

from cregraph.errors import CregraphError

__all__ = ["Failure", "Id", "Job", "JobContext", "longest_paths", "run_jobs", "threads"]

Id = tuple[str, str]
"""What a job does, and the key of what it does that to."""

N = TypeVar("N", bound=Hashable)

_PATIENCE = 15  # seconds to wait for threads after a failure that ends the run


@dataclass(frozen=True, kw_only=True, slots=True)
class JobContext:
    """The services that a running job can use.

    Attributes:
        slot: Number of the job's slot in its pool, from 0. No other running job of the pool has it.
        report: Takes an action, which the thread that called `run_jobs` runs before the job counts as done.
        stopped: Set when the whole run ends early.
    """

    slot: int
    report: Callable[[Callable[[], None]], None]
    stopped: threading.Event


@dataclass(frozen=True, kw_only=True, slots=True)
class Job:
    """A function, and the ids of the jobs that must be done before. `seconds` is how long it is expected to take.

    `ends` says that `run` returns soon after it was told to stop, so that even Ctrl-C waits for it.
    """

    id: Id
    run: Callable[[JobContext], None]
    needs: tuple[Id, ...] = ()
    seconds: float = 0.0
    pool: str = "work"
    ends: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class Failure:
    """A job that raised an expected error."""

    job: Job
    error: Exception


def run_jobs(
    jobs: Iterable[Job],
    *,
    pools: Mapping[str, int],
    keep_going: bool = False,
    stop: Callable[[], None] = lambda: None,
    expected: tuple[type[Exception], ...] = (CregraphError,),
) -> list[Failure]:
    """Run all jobs, at most `pools[name]` of a pool at once; return the failures in the order in which they came.

    After an expected error the running jobs finish and no other job starts; with `keep_going` those start that do not need a
    failed one. Any other exception, also Ctrl-C, calls `stop` and is raised when the jobs have ended. Ctrl-C waits only for
    jobs with `ends`.

    Raises:
        ValueError: A job needs itself or an unknown id, or two jobs have one id.
    """
    run = _Run(list(jobs), pools)
    failures: list[Failure] = []
    try:
        while True:
            if keep_going or not failures:
                run.start()
            if not run.busy:
                return failures
            message = run.messages.get()
            if message.action is not None:
                message.action()
                continue
            run.end(message)
            if isinstance(message.error, expected):
                failures.append(Failure(job=message.job, error=message.error))
            elif message.error is not None:
                raise message.error
    except BaseException as error:
        run.stopped.set()
        stop()
        run.wait(only_ending=not isinstance(error, Exception))
        raise


@contextlib.contextmanager
def threads(count: int) -> Iterator[ThreadPoolExecutor]:
    """Start a pool of threads. A failure cancels the calls that have not started, and Ctrl-C does not wait for a server."""
    pool = ThreadPoolExecutor(count)
    try:
        yield pool
    except BaseException as error:
        pool.shutdown(wait=isinstance(error, Exception), cancel_futures=True)
        raise
    pool.shutdown()


def longest_paths(seconds: Mapping[N, float], needs: Mapping[N, Iterable[N]]) -> dict[N, float]:
    """Return for each node the seconds of the longest path from its start to the end of the graph.

    Raises:
        ValueError: The nodes need each other in a circle.
    """
    longest = dict(seconds)
    for node in reversed(list(graphlib.TopologicalSorter(needs).static_order())):
        for need in needs[node]:
            longest[need] = max(longest[need], seconds[need] + longest[node])
    return longest


@dataclass(frozen=True, kw_only=True, slots=True)
class _Message:
    """From a job's thread: an action that it reports, or that it ended, perhaps with an error."""

    job: Job
    slot: int
    action: Callable[[], None] | None = None
    error: BaseException | None = None


@dataclass(kw_only=True, slots=True)
class _Pool:
    """Free slots, and a heap of the jobs that wait for one: (negative longest path, position in the list of jobs)."""

    slots: list[int]
    waiting: list[tuple[float, int]] = field(default_factory=list)


class _Run:
    """The state of one call of `run_jobs`. `busy` is the number of running jobs."""

    def __init__(self, jobs: list[Job], pools: Mapping[str, int]) -> None:
        self.messages: queue.SimpleQueue[_Message] = queue.SimpleQueue()
        self.stopped = threading.Event()
        self.busy = 0
        self._jobs = jobs
        self._positions = {job.id: position for position, job in enumerate(jobs)}
        graph = {job.id: job.needs for job in jobs}
        missing = {need for job in jobs for need in job.needs} - graph.keys()
        if missing or len(graph) < len(jobs):
            raise ValueError(f"two jobs have one id, or a job needs unknown ones: {sorted(missing)}")
        self._longest = longest_paths({job.id: job.seconds for job in jobs}, graph)
        self._order = graphlib.TopologicalSorter(graph)
        self._order.prepare()
        self._pools = {name: _Pool(slots=list(range(max(count, 1) - 1, -1, -1))) for name, count in pools.items()}
        self._threads: list[tuple[Job, threading.Thread]] = []

    def start(self) -> None:
        """Start every job that can run and finds a free slot."""
        for id in self._order.get_ready():
            position = self._positions[id]
            heapq.heappush(self._pools[self._jobs[position].pool].waiting, (-self._longest[id], position))
        for pool in self._pools.values():
            while pool.waiting and pool.slots:
                job = self._jobs[heapq.heappop(pool.waiting)[1]]
                # A daemon, because after Ctrl-C nobody waits for a server.
                thread = threading.Thread(target=self._run, args=(job, pool.slots.pop()), name="-".join(job.id), daemon=True)
                self._threads.append((job, thread))
                thread.start()
                self.busy += 1

    def end(self, message: _Message) -> None:
        """Free the slot of a job that ended. If it did not fail, the jobs that need it can run."""
        self.busy -= 1
        self._pools[message.job.pool].slots.append(message.slot)
        if message.error is None:
            self._order.done(message.job.id)

    def wait(self, *, only_ending: bool) -> None:
        """Wait a limited time for the threads of all jobs, or only of those with `ends`."""
        until = time.monotonic() + _PATIENCE
        for job, thread in self._threads:
            if job.ends or not only_ending:
                thread.join(max(until - time.monotonic(), 0))

    def _run(self, job: Job, slot: int) -> None:
        def report(action: Callable[[], None]) -> None:
            self.messages.put(_Message(job=job, slot=slot, action=action))

        try:
            job.run(JobContext(slot=slot, report=report, stopped=self.stopped))
        except BaseException as error:
            self.messages.put(_Message(job=job, slot=slot, error=error))
        else:
            self.messages.put(_Message(job=job, slot=slot))

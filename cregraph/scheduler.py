"""Jobs in a graph: each when all that it needs is done, several at once, what most waits for first.

Knows nothing of images: a job is a function with an id. Jobs of one `pool` share its slots, so that what waits for a network
does not keep a processor idle, and what computes is no more at once than there are processors.
"""

from __future__ import annotations

import graphlib
import heapq
import queue
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from cregraph.errors import CregraphError

__all__ = ["Failure", "Id", "Job", "JobContext", "run_jobs"]

Id = tuple[str, str]
"""What a job is, and its key."""

_PATIENCE = 15  # seconds that an end waits for threads to clear up


@dataclass(frozen=True, kw_only=True, slots=True)
class JobContext:
    """What a job is given. `slot` counts those of its room that run at the same time, from 0: each has its own.

    `tell` has something done in the thread that called `run_jobs`, in the order of telling. `stopped` is set when all is to end.
    """

    slot: int
    tell: Callable[[Callable[[], None]], None]
    stopped: threading.Event


@dataclass(frozen=True, kw_only=True, slots=True)
class Job:
    """`run` is called once all of `needs` are done. `seconds` is what it is expected to take.

    `ends`: it ends soon when it is told to stop, so even Ctrl-C waits for it.
    """

    id: Id
    run: Callable[[JobContext], None]
    needs: tuple[Id, ...] = ()
    seconds: float = 0.0
    pool: str = "work"
    ends: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class Failure:
    """A job that raised one of the errors that were expected."""

    job: Job
    error: Exception


@dataclass(frozen=True, kw_only=True, slots=True)
class _Message:
    """From a job's thread: something to be done, or that the job is over."""

    job: Job
    deed: Callable[[], None] | None = None
    slot: int = 0
    error: BaseException | None = None


@dataclass(kw_only=True, slots=True)
class _Pool:
    """Free slots, and what waits for one, the least first: (minus the expected seconds to the end of all, number as given)."""

    slots: list[int]
    waiting: list[tuple[float, int]] = field(default_factory=list)


def run_jobs(
    jobs: Iterable[Job],
    *,
    pools: Mapping[str, int],
    keep_going: bool = False,
    stop: Callable[[], None] = lambda: None,
    expected: tuple[type[Exception], ...] = (CregraphError,),
) -> list[Failure]:
    """Run all jobs; the failures, in the order in which they came.

    `pools` says how many of each room run at once. Of those that could run, the one goes first behind which the longest way lies
    by expected seconds; of equals, the first given. After a failure what runs is let finish, and nothing new is begun
    (`keep_going`: all that does not need what failed). Any other exception than `expected`, Ctrl-C too, calls `stop` and is
    raised once the jobs have ended; Ctrl-C waits only for those that `stop` ends.
    Raises ValueError where a job needs what is no job, or itself.
    """
    listed = list(jobs)
    by_id = {job.id: number for number, job in enumerate(listed)}
    order, way = _order(listed, by_id)
    waiting = {name: _Pool(slots=list(range(max(count, 1) - 1, -1, -1))) for name, count in pools.items()}
    messages: queue.SimpleQueue[_Message] = queue.SimpleQueue()
    stopped = threading.Event()
    threads: list[tuple[Job, threading.Thread]] = []
    failures: list[Failure] = []
    busy = 0
    try:
        while True:
            for number in order.get_ready():
                heapq.heappush(waiting[listed[number].pool].waiting, (-way[number], number))
            for pool in waiting.values():
                while pool.waiting and pool.slots and (keep_going or not failures):
                    job = listed[heapq.heappop(pool.waiting)[1]]
                    # Not daemonic for Ctrl-C's sake: the except below ends what they wait for.
                    thread = threading.Thread(
                        target=_one, args=(job, pool.slots.pop(), messages, stopped), name="-".join(job.id), daemon=True
                    )
                    threads.append((job, thread))
                    thread.start()
                    busy += 1
            if not busy:
                return failures
            message = messages.get()
            if message.deed is not None:
                message.deed()
                continue
            busy -= 1
            waiting[message.job.pool].slots.append(message.slot)
            if message.error is None:
                order.done(by_id[message.job.id])
            elif isinstance(message.error, expected):
                failures.append(Failure(job=message.job, error=message.error))
            else:
                raise message.error
    except BaseException as error:
        stopped.set()
        stop()
        until = time.monotonic() + _PATIENCE
        for job, thread in threads:
            if job.ends or isinstance(error, Exception):
                thread.join(max(until - time.monotonic(), 0))
        raise


def _one(job: Job, slot: int, messages: queue.SimpleQueue[_Message], stopped: threading.Event) -> None:
    """A job in a thread of its own."""

    def tell(deed: Callable[[], None]) -> None:
        messages.put(_Message(job=job, deed=deed))

    try:
        job.run(JobContext(slot=slot, tell=tell, stopped=stopped))
    except BaseException as error:
        messages.put(_Message(job=job, slot=slot, error=error))
    else:
        messages.put(_Message(job=job, slot=slot))


def _order(jobs: list[Job], by_id: Mapping[Id, int]) -> tuple[graphlib.TopologicalSorter[int], list[float]]:
    """The jobs by number, ready to be taken; and of each the seconds from its beginning to the end of all that waits for it."""
    graph = {}
    for number, job in enumerate(jobs):
        missing = [need for need in job.needs if need not in by_id]
        if missing or by_id[job.id] != number:
            raise ValueError(f"{' '.join(job.id)} is there twice, or needs what is no job: {missing}")
        graph[number] = [by_id[need] for need in job.needs]
    way = [job.seconds for job in jobs]
    for number in reversed(list(graphlib.TopologicalSorter(graph).static_order())):
        for need in graph[number]:
            way[need] = max(way[need], jobs[need].seconds + way[number])
    order = graphlib.TopologicalSorter(graph)
    order.prepare()
    return order, way

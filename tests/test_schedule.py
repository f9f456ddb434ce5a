"""Jobs in a graph: order, rooms, failures, interrupts."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import pytest

from cregraph.errors import CregraphError
from cregraph.scheduler import Id, Job, JobContext, run_jobs
from tests.faults import GENEROUS


class Book:
    """Jobs that write down when they ran."""

    def __init__(self) -> None:
        self.done: list[str] = []
        self.now: dict[str, int] = {}
        self.most: dict[str, int] = {}
        self.guard = threading.Lock()

    def job(
        self, name: str, *needs: str, seconds: float = 1.0, pool: str = "work", action: Callable[[JobContext], None] | None = None
    ) -> Job:
        def run(context: JobContext) -> None:
            with self.guard:
                self.now[pool] = self.now.get(pool, 0) + 1
                self.most[pool] = max(self.most.get(pool, 0), self.now[pool])
            try:
                time.sleep(0.005)
                if action is not None:
                    action(context)
                self.done.append(name)
            finally:
                with self.guard:
                    self.now[pool] -= 1

        return Job(id=id_of(name), run=run, needs=tuple(id_of(n) for n in needs), seconds=seconds, pool=pool)


def id_of(name: str) -> Id:
    return "job", name


def fail(_context: JobContext) -> None:
    raise CregraphError("no")


def test_what_most_waits_for_goes_first() -> None:
    """Two short jobs before a long one are begun before a middling one that nothing needs."""
    book = Book()
    jobs = [
        book.job("alone", seconds=5),
        book.job("first", seconds=1),
        book.job("second", "first", seconds=1),
        book.job("long", "second", seconds=9),
        book.job("quick", seconds=0.5),
    ]
    assert run_jobs(jobs, pools={"work": 1}) == []
    assert book.done == ["first", "second", "long", "alone", "quick"]


def test_a_pool_has_no_more_at_once_than_its_slots_and_pools_do_not_wait_for_each_other() -> None:
    book = Book()
    reached = threading.Barrier(5, timeout=GENEROUS)
    jobs = [book.job(f"f{i}", pool="fetch", action=lambda _t: reached.wait()) for i in range(4)]
    jobs += [book.job("w0", action=lambda _t: reached.wait()), *(book.job(f"w{i}") for i in range(1, 6))]
    run_jobs(jobs, pools={"work": 2, "fetch": 4})
    assert book.most["fetch"] == 4 and book.most["work"] <= 2
    assert len(book.done) == 10


def test_after_a_failure_what_runs_is_let_finish_and_nothing_new_is_begun() -> None:
    book = Book()
    begun = threading.Event()

    def slow(_context: JobContext) -> None:
        begun.set()
        time.sleep(0.1)

    def late(context: JobContext) -> None:
        begun.wait(GENEROUS)
        fail(context)

    failures = run_jobs(
        [book.job("slow", action=slow, seconds=9), book.job("bad", action=late, seconds=8), book.job("next")], pools={"work": 2}
    )
    assert [f.job.id[1] for f in failures] == ["bad"]
    assert book.done == ["slow"]


def test_keep_going_runs_all_that_does_not_need_what_failed() -> None:
    book = Book()
    jobs = [book.job("bad", action=fail), book.job("child", "bad"), book.job("grandchild", "child"), book.job("other")]
    assert len(run_jobs(jobs, pools={"work": 1}, keep_going=True)) == 1
    assert book.done == ["other"]


def test_what_a_job_tells_is_done_in_the_callers_thread_before_the_job_counts_as_done() -> None:
    book = Book()
    told: list[tuple[str, threading.Thread]] = []

    def tell(context: JobContext) -> None:
        context.report(lambda: told.append(("a", threading.current_thread())))

    def look(_context: JobContext) -> None:
        assert told, "what it needs had told it before"

    assert run_jobs([book.job("a", action=tell), book.job("b", "a", action=look)], pools={"work": 1}) == []
    assert told == [("a", threading.current_thread())]


@pytest.mark.parametrize("error", [KeyboardInterrupt, ZeroDivisionError])
def test_what_nobody_expected_stops_everything(error: type[BaseException]) -> None:
    """Jobs that `stop` ends are waited for; a job that waits for a server is not, when a person wants to leave."""
    server, ended = threading.Event(), threading.Event()
    stopped = threading.Event()

    def task(context: JobContext) -> None:
        stopped.wait(GENEROUS)
        assert context.stopped.is_set()
        time.sleep(0.05)
        ended.set()

    def waits(_context: JobContext) -> None:
        server.wait(0.5 if error is ZeroDivisionError else GENEROUS)

    def bad(_context: JobContext) -> None:
        raise error

    book = Book()
    jobs = [
        Job(id=id_of("task"), run=task, ends=True),
        book.job("download", action=waits, pool="fetch"),
        book.job("bad", action=bad),
    ]
    with pytest.raises(error):
        run_jobs(jobs, pools={"work": 2, "fetch": 1}, stop=stopped.set)
    assert ended.is_set()
    assert error is ZeroDivisionError or "download" not in book.done
    server.set()


@pytest.mark.parametrize("needs", [("nobody",), ("a",)])
def test_a_job_that_needs_what_is_none_or_itself_is_refused(needs: tuple[str, ...]) -> None:
    with pytest.raises(ValueError):
        run_jobs([Book().job("a", *needs)], pools={"work": 1})

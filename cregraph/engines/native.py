"""The native engine: tasks in Linux namespaces on this machine."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Callable, Mapping
from pathlib import Path

from cregraph.engines import contract, namespaces
from cregraph.engines.capture import Undeclared, capture, undeclared
from cregraph.engines.contract import Limits, TaskFailed
from cregraph.engines.trees import Trees
from cregraph.errors import CregraphError
from cregraph.plan import Task
from cregraph.store import Store

__all__ = ["Native"]


class Native:
    """Runs tasks in namespaces, over unpacked trees of `store`. See `cregraph.engines.contract.Engine`.

    A command that runs out of memory because the machine has no more fails as any other; nothing is retried.
    """

    name = "native"

    def __init__(self, store: Store, trees: Trees, *, limits: Limits | None = None) -> None:
        self._store = store
        self._trees = trees
        self._limits = limits or Limits()
        self._running = namespaces.Running()
        self._processors = sorted(os.sched_getaffinity(0))

    def available(self) -> str | None:
        """None when this engine works here, else why not."""
        with self._store.scratch_folder() as folder:
            return namespaces.available(folder)

    def perform(
        self,
        task: Task,
        *,
        inputs: Mapping[str, Path],
        results: Mapping[str, Path],
        write: Callable[[bytes], object],
        log: Path,
        slot: int,
    ) -> None:
        """Run one task; see `Engine.perform`. Also raises CregraphError when the sandbox cannot be made here."""
        contract.check(task)
        lowers = self._trees.below(task, results)
        with self._store.scratch_folder() as folder:
            namespaces.lay_out(folder)
            for name, source in inputs.items():
                _put(source, folder / "in" / name)
            os.utime(folder / "in", (contract.EPOCH, contract.EPOCH))
            try:
                outcome = namespaces.enter(
                    folder,
                    lowers=lowers,
                    argv=task.argv,
                    env=task.env,
                    cwd=task.cwd,
                    output=task.output,
                    limits=self._limits,
                    log=log,
                    cpu=self._processors[slot % len(self._processors)],
                    running=self._running,
                )
            except namespaces.NotHere as error:
                raise CregraphError(
                    f"the sandbox for task {task.name} cannot be made here: {error}",
                    hint="run cregraph on Linux as root or where user namespaces are allowed",
                ) from error
            _judge(outcome)
            allowed = (contract.WORK, contract.HOME, outcome.output)
            changes = undeclared(folder / "upper", allowed=allowed, lowers=lowers)
            if changes:
                raise Undeclared(changes, task.output)
            output = folder / "upper" / outcome.output[1:]
            if output.is_symlink() or not output.is_dir():
                raise TaskFailed(f"it removed its output folder {task.output}")
            capture(output, write, at=task.output, limit=self._limits.output)

    def stop(self) -> None:
        """End all that runs, now; what is asked for later raises Stopped."""
        self._running.stop()


def _put(source: Path, place: Path) -> None:
    """A copy with a fixed time and mode: the store's file has the time of its download, and a task could see that."""
    shutil.copyfile(source, place)
    place.chmod(0o444)
    os.utime(place, (contract.EPOCH, contract.EPOCH))


def _judge(outcome: namespaces.Outcome) -> None:
    if outcome.end:
        raise TaskFailed(f"it was ended: {outcome.end}")
    if outcome.exit < 0:
        raise TaskFailed(f"its command was killed by signal {-outcome.exit} ({signal.strsignal(-outcome.exit)})")
    if outcome.exit:
        raise TaskFailed(f"its command ended with exit status {outcome.exit}")

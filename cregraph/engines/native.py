"""The native engine: tasks in Linux namespaces on this machine."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from cregraph.engines import contract, inside, namespaces
from cregraph.engines.capture import capture, undeclared
from cregraph.engines.contract import Files, Limits, Preparation, Write
from cregraph.engines.terminal import Stdio, terminal
from cregraph.engines.trees import Trees
from cregraph.errors import CregraphError
from cregraph.plan.parts import Task
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

    def ahead(self, tasks: Sequence[Task]) -> Sequence[Preparation]:
        return self._trees.ahead(tasks)

    def perform(self, task: Task, *, inputs: Files, results: Files, write: Write, log: Path, slot: int) -> None:
        """Run one task; see `Engine.perform`. Also raises CregraphError when the sandbox cannot be made here."""
        lowers = self._trees.below(task, results)
        with self._store.scratch_folder() as folder:
            report = self._enter(folder, task, lowers, inputs, log=log, slot=slot)
            inside.judge(report, task)
            changes = undeclared(folder / "upper", allowed=(contract.WORK, contract.HOME, report.output), lowers=lowers)
            output = folder / "upper" / report.output[1:]
            gone = output.is_symlink() or not output.is_dir()
            inside.judge(replace(report, changes=tuple(changes), gone=gone), task)
            capture(output, write, at=task.output, limit=self._limits.output)

    def shell(self, task: Task, *, inputs: Files, results: Files) -> int:
        lowers = self._trees.below(task, results)
        with self._store.scratch_folder() as folder, terminal() as stdio:
            code = self._enter(folder, task, lowers, inputs, log=folder / "log", slot=0, shell=stdio).exit
        return code if code >= 0 else 128 - code

    def _enter(
        self, folder: Path, task: Task, lowers: Sequence[Path], inputs: Files, *, log: Path, slot: int, shell: Stdio | None = None
    ) -> inside.Report:
        contract.check(task)
        namespaces.lay_out(folder)
        for name, source in inputs.items():
            place = folder / "in" / name
            shutil.copyfile(source, place)
            place.chmod(0o444)  # a mode and a time that do not depend on when the store got the file
            os.utime(place, (contract.EPOCH, contract.EPOCH))
        os.utime(folder / "in", (contract.EPOCH, contract.EPOCH))
        try:
            cpu = self._processors[slot % len(self._processors)]
            return namespaces.enter(folder, task, lowers, self._limits, log=log, cpu=cpu, running=self._running, shell=shell)
        except namespaces.NotHere as error:
            raise CregraphError(
                f"the sandbox for task {task.name} cannot be made here: {error}",
                hint="run `cregraph doctor`: it names what forbids it, and the engines that work",
            ) from error

    def stop(self) -> None:
        self._running.stop()

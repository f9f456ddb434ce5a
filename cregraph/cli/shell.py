"""`cregraph shell`."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Sequence
from dataclasses import replace
from typing import Annotated

import typer

from cregraph.build.build_run import BuildRun
from cregraph.build.image_build import inventory
from cregraph.cli.build_progress import Display
from cregraph.cli.options import Context, Engine, Jobs, Sources
from cregraph.cli.store_use import hold
from cregraph.cli.terminal_output import talk
from cregraph.errors import CregraphError, did_you_mean
from cregraph.plan.missing_work import MissingWork, work_for
from cregraph.plan.parts import Task
from cregraph.session.session import BuildOptions, Session
from cregraph.store.task_records import verified_result
from cregraph.text import few, printable

__all__ = ["shell", "task_called"]

_SHELL = "/bin/sh"
_KEY = 6  # digits of a key that name a task


def shell(
    task: Annotated[str, typer.Argument(metavar="TASK", help="Name of a task, or at least six digits of its key.")],
    command: Annotated[
        list[str] | None, typer.Argument(metavar="COMMAND", help="Program and arguments to run, after `--`. [default: /bin/sh]")
    ] = None,
    profile: Annotated[
        str | None, typer.Option("--profile", metavar="PROFILE", help="Profile of the task. [default: cregraph.yaml]")
    ] = None,
    engine: Engine = "auto",
    context: Context = None,
    jobs: Jobs = 0,
    sources: Sources = None,
) -> None:
    """Open the sandbox of a task."""
    options = BuildOptions(engine=engine, context=context, jobs=jobs, sources=sources)
    options.check()
    session = Session.of(profile, options)
    plan, store = session.plan, session.store
    found = task_called(task, plan.tasks)
    hold(session, "shell")
    opened = session.engine()
    work = work_for(plan, inventory(store), task=found)
    if work != MissingWork():
        display = Display(f"what {found.name} needs", work, layers=0)
        with display:
            BuildRun(
                plan=replace(plan, layers=()),
                facts=session.facts,
                work=work,
                store=store,
                fetch=session.sources.fetch,
                engine=lambda: opened,
                on_event=display,
                recorded=session.outputs.expected(),
            ).run(jobs=options.workers, keep_going=False)
    inputs = {name: session.sources.fetch(artifact) for name, artifact in zip(found.inputs, found.artifacts, strict=True)}
    results = {key: store.verified(verified_result(store, key) or "", f"the result of task {key[:12]}") for key in found.needs}
    _introduce(found, opened.name)
    code = opened.shell(_for_a_person(found, command or []), inputs=inputs, results=results)
    if code == 127 and not command:
        talk(f"hint: if the build root has no {_SHELL}, run another program: cregraph shell '{task}' -- PROGRAM")
    raise typer.Exit(code)


def task_called(called: str, tasks: Sequence[Task]) -> Task:
    """Return the task with this name (with or without version) or this beginning of a key. Raise CregraphError for others."""
    if not tasks:
        raise CregraphError("this lock has no tasks, because it compiles nothing")
    for found in (
        [task for task in tasks if task.name == called],
        [task for task in tasks if task.name.split(" ")[0].lower() == called.lower()],
        [task for task in tasks if len(called) >= _KEY and task.key.startswith(called)],
    ):
        if len(found) == 1:
            return found[0]
        if found:
            listed = ", ".join(f"{task.name} ({task.key[:12]})" for task in found)
            raise CregraphError(f"`{called}` is the name of several tasks: {listed}", hint="use the key of the task")
    raise _unknown(called, tasks)


def _unknown(called: str, tasks: Sequence[Task]) -> CregraphError:
    names = sorted({name for task in tasks for name in (task.name, task.name.split(" ")[0])})
    listed = few(task.name for task in tasks)
    return CregraphError(
        f"unknown task `{printable(called, 120)}`",
        hint=did_you_mean(called, names, f"name one of the tasks of this lock: {listed}"),
    )


def _for_a_person(task: Task, command: list[str]) -> Task:
    env = dict(task.env)
    if os.isatty(0):
        env |= {"TERM": os.environ.get("TERM", "dumb"), "PS1": f"{task.name.split(' ')[0]}# "}
    return replace(task, argv=tuple(command) or (_SHELL,), env=env)


def _introduce(task: Task, engine: str) -> None:
    talk(f"task {task.name} (stage {task.stage}, {task.key[:12]}) in the {engine} engine; cregraph keeps no change")
    talk(f"its command runs in {task.cwd} and writes {task.output}:")
    # The name of a hostile package is part of the command, so it is quoted before it reaches the terminal.
    text = printable(shlex.join(task.argv), keep="\n")
    talk("\n".join(f"    {line}" for line in text.splitlines()))
    sys.stderr.flush()

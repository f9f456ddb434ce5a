"""The error of a build whose jobs failed: why each task failed, the end of its log, ways out, and what did not run."""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from cregraph.engines.contract import TaskFailed
from cregraph.engines.failures import findings, way_out
from cregraph.errors import CregraphError, Refused
from cregraph.kinds import parts
from cregraph.kinds.conda.conda_hints import listed
from cregraph.plan.parts import Task
from cregraph.scheduler import Failure
from cregraph.store import Store
from cregraph.store.task_records import log_file
from cregraph.text import printable

__all__ = ["Origin", "build_error"]


class Origin(NamedTuple):
    """The origin of a task: its package's version, the line that asks for it, and the profile. Empty if unknown."""

    version: str = ""
    line: str = ""
    profile: str = ""


_LINES = 20  # lines of a log that the error shows
_TAIL = 256 << 10  # bytes of a log that are read


def build_error(
    failures: Sequence[Failure], tasks: Mapping[str, Task], made: Container[str], store: Store, origin: Callable[[Task], Origin]
) -> Exception:
    """Return one error for `failures`. `tasks` are those of the build by key, `made` the keys of those that have a result.

    All failed tasks are reported. Of the other jobs only the first is, because they often have one cause, such as a full disk.
    """
    others = [failure.error for failure in failures if failure.job.id[0] != "task"]
    failed = [(tasks[failure.job.id[1]], failure.error) for failure in failures if failure.job.id[0] == "task"]
    if not failed:
        return others[0]
    report = _of_tasks(failed, [task for key, task in tasks.items() if key not in made], store, origin)
    if not others:
        return report
    first = others[0]
    assert isinstance(first, CregraphError)
    return CregraphError(f"{first.message}\n{report.message}", hint="\n".join(filter(None, (first.hint, report.hint))) or None)


def _of_tasks(
    failed: Sequence[tuple[Task, Exception]], unmade: Iterable[Task], store: Store, origin: Callable[[Task], Origin]
) -> CregraphError:
    lines: list[str] = []
    hints: list[str | None] = []
    for task, error in failed:
        if isinstance(error, Refused):  # the task ran, but its result is not the recorded one
            lines.append(error.message)
            hints.append(error.hint)
            continue
        log = log_file(store, task)
        text = _end_of(log)
        source = origin(task)
        lines += _heading(task, error, source)
        lines += _log_lines(log, text)
        hint = getattr(error, "hint", None) or way_out(task, text, lambda package: listed(store, package))
        hints.append(f"{task.name}: {hint}" if hint and len(failed) > 1 else hint)
        if source.profile:
            hints.append(f"run `cregraph shell {task.key[:8]} --profile {source.profile}` to open the sandbox of this task")
    skipped, not_begun = _did_not_run({task.key for task, _ in failed}, unmade)
    if skipped:
        lines.append(f"skipped because of it: {', '.join(skipped)}")
    if not_begun:
        lines.append(f"not begun: {', '.join(not_begun)}")
        hints.append("finished results are kept; use `--keep-going` to run the tasks that were not begun")
    kind = Refused if all(isinstance(error, Refused) for _, error in failed) else CregraphError
    return kind("\n".join(lines), hint="\n".join(dict.fromkeys(hint for hint in hints if hint)) or None)


def _heading(task: Task, error: Exception, source: Origin) -> list[str]:
    """Return the lines that name the failed task, its end, and the line of the profile that asks for it."""
    hints = parts("hints").get(task.kind)
    name = f"`{task.name}` {source.version}".rstrip()
    what = hints.FAILED.format(name) if hints else f"task {task.name} (stage {task.stage}) failed"
    if not isinstance(error, TaskFailed):
        return [f"{what}: {error}"]
    after = f"after {error.seconds:.0f} s"
    how = f"{what} {after}: {error.reason}" if error.status is None else f"{what} (exit {error.status}, {after})"
    return [how, *([f"  {source.line}"] if source.line else [])]


def _log_lines(log: Path, text: str) -> list[str]:
    """The last lines of a log, after the lines that name a cause: a compiler often prints those far above the end."""
    tail = text.splitlines()[-_LINES:]
    if not tail:
        return []
    causes = [finding.line for finding in findings(text) if not any(finding.line in line for line in tail)]
    shown = [*causes, "…", *tail] if causes else tail
    return [*(f"  | {line}" for line in shown), f"  the full log is {log}"]


def _did_not_run(failed: set[str], unmade: Iterable[Task]) -> tuple[list[str], list[str]]:
    """The sorted names of the tasks that need a failed one, and of those that only did not begin."""
    waiting = [task for task in unmade if task.key not in failed]
    blocked = set(failed)
    while more := {task.key for task in waiting if blocked.intersection(task.needs)} - blocked:
        blocked |= more
    skipped = sorted(task.name for task in waiting if task.key in blocked)
    return skipped, sorted(task.name for task in waiting if task.key not in blocked)


def _end_of(log: Path) -> str:
    """The end of a log as printable text; empty if there is no log."""
    try:
        with log.open("rb") as file:
            size = file.seek(0, 2)
            file.seek(max(size - _TAIL, 0))
            text = file.read().decode("utf-8", "replace")
    except OSError:
        return ""
    return printable(text.rstrip(), keep="\n\t")

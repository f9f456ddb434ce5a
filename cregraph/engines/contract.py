"""The sandbox's contract: what a task sees, however the sandbox is made. The one source of truth, as data.

All of it can decide bytes, so a change here that a command can notice is a new assembly (`cregraph.digest.ASSEMBLY`).

    who       uid 0, gid 0, capabilities KEPT and no others, no new ones ever; chown to another owner fails
    where     hostname HOSTNAME, loopback only, one processor (affinity), its own process table; nothing of the host
    sees      build root, environment, results of needed tasks, INPUTS (read-only); every owner 0, no set-id bits
    writes    the output folder, WORK and HOME (empty at first), /tmp and /dev/shm (in memory); all else is refused by name
    devices   DEVICES and the usual links to /proc/self/fd; no terminal
    calls     `cregraph.engines.calls`: no namespace, keyring or personality can be made
    ends      with its first process: what still runs then is killed; so does everything at a limit or with cregraph

Two programs make it: `enter.py` in namespaces, `enter.sh` in a container: BuildKit's, or that of `cregraph shell`.
tests/test_conformance.py compares what a command sees in each. What differs is no part of the contract, and none of it can decide
the bytes of a result that is kept:

    in which words     a thing is refused: giving a file away and turning the kernel's switches say EPERM or EROFS as root, EINVAL
                       or EACCES in a user namespace. It fails in all of them
    when               a write to FILES or /dev is refused: at once where it is mounted read-only, else by name when the command
                       has ended. No result has seen it in either case
    owners             of /proc (nobody in a user namespace), supplementary groups: no file that a task sees is theirs
    the machine        what /proc and /sys tell of its processors, memory, kernel and mounts (in namespaces /sys is empty). One
                       processor is what a command is bound to, everywhere
    process 1          its name, and the number of processes that serve the sandbox
    numbers            inodes, devices, link counts, sizes of folders, free room, process ids, times of access and change; the
                       times of /tmp, /dev and of what is below them, which are made when the task starts
    limits             that are the caller's: of locked memory, of queued signals, of processes (`Limits.processes` binds instead)
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from cregraph.errors import CregraphError
from cregraph.plan.parts import Task

__all__ = [
    *("DEVICES", "ENVIRONMENT", "EPOCH", "ETC_LINKS", "FILES", "FOLDERS", "HOME", "HOSTNAME", "INPUTS", "KEPT", "LINKS"),
    *("MASKED", "MOUNTS", "READ_ONLY", "UMASK", "WORK"),
    *("Engine", "Files", "Limits", "Preparation", "Stopped", "TaskFailed", "Write", "check", "collision"),
]

HOSTNAME = "cregraph"
UMASK = 0o022
EPOCH = 315532800  # 1980-01-01: the time of every file that the sandbox itself adds
INPUTS = "/cregraph/in"
WORK = "/cregraph/build"
HOME = "/cregraph/home"

#: What every command has in its environment; a task's own `env` is laid over it.
ENVIRONMENT: Mapping[str, str] = {
    "HOME": HOME,
    "LANG": "C.UTF-8",
    "LC_ALL": "C.UTF-8",
    "LOGNAME": "root",
    "PATH": "/usr/local/bin:/usr/bin:/bin",
    "PYTHONDONTWRITEBYTECODE": "1",  # importing a module would otherwise write beside it
    "PYTHONHASHSEED": "0",
    "SHELL": "/bin/sh",
    "SOURCE_DATE_EPOCH": str(EPOCH),
    "TAR_OPTIONS": "--no-same-owner",  # as uid 0, GNU tar gives files their archived owner, which no sandbox can
    "TMPDIR": "/tmp",  # noqa: S108
    "TZ": "UTC",
    "USER": "root",
}

#: Capabilities, with their numbers (capabilities(7)): what an owner of all files needs, no more.
KEPT: Mapping[str, int] = {"dac_override": 1, "fowner": 3, "fsetid": 4, "kill": 5}

DEVICES = ("null", "zero", "full", "random", "urandom")
LINKS: Mapping[str, str] = {
    "fd": "/proc/self/fd",
    "stdin": "/proc/self/fd/0",
    "stdout": "/proc/self/fd/1",
    "stderr": "/proc/self/fd/2",
}

#: Folders that are there whatever the build root holds, with their modes. They are folders, even where the root has a link.
FOLDERS: Mapping[str, int] = {
    "/proc": 0o555,
    "/sys": 0o555,
    "/dev": 0o755,
    "/tmp": 0o1777,  # noqa: S108
    "/etc": 0o755,
    "/cregraph": 0o755,
    INPUTS: 0o755,
    WORK: 0o755,
    HOME: 0o755,
}

#: Those of FOLDERS that are file systems of their own; the times of the others are EPOCH, as is that of /.
MOUNTS = ("/proc", "/sys", "/dev", "/tmp", INPUTS)  # noqa: S108

#: Files that containers write for themselves, made equal everywhere.
FILES: Mapping[str, str] = {
    "/etc/hostname": f"{HOSTNAME}\n",
    "/etc/hosts": f"127.0.0.1\tlocalhost {HOSTNAME}\n::1\tlocalhost\n",
    "/etc/resolv.conf": "",
}
ETC_LINKS: Mapping[str, str] = {"/etc/mtab": "/proc/mounts"}

#: Under /proc: hidden, because they tell of the host; and read-only, because they are the host's switches.
MASKED = ("acpi", "asound", "interrupts", "kcore", "keys", "latency_stats", "sched_debug", "scsi", "timer_list", "timer_stats")
READ_ONLY = ("bus", "fs", "irq", "sys", "sysrq-trigger")


#: Verified files by the name or the key of what they hold.
Files = Mapping[str, Path]
#: Takes the bytes of a file, one piece after the other.
Write = Callable[[bytes], object]


@dataclass(frozen=True, kw_only=True, slots=True)
class Limits:
    """What a task may use. None of it decides bytes: a task either stays within or fails.

    `seconds` of wall time. `memory` in bytes, twice: what one process may allocate (RLIMIT_DATA, at once) and what all of
    them keep resident together, looked at five times a second, as is the number of `processes` (RLIMIT_NPROC would count the
    user's processes outside too, and does not bind root). `file`: bytes of one file. `temporary`: bytes in each of /tmp and
    /dev/shm, in memory. `output`: bytes of the captured result. `spare`: bytes that the store's file system must keep free.
    """

    seconds: int = 7200
    memory: int = 16 << 30
    processes: int = 1024
    file: int = 16 << 30
    temporary: int = 4 << 30
    output: int = 16 << 30
    spare: int = 256 << 20


class TaskFailed(Exception):
    """A task did not give its result. `reason` completes “task … failed: ”; `hint` is the way out where it is known.

    `status` is the exit status if the command ended by itself, `seconds` how long the engine took.
    """

    def __init__(self, reason: str, hint: str | None = None, *, status: int | None = None) -> None:
        super().__init__(reason)
        self.reason = reason
        self.hint = hint
        self.status = status
        self.seconds = 0.0


class Stopped(Exception):
    """The engine was told to stop; the task has no result, and nothing of it is left."""


class Engine(Protocol):
    """What runs tasks. Safe with many threads.

    `ahead` says what can be prepared for `tasks`. What was not prepared, `perform` makes itself.

    `perform` runs one task and hands its output to `write` as the normalised tar of `cregraph.engines.capture`. `inputs` maps
    the names of `task.inputs` to verified files, `results` the key of each needed task to its verified tar. What the command
    prints is added to the file `log`. `slot` counts the tasks that run at the same time, from 0: each has its own.
    Raises TaskFailed, or Stopped after `stop`, which ends all that runs and may be called from any thread.

    `shell` runs the command of `task` in such a sandbox for a person, at this process's terminal, or with its stdin, stdout and
    stderr. Nothing that it does is kept or judged, and only memory and files are limited. It returns the command's exit status;
    for a signal, 128 plus its number. It raises CregraphError if the sandbox cannot be made here.
    """

    name: str

    def ahead(self, tasks: Sequence[Task]) -> Sequence[Preparation]: ...

    def perform(self, task: Task, *, inputs: Files, results: Files, write: Write, log: Path, slot: int) -> None: ...

    def shell(self, task: Task, *, inputs: Files, results: Files) -> int: ...

    def stop(self) -> None: ...


@dataclass(frozen=True, kw_only=True, slots=True)
class Preparation:
    """Something that tasks need and that can be made before they begin, while other things are made.

    `name` is its own among those of one build. It may begin when the segments `segments` (keys) are in the store and the
    preparations `needs` (names) are done; the tasks `tasks` (keys) wait for it. `seconds` is what it is expected to take.
    """

    name: str
    make: Callable[[], object]
    segments: tuple[str, ...] = ()
    needs: tuple[str, ...] = ()
    tasks: tuple[str, ...] = ()
    seconds: float = 0.0


#: A name below INPUTS: one that `*` finds, that no shell reads otherwise, and that every file system takes.
_INPUT = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.+!-]{0,254}")


def check(task: Task) -> None:
    """Refuse a task that no sandbox can honour: inputs without a plain name, paths that are not plain absolute ones, or an
    output in a place of ours."""
    for name in task.inputs:
        if not _INPUT.fullmatch(name):
            raise CregraphError(f"task {task.name}: `{name[:200]}` is not the name of an input (letters, digits and . _ + ! -)")
    for what, path in (("output", task.output), ("cwd", task.cwd), *(("result", p) for p in task.results.values())):
        parts = path.split("/")
        if not path.startswith("/") or any(p in ("", ".", "..") for p in parts[1:]) or "\0" in path:
            raise CregraphError(f"task {task.name}: its {what} `{path}` is not a plain absolute path")
    for place in ("/proc", "/sys", "/dev", "/tmp", "/etc", INPUTS, HOME, WORK):  # noqa: S108
        if task.output == place or (place not in (HOME, WORK) and task.output.startswith(place + "/")):
            raise CregraphError(f"task {task.name}: its output cannot be `{task.output}`; {place} belongs to the sandbox")
    if f"{WORK}/".startswith(f"{task.output}/"):
        raise CregraphError(f"task {task.name}: its output `{task.output}` would hold the sandbox's own folders")
    if not task.argv or any("\0" in text for text in (*task.argv, *task.env, *task.env.values())):
        raise CregraphError(f"task {task.name}: its command is empty or holds a NUL byte")
    if "=" in task.argv[0]:
        raise CregraphError(f"task {task.name}: its program `{task.argv[0]}` has a `=` in its name, which env(1) cannot start")


def collision(path: str) -> CregraphError:
    """Return the error of two segments of one environment that own `path` with different content."""
    return CregraphError(
        f"two packages of one environment own `{path}` with different content",
        hint="leave one of them out, or ask for versions that do not collide",
    )

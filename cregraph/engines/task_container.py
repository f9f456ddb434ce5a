"""A task's sandbox in a plain container of a Docker engine, opened for a person by `cregraph shell`.

Nothing of this machine is mounted, so the engine may be anywhere. The container is of the task's image; the program of
`cregraph.engines.inside` makes the contract in it.
"""

from __future__ import annotations

import contextlib
import io
import os
import secrets
import tarfile
from collections.abc import Iterator, Mapping
from pathlib import Path

from cregraph.engines import contract, inside
from cregraph.engines.contract import Limits
from cregraph.errors import CregraphError
from cregraph.image.media import docker_engine
from cregraph.image.model import tar_writer as tar
from cregraph.plan.parts import Task

__all__ = ["open_sandbox"]

_PIECE = 1 << 20
_LABEL = "cregraph.task"

#: What makes the place: an address space of its own, and the few rights that `inside` needs to give up the others.
_OPTIONS = (
    *("--network", "none", "--hostname", contract.HOSTNAME, "--init=false", "--no-healthcheck", "--restart", "no"),
    *("--cap-drop", "ALL", "--cap-add", "DAC_OVERRIDE", "--cap-add", "FOWNER", "--cap-add", "FSETID", "--cap-add", "KILL"),
    *("--cap-add", "SETPCAP", "--cap-add", "SETGID", "--security-opt", "no-new-privileges"),
    *("--user", "0:0", "--workdir", "/", "--entrypoint", inside.PROGRAM, "--ipc", "private", "--log-driver", "none"),
)


def open_sandbox(image: str, task: Task, inputs: Mapping[str, Path], *, limits: Limits, context: str | None) -> int:
    """Run the command of `task` in a container of `image` at this process's terminal; return its exit status.

    `image` is a name that the engine of the Docker context `context` has (None: the user's context or DOCKER_HOST).

    Raises:
        CregraphError: The engine does not answer, or the sandbox cannot be made in its containers.
    """
    tty = os.isatty(0) and os.isatty(1)
    with _filled(image, task, inputs, limits, context, tty=tty) as name:
        code = docker_engine.at_terminal("container", "start", "--attach", "--interactive", name, context=context)
        report = _report(name, context) if code == inside.NOT_MADE else None
    if report is not None:
        inside.judge(report, task)
    return code


@contextlib.contextmanager
def _filled(
    image: str, task: Task, inputs: Mapping[str, Path], limits: Limits, context: str | None, *, tty: bool
) -> Iterator[str]:
    """A container that was not started yet. It is removed at the end."""
    about = f"the container of task {task.name}"
    name = f"cregraph-{secrets.token_hex(8)}"
    store = f"{name}-in"
    label = ("--label", f"{_LABEL}={task.name}")
    try:
        # The inputs are a volume, filled through a container that is never started, and read-only in the one that is.
        volume = ("--mount", f"type=volume,dst={contract.INPUTS},volume-nocopy")
        idle = ("container", "create", "--name", store, "--entrypoint", inside.PROGRAM, *label, *volume, image)
        docker_engine.docker(*idle, about=about, context=context)
        docker_engine.docker("container", "cp", "-", f"{store}:/", about=about, stdin=_tar_of_inputs(inputs), context=context)
        memory = [word for options in _memory(limits, tty) for word in ("--tmpfs", options)]
        create = ("container", "create", "--name", name, *_OPTIONS, *memory, "--volumes-from", f"{store}:ro", "--interactive")
        docker_engine.docker(*create, *(["--tty"] if tty else []), *label, image, about=about, context=context)
        yield name
    finally:
        docker_engine.remove(name, context)
        docker_engine.remove(store, context)


def _memory(limits: Limits, tty: bool) -> Iterator[str]:
    """The file systems that the contract has in memory. A terminal needs the engine's own /dev/pts."""
    for folder in ("/tmp", "/dev/shm"):  # noqa: S108
        yield f"{folder}:rw,exec,nosuid,nodev,mode=1777,size={limits.temporary}"
    for folder in ("/dev/mqueue",) if tty else ("/dev/mqueue", "/dev/pts"):
        yield f"{folder}:rw,noexec,nosuid,nodev,mode=755,size=64k"


def _report(name: str, context: str | None) -> inside.Report | None:
    """The report that the ended container left, or None."""
    with contextlib.suppress(CregraphError, tarfile.TarError, ValueError):
        data = docker_engine.docker("container", "cp", f"{name}:{inside.REPORT}", "-", about="the report", context=context)
        with tarfile.open(fileobj=io.BytesIO(data)) as archive:
            member = archive.next()
            content = archive.extractfile(member) if member is not None and member.isfile() else None
            return inside.read_report(content.read()) if content is not None else None
    return None


def _tar_of_inputs(inputs: Mapping[str, Path]) -> Iterator[bytes]:
    """The inputs as a tar, each with the one mode and time that the contract gives it."""
    folder = contract.INPUTS[1:]
    yield tar.header(path=folder, type="directory", mode=0o755)
    for name, path in sorted(inputs.items()):
        size = path.stat().st_size
        yield tar.header(path=f"{folder}/{name}", mode=0o444, size=size)
        with path.open("rb") as file:
            while piece := file.read(_PIECE):
                yield piece
        yield tar.padding(size)
    yield tar.END

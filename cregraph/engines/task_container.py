"""A task's sandbox in a container of a Docker engine, opened for a person by `cregraph shell`.

Nothing of this machine is mounted, so the engine may be anywhere. The container is of the task's image; the program of
`cregraph.engines.inside` makes the contract in it.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
import os
import secrets
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from cregraph.engines import contract, inside
from cregraph.engines.contract import Limits
from cregraph.engines.task_image import inputs_tar
from cregraph.engines.terminal import raw, relayed, write
from cregraph.image.media.docker_client import client
from cregraph.image.media.docker_engine import frames, plain_socket, received, remove
from cregraph.image.model import tar_writer as tar
from cregraph.plan.parts import Task

if TYPE_CHECKING:
    from docker import APIClient

__all__ = ["open_sandbox"]

_LABEL = "cregraph.task"
_LAST_WORDS = 4096  # bytes
#: The few rights that `inside` needs to give up the others.
_RIGHTS = ["DAC_OVERRIDE", "FOWNER", "FSETID", "KILL", "SETPCAP", "SETGID"]


def open_sandbox(image: str, task: Task, inputs: Mapping[str, Path], *, limits: Limits, context: str | None) -> int:
    """Run the command of `task` in a container of `image` at this process's terminal; return its exit status.

    `image` is a name that the engine of the Docker context `context` has (None: the engine that the docker CLI would use).

    Raises:
        CregraphError: The engine does not answer, or the sandbox cannot be made in its containers.
    """
    name = f"cregraph-{secrets.token_hex(8)}"
    store = f"{name}-in"
    tty = os.isatty(0) and os.isatty(1)
    with client(f"the container of task {task.name}", context) as api:
        try:
            # The inputs are a volume, filled through a container that is never started, and read-only in the one that is.
            labels = {_LABEL: task.name}
            api.create_container(image, entrypoint=inside.PROGRAM, name=store, volumes=[contract.INPUTS], labels=labels)
            api.put_archive(store, "/", itertools.chain(inputs_tar(inputs, contract.INPUTS[1:]), (tar.END,)))
            api.create_container(
                image,
                entrypoint=inside.PROGRAM,
                name=name,
                labels=labels,
                hostname=contract.HOSTNAME,
                user="0:0",
                working_dir="/",
                stdin_open=True,
                tty=tty,
                healthcheck={"test": ["NONE"]},
                host_config=_host_config(api, store, limits, tty),
            )
            code, said = _attached(api, name, tty=tty)
        finally:
            remove(name, context)
            remove(store, context)
    if code == inside.NOT_MADE and (report := inside.report_in(said)):
        inside.judge(report, task)
    return code


def _host_config(api: APIClient, store: str, limits: Limits, tty: bool) -> dict[str, object]:
    """What makes the place: an address space of its own, and the file systems that the contract has in memory."""
    from docker.types import LogConfig

    shared = f"rw,exec,nosuid,nodev,mode=1777,size={limits.temporary}"
    memory = {"/tmp": shared, "/dev/shm": shared}  # noqa: S108
    for folder in ("/dev/mqueue",) if tty else ("/dev/mqueue", "/dev/pts"):  # a terminal needs the engine's own /dev/pts
        memory[folder] = "rw,noexec,nosuid,nodev,mode=755,size=64k"
    return api.create_host_config(
        network_mode="none",
        init=False,
        cap_drop=["ALL"],
        cap_add=_RIGHTS,
        security_opt=["no-new-privileges"],
        ipc_mode="private",
        log_config=LogConfig(type="none"),
        tmpfs=memory,
        volumes_from=[f"{store}:ro"],
    )


def _attached(api: APIClient, name: str, *, tty: bool) -> tuple[int, bytes]:
    """Start the container `name` with our stdin, stdout and stderr; return its exit status and its last words.

    The container was made with an open stdin, and with a terminal if `tty`: then ours is in raw mode until the end, and the
    engine is told its size. To be used in the main thread.
    """
    with contextlib.closing(
        plain_socket(api.attach_socket(name, params={"stdin": 1, "stdout": 1, "stderr": 1, "stream": 1}))
    ) as plain:
        # Not SSLSocket's own shutdown, after which nothing can be read any more.
        end = functools.partial(socket.socket.shutdown, plain, socket.SHUT_WR)
        resize = functools.partial(_resize, api, name)
        with raw(resize) if tty else contextlib.nullcontext(), relayed(plain.sendall, end):
            api.start(name)
            if tty:
                resize()
            said = b""
            screen = ((1, data) for data in iter(functools.partial(received, plain), b""))
            for descriptor, data in screen if tty else frames(plain):
                write(descriptor, data)
                said = (said + data)[-_LAST_WORDS:]
        return int(api.wait(name)["StatusCode"]), said


def _resize(api: APIClient, name: str) -> None:
    import docker.errors
    import requests

    with contextlib.suppress(OSError, docker.errors.DockerException, requests.RequestException):
        width, height = os.get_terminal_size(0)
        api.resize(name, height, width)

"""This process's stdin, stdout and stderr, or its terminal, lent to a container of a Docker engine."""

from __future__ import annotations

import contextlib
import functools
import os
import socket
from typing import TYPE_CHECKING

from cregraph.engines.terminal import raw, relayed, write
from cregraph.image.media.docker_engine import frames, plain_socket, received

if TYPE_CHECKING:
    from docker import APIClient

__all__ = ["attached"]


def attached(api: APIClient, name: str, *, tty: bool) -> int:
    """Start the container `name` with our stdin, stdout and stderr; return its exit status when it has ended.

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
                while data := received(plain):
                    write(1, data)
            else:
                for descriptor, data in frames(plain):
                    write(descriptor, data)
        return int(api.wait(name)["StatusCode"])


def _resize(api: APIClient, name: str) -> None:
    import docker.errors
    import requests

    with contextlib.suppress(OSError, docker.errors.DockerException, requests.RequestException):
        width, height = os.get_terminal_size(0)
        api.resize(name, height, width)

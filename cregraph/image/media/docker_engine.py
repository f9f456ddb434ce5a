"""A Docker engine through the `docker` program, which knows contexts, DOCKER_HOST, TLS and ssh as the user set them up.

Nothing is mounted from this machine: files go in by copying, so a remote engine works as well as a local one.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import secrets
import subprocess
import tarfile
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import IO

from cregraph.digest import Json
from cregraph.errors import CregraphError
from cregraph.text import printable

__all__ = [
    "Container",
    "Held",
    "NoImage",
    "at_terminal",
    "container",
    "docker",
    "inspect",
    "reachable",
    "remove",
]

#: How much of what the engine says is kept for a message, in bytes.
_SAID = 4000


class NoImage(CregraphError):
    """The engine answers, and has no image of that name."""


def reachable(context: str | None = None) -> None:
    """Raise CregraphError, with what to do, unless an engine answers."""
    docker("version", "--format", "{{.Server.Version}}", about="the Docker engine does not answer", context=context)


def inspect(name: str, context: str | None = None) -> Mapping[str, Json]:
    """What the engine says of the image `name`. Raises NoImage when it has none."""
    data = json.loads(docker("image", "inspect", "--", _named(name), about=f"image `{name}`", context=context))
    if not isinstance(data, list) or len(data) != 1 or not isinstance(data[0], dict):
        raise CregraphError(f"image `{name}`: the Docker engine's answer cannot be read")
    return data[0]


#: Knows a process while it runs, so that others can end it (`cregraph.engines.namespaces.Running.holding`).
Held = Callable[[subprocess.Popen[bytes]], contextlib.AbstractContextManager[object]]


def docker(
    *argv: str,
    about: str,
    stdin: Iterable[bytes] | None = None,
    context: str | None = None,
    held: Held = contextlib.nullcontext,
) -> bytes:
    """What `docker <argv>` writes. `stdin` is streamed to it; an exception from it ends the program at once and is raised.

    `context` names the Docker context to ask; None: the user's own. Raises CregraphError that begins with `about`, in the
    engine's own words and with a way out.
    """
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as said:
        incoming = subprocess.DEVNULL if stdin is None else subprocess.PIPE
        process = _start(argv, stdin=incoming, stdout=out, stderr=said, context=context)
        with held(process):
            try:
                if process.stdin is not None:
                    with contextlib.suppress(BrokenPipeError), process.stdin as pipe:  # it says on stderr why it hung up
                        for piece in stdin or ():
                            pipe.write(piece)
                code = process.wait()
            except BaseException:
                process.kill()
                process.wait()
                raise
        if code:
            raise _refused(about, _end_of(said))
        out.seek(0)
        return out.read()


def at_terminal(*argv: str, context: str | None = None, held: Held = contextlib.nullcontext) -> int:
    """Run `docker <argv>` with this process's own stdin, stdout and stderr; its exit status."""
    try:
        process = subprocess.Popen([*_program(context), *argv])
    except OSError as error:
        raise _no_program(error) from None
    with held(process):
        while True:
            try:
                return process.wait()
            except KeyboardInterrupt:  # without a terminal: docker got it too, and ends
                continue


class Container:
    """A container that was started. `lines` is what it writes to stdout, as it comes."""

    def __init__(self, process: subprocess.Popen[bytes], said: IO[bytes]) -> None:
        self._process = process
        self._said = said

    def lines(self) -> Iterator[str]:
        """Its lines; a line is cut at 1 MiB."""
        assert self._process.stdout is not None
        while line := self._process.stdout.readline(1 << 20):
            yield line.decode("utf-8", "replace").rstrip("\n")

    def ended(self) -> tuple[int, str]:
        """Its exit code, once it has ended, and the last that it, or the engine, said on stderr."""
        return self._process.wait(), _end_of(self._said)


@contextlib.contextmanager
def container(
    image: str, command: Sequence[str], *, env: Mapping[str, str], files: Mapping[str, bytes], about: str
) -> Iterator[Container]:
    """Start `command` in a new container of `image`, without network, through the image's own entry point.

    `files` (absolute paths) are copied in first. The container is removed at the end, whatever happens here; by the engine
    itself if this process is killed and the command ends. An image that the engine lacks is not pulled: NoImage.
    """
    name = f"cregraph-{secrets.token_hex(6)}"
    options = ["--name", name, "--rm", "--network", "none", "--pull", "never", "--platform", "linux/amd64"]
    options += [f"--env={key}={value}" for key, value in env.items()]
    with tempfile.TemporaryFile() as said:
        process = None
        try:
            docker("container", "create", *options, "--", _named(image), *command, about=about)
            docker("container", "cp", "-", f"{name}:/", about=about, stdin=(_tar(files),))
            process = _start(
                ("container", "start", "--attach", name), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=said
            )
            yield Container(process, said)
        finally:
            remove(name)
            if process is not None:
                process.kill()
                process.wait()
                if process.stdout is not None:
                    process.stdout.close()


def remove(name: str, context: str | None = None) -> None:
    """End and remove the container `name` with its volumes, if there is one. Raises nothing."""
    # In a session of its own: a second Ctrl-C at the terminal does not reach it.
    with contextlib.suppress(OSError, subprocess.TimeoutExpired):
        subprocess.run(
            [*_program(context), "container", "rm", "--force", "--volumes", name],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=60,
            start_new_session=True,
            check=False,
        )


def _program(context: str | None) -> list[str]:
    if context is not None and not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.+-]*", context):
        raise CregraphError(f"`--context {context}`: this is no name of a Docker context", hint="`docker context ls` lists them")
    return ["docker", "--context", context] if context else ["docker"]


def _start(
    argv: Sequence[str], *, stdin: int, stdout: int | IO[bytes], stderr: IO[bytes], context: str | None = None
) -> subprocess.Popen[bytes]:
    try:
        # A session of its own: Ctrl-C is for us, and we end what we began in order.
        return subprocess.Popen([*_program(context), *argv], stdin=stdin, stdout=stdout, stderr=stderr, start_new_session=True)
    except OSError as error:
        raise _no_program(error) from None


def _no_program(error: OSError) -> CregraphError:
    return CregraphError(
        f"the program `docker` cannot be started: {error.strerror}",
        hint="install Docker's command line; it reaches the engine, here or elsewhere (DOCKER_HOST, `docker context use`)",
    )


def _named(name: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9\[][A-Za-z0-9._/:@\[\]-]{0,400}", name):
        raise CregraphError(f"`{printable(name, 120)}` is no name of an image")
    return name


def _tar(files: Mapping[str, bytes]) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        folders = sorted({parent for path in files for parent in _parents(path.lstrip("/"))})
        for folder in folders:
            info = tarfile.TarInfo(folder)
            info.type, info.mode = tarfile.DIRTYPE, 0o777  # the image's user may be anyone
            archive.addfile(info)
        for path, data in files.items():
            info = tarfile.TarInfo(path.lstrip("/"))
            info.size, info.mode = len(data), 0o644
            archive.addfile(info, io.BytesIO(data))
    return out.getvalue()


def _parents(path: str) -> list[str]:
    parts = path.split("/")[:-1]
    return ["/".join(parts[: i + 1]) for i in range(len(parts))]


def _end_of(file: IO[bytes]) -> str:
    size = file.seek(0, os.SEEK_END)
    file.seek(max(0, size - _SAID))
    return printable(" ".join(file.read(_SAID).decode("utf-8", "replace").split()))


def _refused(about: str, words: str) -> CregraphError:
    low = words.lower()
    text = words[-600:] or "it gives no reason"
    if "no such image" in low or "unable to find image" in low or "not found: not found" in low:
        return NoImage(f"{about}: the Docker engine has no such image", hint="`docker images` lists what it has")
    if "no space left" in low or "disk quota" in low:
        hint = "`docker system df` says what fills the engine's disk; `docker image prune` and `docker builder prune` make room"
    elif "permission denied" in low and ("daemon" in low or "socket" in low):
        hint = (
            "this user may not use the engine's socket: join the group `docker`, or set DOCKER_HOST to an engine that you may use"
        )
    elif (
        "cannot connect" in low
        or "error during connect" in low
        or "connection refused" in low
        or "dial " in low
        or "endpoint" in low
    ):
        hint = "start the engine, or say where it is: DOCKER_HOST, or `docker context use NAME`"
    else:
        hint = "`docker info` says whether the engine is well"
    return CregraphError(f"{about}: docker says: {text}", hint=hint)

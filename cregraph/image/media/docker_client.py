"""Connections to a Docker engine: a client of the Docker SDK, with the SDK's errors as CregraphError.

The SDK serves all that the Engine API offers. The docker CLI is left to builds with buildx.
"""

from __future__ import annotations

import contextlib
import subprocess
import tempfile
import time
import urllib.parse
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cregraph.errors import CregraphError
from cregraph.image.media.docker_config import Endpoint, endpoint
from cregraph.text import printable

if TYPE_CHECKING:
    from docker import APIClient

__all__ = ["NoImage", "client", "refusal"]

_ANSWER = 60  # seconds that an engine may take to answer at all
_WORK = 3600  # and without a byte while it works, for instance unpacks what was loaded
_SAID = 600  # characters of an engine's words that a message shows


class NoImage(CregraphError):
    """Error: the engine answers, but it does not have the image."""


@contextlib.contextmanager
def client(about: str, context: str | None = None) -> Iterator[APIClient]:
    """Connect to the engine of the Docker context `context` (None: as the docker CLI) and yield a client for the block.

    Raises:
        NoImage: The engine does not have an image that the block names.
        CregraphError: The engine does not answer, is too old, or refuses. The message begins with `about`.
    """
    import docker.errors
    import requests
    import urllib3.exceptions

    where = endpoint(context)
    try:
        with _connected(where, about) as api:
            yield api
    except (docker.errors.DockerException, requests.RequestException, urllib3.exceptions.HTTPError) as error:
        raise _of_error(about, where.host, error) from None


@contextlib.contextmanager
def _connected(where: Endpoint, about: str) -> Iterator[APIClient]:
    from docker import APIClient
    from docker.tls import TLSConfig

    class Client(APIClient):
        def merge_environment_settings(self, url: Any, proxies: Any, stream: Any, verify: Any, cert: Any) -> Any:
            # Else requests takes REQUESTS_CA_BUNDLE before the certificate that Docker's settings name.
            return super().merge_environment_settings(url, proxies, stream, self.verify if verify is None else verify, cert)

    tls = None
    if where.tls is not None:
        ca, cert, key = (str(path) if (path := where.tls / f"{name}.pem").is_file() else None for name in ("ca", "cert", "key"))
        tls = TLSConfig(client_cert=(cert, key) if cert and key else None, ca_cert=ca, verify=where.verify)
    forwarded = _over_ssh(where.host, about) if where.host.startswith("ssh://") else contextlib.nullcontext(where.host)
    with forwarded as host, contextlib.closing(Client(host, tls=tls or False, version="auto", timeout=_ANSWER)) as api:
        api.timeout = _WORK
        yield api


@contextlib.contextmanager
def _over_ssh(host: str, about: str) -> Iterator[str]:
    """Yield the address of a socket here that ssh forwards to the engine's. (The SDK's own way needs paramiko.)"""
    parts = urllib.parse.urlsplit(host)
    words = ["ssh", "-nNT", "-o", "ConnectTimeout=30", "-o", "ExitOnForwardFailure=yes"]
    words += [*(["-l", parts.username] if parts.username else []), *(["-p", str(parts.port)] if parts.port else [])]
    with tempfile.TemporaryDirectory(prefix="cregraph-ssh-") as folder:
        socket = Path(folder, "engine")
        there = parts.path.rstrip("/") or "/var/run/docker.sock"
        words += ["-L", f"{socket}:{there}", "--", parts.hostname or ""]
        try:
            # A session of its own: Ctrl-C is for cregraph.
            process = subprocess.Popen(words, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, start_new_session=True)
        except OSError as error:
            raise CregraphError(f"the program `ssh` cannot be started: {error.strerror}") from None
        with process:
            try:
                while not socket.exists():
                    if process.poll() is not None and process.stderr is not None:
                        said = process.stderr.read().decode("utf-8", "replace")
                        raise _no_engine(about, host, f"ssh says: {said}")
                    time.sleep(0.01)
                yield f"unix://{socket}"
            finally:
                process.terminate()


def refusal(about: str, words: str) -> CregraphError:
    """Return the error for what an engine said in `words`, with a hint."""
    text = printable(" ".join(words.split()), _SAID) or "it gives no reason"
    low = words.lower()
    if "no such image" in low or "not found: not found" in low or "reference does not exist" in low:
        return NoImage(
            f"{about}: the Docker engine has no such image", hint="run `docker images` to list the images of the engine"
        )
    hint = "run `docker info` to check the engine"
    if "no space left" in low or "disk quota" in low:
        hint = "run `docker system df` to see the use of the engine's disk, and `docker image prune` or "
        hint += "`docker builder prune` to free space"
    return CregraphError(f"{about}: docker says: {text}", hint=hint)


def _of_error(about: str, host: str, error: Exception) -> CregraphError:
    import docker.errors

    if isinstance(error, docker.errors.APIError):
        return refusal(about, str(error.explanation or error))
    at = printable(host, 200)
    if isinstance(error, docker.errors.InvalidVersion):
        return CregraphError(f"{about}: the engine at {at} is too old: {error}", hint="update Docker Engine")
    cause = _cause(error)
    if isinstance(cause, PermissionError):
        hint = "add this user to the group `docker`, or set DOCKER_HOST to another engine"
        return CregraphError(f"{about}: permission denied for {at}", hint=hint)
    if isinstance(cause, TimeoutError | ConnectionResetError | BrokenPipeError):
        what = "does not answer in time" if isinstance(cause, TimeoutError) else "ended the connection"
        return CregraphError(f"{about}: the engine at {at} {what}", hint="run `docker info` to check the engine")
    return _no_engine(about, host, cause.strerror if isinstance(cause, OSError) and cause.strerror else str(cause or error))


def _no_engine(about: str, host: str, words: str) -> CregraphError:
    text = f"{about}: cannot connect to {printable(host, 200)}: {printable(' '.join(words.split()), _SAID)}"
    return CregraphError(text, hint="start the engine, or name it with DOCKER_HOST or `docker context use NAME`")


def _cause(error: BaseException) -> BaseException | None:
    """Return the error of the operating system, or of TLS, that led to `error`."""
    import requests
    import urllib3.exceptions

    seen: list[BaseException] = [error]
    for each in seen:
        if isinstance(each, OSError) and not isinstance(each, requests.RequestException):
            return each
        more = [each.__cause__, each.__context__, *each.args]
        seen += [one for one in more if isinstance(one, BaseException) and one not in seen]
    if any(isinstance(each, urllib3.exceptions.TimeoutError) for each in seen):
        return TimeoutError()
    # An answer that breaks off in its middle has no error of the operating system.
    return ConnectionResetError() if any(isinstance(each, urllib3.exceptions.ProtocolError) for each in seen) else None

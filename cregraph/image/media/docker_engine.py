"""Requests to a Docker engine: images in and out, and containers that try an image.

Nothing is mounted from this machine: files go in by copying, so a remote engine works as well as a local one.
"""

from __future__ import annotations

import contextlib
import re
import secrets
import struct
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import PurePosixPath
from typing import IO, Any

from cregraph.digest import Json
from cregraph.errors import CregraphError
from cregraph.formats.inflate import blocks_as_file
from cregraph.image.media.docker_client import NoImage, client, refusal
from cregraph.image.model import tar_writer as tar
from cregraph.text import printable

__all__ = [
    "Container",
    "container",
    "frames",
    "image_archive",
    "inspect",
    "load_stream",
    "plain_socket",
    "reachable",
    "received",
    "remove",
    "remove_images",
]

_PIECE = 1 << 20
_LINE = 1 << 20  # bytes at which a line of a container is cut
_SAID = 4000  # bytes of a container's stderr that are kept
_HEADER = 8  # bytes before each frame of an attached container
_STDERR = 2


def reachable(context: str | None = None) -> None:
    """Raise CregraphError with a hint unless an engine answers."""
    with client("the Docker engine does not answer", context):
        pass


def inspect(name: str, context: str | None = None) -> Mapping[str, Json]:
    """Return the engine's description of the image `name`. Raises NoImage if the engine does not have it."""
    with client(f"image `{_named(name)}`", context) as api:
        return dict(api.inspect_image(name))  # type: ignore[no-untyped-call]  # types-docker gives it none


def load_stream(pieces: Iterable[bytes], *, about: str, context: str | None = None) -> None:
    """Load an image archive, streamed in `pieces`, into the engine.

    An exception of `pieces` ends the transfer at once, loads nothing, and is raised as it is.

    Raises CregraphError, beginning with `about`, if the engine cannot be reached, refuses the archive or ends the connection.
    """
    wrong: list[Exception] = []

    def sent() -> Iterator[bytes]:
        try:
            yield from pieces
        except Exception as error:  # else urllib3 takes an OSError of a file for one of the connection
            wrong.append(error)
            raise

    try:
        with client(about, context) as api:
            # Quiet: an engine that writes progress while nobody reads it would stop reading too.
            for line in api.load_image(sent(), quiet=True):  # type: ignore[no-untyped-call]  # types-docker gives it none
                _check(line, about)
    except CregraphError:
        if wrong:
            raise wrong[0] from None
        raise


def _check(line: Mapping[str, Any], about: str) -> None:
    """Raise CregraphError if a line of an engine's progress is an error: HTTP's status says nothing of it."""
    detail = line.get("errorDetail")
    words = line.get("error") or (detail.get("message") if isinstance(detail, dict) else None) or line.get("message")
    if words:
        raise refusal(about, str(words))


@contextlib.contextmanager
def image_archive(name: str) -> Iterator[IO[bytes]]:
    """Yield the engine's archive of the image `name`, to be read forward.

    An engine that fails in the middle writes the reason in place of the rest of the archive. That reason is raised then,
    instead of the block's own CregraphError.

    Raises:
        NoImage: The engine does not have the image.
        CregraphError: The engine cannot be reached, or breaks off.
    """
    about = f"docker:{_named(name)}: the Docker engine does not give this image"
    tail, wrong = b"", None
    with client(about) as api:

        def kept() -> Iterator[bytes]:
            nonlocal tail
            try:
                for block in api.get_image(name, chunk_size=_PIECE):
                    tail = (tail + block)[-_SAID:]
                    yield block
            except _api_error() as error:
                if error.status_code != 404:
                    raise
                hint = f"pull or load it first: `docker pull --platform linux/amd64 {name}`"
                raise NoImage(f"{about}: {printable(str(error.explanation), 400)}", hint) from None

        with blocks_as_file(kept()) as stream:
            try:
                yield stream
                while stream.read(_PIECE):  # the archive's padding, or what the engine says
                    pass
            except NoImage:
                raise
            except CregraphError as error:
                wrong = error
                stream.read(_PIECE)
        if found := re.search(rb'\{"errorDetail":\{"message":"(.*?)"\}', tail, re.DOTALL):
            raise refusal(about, found[1].decode("utf-8", "replace"))
        if wrong is not None:
            raise wrong


def remove_images(names: Iterable[str], context: str | None = None) -> None:
    """Remove images by name from the engine, as far as it has them. Raises nothing that the engine says."""
    with contextlib.suppress(CregraphError), client("images are removed", context) as api:
        for name in names:
            with contextlib.suppress(_api_error()):
                api.remove_image(name, force=True)


class Container:
    """A running container. Read `lines` to their end, then call `ended`."""

    def __init__(self, output: Iterator[tuple[int, bytes]], events: Iterator[Any], failure: str | None) -> None:
        self._output = output
        self._events = events
        self._failure = failure
        self._said = b""

    def lines(self) -> Iterator[str]:
        """Yield the lines of its stdout when they arrive. A longer line than 1 MiB is split."""
        waiting = b""
        for stream, data in self._output:
            if stream == _STDERR:
                self._said = (self._said + data)[-_SAID:]
                continue
            *lines, waiting = (waiting + data).split(b"\n")
            for line in lines:
                yield line[:_LINE].decode("utf-8", "replace")
            while len(waiting) >= _LINE:
                yield waiting[:_LINE].decode("utf-8", "replace")
                waiting = waiting[_LINE:]
        if waiting:
            yield waiting.decode("utf-8", "replace")

    def ended(self) -> tuple[int, str]:
        """Return its exit status, once it has ended, and the end of its stderr or the engine's reason."""
        for _ in self.lines():
            pass
        if self._failure is not None:
            return 127, self._failure
        event = next(self._events, None)
        if event is None:
            raise CregraphError(
                "the Docker engine stopped answering while a container ran", hint="run `docker info` to check the engine"
            )
        words = printable(" ".join(self._said.decode("utf-8", "replace").split()))
        return int(event["Actor"]["Attributes"]["exitCode"]), words


@contextlib.contextmanager
def container(
    image: str, command: Sequence[str], *, env: Mapping[str, str], files: Mapping[str, bytes], about: str
) -> Iterator[Container]:
    """Start `command` in a new container of `image`, without network, through the image's own entry point.

    `files` (absolute paths) are copied in first. The container is removed at the end, also by an exception of the block; by the
    engine itself if this process is killed and the command ends. An image that the engine lacks is not pulled: NoImage.
    """
    _named(image)
    name = f"cregraph-{secrets.token_hex(6)}"
    with client(about) as api:
        try:
            api.create_container(
                image,
                list(command),
                name=name,
                environment=dict(env),
                host_config=api.create_host_config(network_mode="none", auto_remove=True),
                platform="linux/amd64",
            )
            api.put_archive(name, "/", _tar(files))
            # From the start of time: its end may come before the engine begins to tell.
            events = api.events(since=1, decode=True, filters={"container": name, "event": "die"})
            output = frames(plain_socket(api.attach_socket(name)))
            failure = None
            try:
                api.start(name)
            except _api_error() as error:
                failure, output = printable(" ".join(str(error.explanation).split())), iter(())
            yield Container(output, events, failure)
        finally:
            remove(name)


def plain_socket(attached: Any) -> Any:
    """Return the socket under what `APIClient.attach_socket` returns, without a limit of time."""
    plain = getattr(attached, "_sock", attached)
    plain.settimeout(None)
    return plain


def frames(plain: Any) -> Iterator[tuple[int, bytes]]:
    """Yield what an attached container without a terminal writes: the descriptor (1 or 2) and bytes.

    Source: Engine API, "Attach to a container", stream format.
    """
    waiting = b""
    while data := received(plain):
        waiting += data
        while len(waiting) >= _HEADER:
            stream, size = struct.unpack(">BxxxL", waiting[:_HEADER])
            if len(waiting) < _HEADER + size:
                break
            yield stream, waiting[_HEADER : _HEADER + size]
            waiting = waiting[_HEADER + size :]


def received(plain: Any) -> bytes:
    """Return the received bytes; empty at the end of the connection, also after an error of the connection."""
    try:
        return bytes(plain.recv(_PIECE))
    except ConnectionError:
        return b""


def remove(name: str, context: str | None = None) -> None:
    """End and remove the container `name` with its volumes, if there is one. Raises nothing.

    In a thread, which a second Ctrl-C does not reach.
    """

    def ended() -> None:
        with contextlib.suppress(CregraphError), client("a container is removed", context) as api:
            api.remove_container(name, v=True, force=True)

    thread = threading.Thread(target=ended)
    thread.start()
    thread.join()


def _api_error() -> type[Any]:
    from docker.errors import APIError

    return APIError


def _named(name: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9\[][A-Za-z0-9._/:@\[\]-]{0,400}", name):
        raise CregraphError(f"`{printable(name, 120)}` is not the name of an image")
    return name


def _tar(files: Mapping[str, bytes]) -> Iterator[bytes]:
    folders = {str(parent) for path in files for parent in PurePosixPath(path.lstrip("/")).parents} - {"."}
    for folder in sorted(folders):
        yield tar.header(path=folder, type="directory", mode=0o777)  # the image's user may be anyone
    for path, data in files.items():
        yield from tar.file(path.lstrip("/"), data)
    yield tar.END

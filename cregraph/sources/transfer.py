"""Transfer of a file from an address (http, https, file) to a partial file. A later call resumes it."""

from __future__ import annotations

import base64
import contextlib
import netrc
import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit, urlunsplit
from urllib.request import url2pathname

from cregraph.errors import CregraphError
from cregraph.http import AGENT, Passing, Pools, check_passing, reason
from cregraph.sources.protocol import NotThere
from cregraph.sources.routes import is_web_address

if TYPE_CHECKING:
    import urllib3

__all__ = ["TooMuch", "Transfer", "Unreachable"]

_BLOCK = 1 << 20


class TooMuch(CregraphError):
    """Error: too many bytes."""


class Unreachable(CregraphError):
    """Error: the address does not give the file, and a retry would not help."""


class Transfer:
    """Downloader. Calls `on_bytes` with the number of bytes received, from any thread. `offline` opens no connection."""

    def __init__(self, *, offline: bool, on_bytes: Callable[[int], None]) -> None:
        self._offline = offline
        self._on_bytes = on_bytes
        self._pools = Pools(size=16)

    def receive(self, address: str, partial: Path, *, limit: int) -> None:
        """Append the missing bytes of the file at `address` to `partial`, without verification.

        Raises:
            NotThere: The address answers but does not have the file.
            TooMuch: The file has more than `limit` bytes.
            Unreachable: The address does not give the file.
            Passing: A further try may succeed.
        """
        if address.partition(":")[0] == "file":
            self._copy(Path(url2pathname(urlsplit(address).path)), partial, limit)
        elif not is_web_address(address):
            raise Unreachable("is not an address")
        elif self._offline:
            raise Unreachable("needs the network, but --offline is set")
        else:
            self._download(address, partial, limit)

    def _copy(self, source: Path, partial: Path, limit: int) -> None:
        try:
            if source.exists() and not source.is_file():
                raise NotThere("is a folder" if source.is_dir() else "is not a regular file")
            reader = source.open("rb")
        except (FileNotFoundError, NotADirectoryError):
            raise NotThere("no such file") from None
        except OSError as error:
            raise Unreachable(str(error.strerror or error)) from None
        received = 0
        with reader, partial.open("wb") as writer:
            while block := reader.read(_BLOCK):
                received += len(block)
                if received > limit:
                    raise TooMuch(f"more than {limit} bytes")
                writer.write(block)
                self._on_bytes(len(block))
            writer.flush()
            os.fsync(writer.fileno())

    def _download(self, address: str, partial: Path, limit: int) -> None:
        import urllib3

        have = partial.stat().st_size if partial.exists() else 0
        if have > limit:
            partial.unlink()
            have = 0
        try:
            response = self._ask(address, have)
            try:
                if response.status == 416 and have:
                    if have < limit:
                        partial.unlink()
                        raise Passing("the server refused to resume")
                else:
                    _check_status(response)
                    self._write(response, partial, have, limit)
            finally:
                response.close()
        except urllib3.exceptions.HTTPError as error:
            raise Passing(reason(error)) from None

    def _ask(self, address: str, have: int) -> urllib3.BaseHTTPResponse:
        import urllib3

        url, headers = _with_credentials(address)
        headers |= {"User-Agent": AGENT, "Accept-Encoding": "identity"}
        if have:
            headers["Range"] = f"bytes={have}-"
        return self._pools.of(url).request(
            "GET",
            url,
            headers=headers,
            preload_content=False,
            timeout=urllib3.Timeout(connect=20, read=60),
            retries=urllib3.Retry(total=8, connect=0, read=0, redirect=8, status=0, other=0, raise_on_status=False),
        )

    def _write(self, response: urllib3.BaseHTTPResponse, partial: Path, have: int, limit: int) -> None:
        start = response.headers.get("Content-Range", "").removeprefix("bytes ").partition("-")[0]
        resumed = response.status == 206 and _whole(start) == have
        if response.status == 206 and not resumed:
            partial.unlink(missing_ok=True)
            raise Passing("the server sent another range than asked for")
        received = have if resumed else 0
        expected = _whole(response.headers.get("Content-Length"))
        total = None if expected is None else received + expected
        if total is not None and total > limit:
            raise TooMuch(f"{total} bytes")
        with partial.open("ab" if resumed else "wb") as writer:
            for block in response.stream(_BLOCK, decode_content=False):
                received += len(block)
                if received > limit:
                    raise TooMuch(f"more than {limit} bytes")
                writer.write(block)
                self._on_bytes(len(block))
            writer.flush()
            os.fsync(writer.fileno())
        if total is not None and received != total:
            raise Passing(f"the connection ended after {received} of {total} bytes")


def _check_status(response: urllib3.BaseHTTPResponse) -> None:
    status = response.status
    if status in (404, 410):
        raise NotThere(f"HTTP {status}")
    check_passing(response)
    if status in (401, 403, 407):
        raise Unreachable(f"HTTP {status}: credentials are missing or wrong (they are read from ~/.netrc)")
    if status not in (200, 206):
        raise Unreachable(f"HTTP {status}")


def _with_credentials(address: str) -> tuple[str, dict[str, str]]:
    """Return the address without credentials, and the header with them (from the address, else from ~/.netrc)."""
    parts = urlsplit(address)
    host = parts.netloc.rpartition("@")[2]
    bare = urlunsplit((parts.scheme, host, parts.path, parts.query, ""))
    user, password = parts.username, parts.password
    if user is not None:
        user, password = unquote(user), unquote(password or "")
    else:
        with contextlib.suppress(OSError, ValueError, netrc.NetrcParseError):
            found = netrc.netrc(os.environ.get("NETRC")).authenticators(parts.hostname or "")
            if found:
                user, password = found[0], found[2]
    if user is None:
        return bare, {}
    pair = f"{user}:{password or ''}".encode()
    return bare, {"Authorization": "Basic " + base64.b64encode(pair).decode()}


def _whole(text: str | None) -> int | None:
    """Return the decimal number of an HTTP header, or None if it is invalid."""
    return int(text) if text and text.isascii() and text.isdigit() and len(text) < 20 else None

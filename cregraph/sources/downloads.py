"""Downloads from the first address that has a file: resumed, retried, verified.

A download stays in the store's partial/ until its sha256 is right; a later run resumes it. Artifacts leave this module
only after they are verified or, while locking, hashed.
"""

from __future__ import annotations

import base64
import contextlib
import functools
import netrc
import os
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import IO, TYPE_CHECKING, TypeVar
from urllib.parse import unquote, urlsplit, urlunsplit
from urllib.request import url2pathname

from cregraph.errors import CregraphError
from cregraph.http import Passing, Pools, Retries, check_passing, reason
from cregraph.sources.protocol import NotThere
from cregraph.sources.routes import is_web_address
from cregraph.store import Store
from cregraph.store.atomic_file import file_digest
from cregraph.text import redacted

if TYPE_CHECKING:
    import urllib3

__all__ = ["Fetcher", "NotThere"]

T = TypeVar("T")
_BLOCK = 1 << 20
_LARGEST = 1 << 36  # bytes of a file of unknown size


class _Differing(CregraphError):
    """Error: the received bytes have another digest than expected."""


class _TooMuch(CregraphError):
    """Error: too many bytes."""


class _Unreachable(CregraphError):
    """Error: the address does not give the file, and a retry would not help."""


class Fetcher:
    """Downloader into `store`. Calls `on_bytes` with the number of bytes received, from any thread."""

    def __init__(self, store: Store, *, offline: bool = False, on_bytes: Callable[[int], None] | None = None) -> None:
        self.store = store
        self.offline = offline
        self._on_bytes = on_bytes or (lambda _n: None)
        self._pools = Pools(size=16)
        self._retries = Retries()

    def fetch(self, addresses: Sequence[str], *, sha256: str, size: int, what: str) -> Path:
        """Return the path of object `sha256`, from the store or the first address that has it.

        Raises CregraphError with both digests and the source if the bytes differ, else with each address and its failure.
        """
        with self.store.lock(f"fetch-{sha256}"):
            if self.store.has(sha256):
                with contextlib.suppress(CregraphError):  # damaged: downloaded again
                    return self.store.verified(sha256, what)
            partial = self._partial(sha256)

            def attempt(address: str) -> Path:
                begun = partial.exists()
                try:
                    self._receive(address, partial, limit=size)
                    found = f"sha256:{file_digest(partial)}"
                except _TooMuch as error:
                    found = error.message
                if found != f"sha256:{sha256}":
                    partial.unlink(missing_ok=True)
                    if begun:  # the bytes of an earlier try may be wrong
                        raise Passing(f"the server cannot continue the partial download of {what}")
                    raise _Differing(
                        f"{what} has {found}, but the lock pins sha256:{sha256} ({size} bytes)\n  from {redacted(address)}",
                        hint="run `cregraph lock --upgrade-package NAME` if you expect new bytes, and "
                        "review the change with `cregraph diff`",
                    )
                return self.store.adopt(partial, sha256)

            return self._first(addresses, attempt, what, kept=True)

    def take(self, addresses: Sequence[str], *, what: str, md5: str | None = None) -> tuple[str, int, Path]:
        """Download a file of unknown sha256; return (sha256, size, path). `md5`, which CRAN's index states, is checked.

        Each try starts at the first byte: a file that cannot be verified is never assembled from parts.
        """
        with self.store.scratch_folder() as folder:
            partial = folder / "download"

            def attempt(address: str) -> tuple[str, int, Path]:
                partial.unlink(missing_ok=True)
                self._receive(address, partial, limit=_LARGEST)
                size = partial.stat().st_size
                found_md5 = file_digest(partial, "md5") if md5 else None
                if md5 and found_md5 != md5.lower():
                    raise _Differing(
                        f"{what} has md5 {found_md5}, but its index says {md5}\n  from {redacted(address)}",
                        hint="try again later, or name another mirror in sources.yaml: this one does not match its index",
                    )
                found = file_digest(partial)
                return found, size, self.store.adopt(partial, found)

            return self._first(addresses, attempt, what)

    def read(self, addresses: Sequence[str], *, what: str, limit: int) -> bytes:
        """Return the bytes of a small index file. Each call asks the source."""
        with self.store.scratch_folder() as folder:
            partial = folder / "index"

            def attempt(address: str) -> bytes:
                partial.unlink(missing_ok=True)
                self._receive(address, partial, limit=limit)
                return partial.read_bytes()

            return self._first(addresses, attempt, what)

    def _first(self, addresses: Sequence[str], attempt: Callable[[str], T], what: str, *, kept: bool = False) -> T:
        failures: list[tuple[str, str]] = []
        absent = 0
        differing: _Differing | None = None
        for address in addresses:
            try:
                return self._retries.run(functools.partial(attempt, address))
            except NotThere as error:
                absent += 1
                failures.append((address, error.message))
            except (Passing, _Unreachable) as error:
                failures.append((address, str(error)))
            except _Differing as error:
                differing = differing or error
            except _TooMuch as error:
                failures.append((address, f"has {error.message}"))
        if differing is not None:
            raise differing
        told = "".join(f"\n  {redacted(address)}: {why}" for address, why in failures)
        if absent == len(failures):
            raise NotThere(f"{what} does not exist{told}", hint="check the name, or the address in sources.yaml")
        if self.offline:
            hint = "run once without --offline"
        else:
            hint = "check the network and sources.yaml" + ("; the next run continues the download" * kept)
        raise CregraphError(f"{what} cannot be fetched{told}", hint=hint)

    def _partial(self, sha256: str) -> Path:
        folder = self.store.root / "partial"
        folder.mkdir(parents=True, exist_ok=True)
        return folder / sha256

    def _receive(self, address: str, partial: Path, *, limit: int) -> None:
        """Append the missing bytes of the file at `address` to `partial`, without verification.

        Raises:
            NotThere: The address answers but does not have the file.
            _TooMuch: The file has more than `limit` bytes.
            _Unreachable: The address does not give the file.
            Passing: A further try may succeed.
        """
        with self.store.explained():
            if address.partition(":")[0] == "file":
                self._copy(Path(url2pathname(urlsplit(address).path)), partial, limit)
            elif not is_web_address(address):
                raise _Unreachable("is not an address")
            elif self.offline:
                raise _Unreachable("needs the network, but --offline is set")
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
            raise _Unreachable(str(error.strerror or error)) from None
        with reader, partial.open("wb") as writer:
            self._write(iter(lambda: reader.read(_BLOCK), b""), writer, 0, limit)

    def _download(self, address: str, partial: Path, limit: int) -> None:
        import urllib3

        have = partial.stat().st_size if partial.exists() else 0
        if have > limit:
            partial.unlink()
            have = 0
        url, headers = _with_credentials(address)
        response = self._pools.request("GET", url, headers | ({"Range": f"bytes={have}-"} if have else {}), seconds=60)
        try:
            if response.status == 416 and have == limit:
                return  # nothing is missing
            if response.status == 416 and have:
                partial.unlink()
                raise Passing("the server refused to resume")
            _check_status(response)
            self._save(response, partial, have, limit)
        except urllib3.exceptions.HTTPError as error:
            raise Passing(reason(error)) from None
        finally:
            response.close()

    def _save(self, response: urllib3.BaseHTTPResponse, partial: Path, have: int, limit: int) -> None:
        start = response.headers.get("Content-Range", "").removeprefix("bytes ").partition("-")[0]
        resumed = response.status == 206 and _whole(start) == have
        if response.status == 206 and not resumed:
            partial.unlink(missing_ok=True)
            raise Passing("the server sent another range than requested")
        have = have if resumed else 0
        left = _whole(response.headers.get("Content-Length"))
        total = None if left is None else have + left
        if total is not None and total > limit:
            raise _TooMuch(f"{total} bytes")
        with partial.open("ab" if resumed else "wb") as writer:
            received = self._write(response.stream(_BLOCK, decode_content=False), writer, have, limit)
        if total is not None and received != total:
            raise Passing(f"the connection ended after {received} of {total} bytes")

    def _write(self, blocks: Iterable[bytes], writer: IO[bytes], received: int, limit: int) -> int:
        """Write `blocks` after `received` bytes, and flush them to the disk. Return how many bytes there are then."""
        for block in blocks:
            received += len(block)
            if received > limit:
                raise _TooMuch(f"more than {limit} bytes")
            writer.write(block)
            self._on_bytes(len(block))
        writer.flush()
        os.fsync(writer.fileno())
        return received


def _check_status(response: urllib3.BaseHTTPResponse) -> None:
    status = response.status
    if status in (404, 410):
        raise NotThere(f"HTTP {status}")
    check_passing(response)
    if status in (401, 403, 407):
        raise _Unreachable(f"HTTP {status}: credentials are missing or wrong (they are read from ~/.netrc)")
    if status not in (200, 206):
        raise _Unreachable(f"HTTP {status}")


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

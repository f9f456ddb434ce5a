"""Bytes from http(s):// and file:// addresses: resumed, retried, verified.

A download lies in the store's partial/ until its sha256 is right; a later run goes on where it stopped. Nothing that was
not verified (or, while locking, hashed and named) leaves this module.
"""

from __future__ import annotations

import base64
import contextlib
import functools
import hashlib
import netrc
import os
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import unquote, urlsplit, urlunsplit
from urllib.request import getproxies, proxy_bypass, url2pathname

from cregraph.errors import CregraphError
from cregraph.sources.not_there import NotThere
from cregraph.sources.routes import is_web_address
from cregraph.store import Store
from cregraph.text import redacted

if TYPE_CHECKING:
    import urllib3

__all__ = ["Fetcher", "NotThere"]

T = TypeVar("T")

_BLOCK = 1 << 20
_AGENT = "cregraph"
#: Seconds before each further try; a server that answers 500 twice is waited for.
_PAUSES = (0.2, 0.8, 2.0, 5.0)


class _Passing(Exception):
    """A failure that a further try may mend."""


class _Differing(CregraphError):
    """Bytes arrived, and they are not those that are wanted."""


class _TooMuch(CregraphError):
    """More bytes than are wanted."""


class _Unreachable(CregraphError):
    """An address that does not give the file, and will not on a further try."""


class Fetcher:
    """Fetches into `store`. `on_bytes` is called with the number of bytes that arrived, from any thread."""

    def __init__(self, store: Store, *, offline: bool = False, on_bytes: Callable[[int], None] | None = None) -> None:
        self.store = store
        self.offline = offline
        self._on_bytes = on_bytes or (lambda _n: None)
        self._pools: dict[str, urllib3.PoolManager] = {}
        self._guard = threading.Lock()

    def fetch(self, addresses: Sequence[str], *, sha256: str, size: int, what: str) -> Path:
        """The object `sha256`, from the store or the first address that has it.

        Raises CregraphError naming file, both digests and the source when bytes differ, or each address and its failure.
        """
        if self.store.has(sha256):
            with contextlib.suppress(CregraphError):
                return self.store.verified(sha256, what)
        with self.store.lock(f"fetch-{sha256}"):
            if self.store.has(sha256):
                return self.store.verified(sha256, what)
            partial = self._partial(sha256)

            def attempt(address: str) -> Path:
                begun = partial.exists()
                try:
                    self._receive(address, partial, limit=size)
                    found = f"sha256:{_digest(partial)}"
                except _TooMuch as error:
                    found = error.message
                if found != f"sha256:{sha256}":
                    partial.unlink(missing_ok=True)
                    if begun:  # what an earlier try left may be what is wrong
                        raise _Passing(f"what was kept of {what} does not go on here")
                    raise _Differing(
                        f"{what} has {found}, but the lock pins sha256:{sha256} ({size} bytes)\n  from {redacted(address)}",
                        hint="the file changed at its source, or the lock was edited; if you expect new bytes, run "
                        "`cregraph lock --upgrade-package NAME` and look at `cregraph diff`",
                    )
                return self.store.adopt(partial, sha256)

            return self._first(addresses, attempt, what, kept=True)

    def take(self, addresses: Sequence[str], *, what: str, md5: str | None = None, limit: int = 1 << 36) -> tuple[str, int, Path]:
        """Bytes whose sha256 is not known yet: (sha256, size, path). With `md5` (as CRAN's index has it) that is checked.

        Each try begins anew: what cannot be verified is never put together from parts.
        """
        with self.store.scratch_folder() as folder:
            partial = folder / "download"

            def attempt(address: str) -> tuple[str, int, Path]:
                partial.unlink(missing_ok=True)
                self._receive(address, partial, limit=limit)
                size = partial.stat().st_size
                found_md5 = _digest(partial, "md5") if md5 else None
                if md5 and found_md5 != md5.lower():
                    raise _Differing(
                        f"{what} has md5 {found_md5}, but its index says {md5}\n  from {redacted(address)}",
                        hint="the mirror is out of step with its index; try again later or name another in sources.yaml",
                    )
                found = _digest(partial)
                return found, size, self.store.adopt(partial, found)

            return self._first(addresses, attempt, what)

    def read(self, addresses: Sequence[str], *, what: str, limit: int) -> bytes:
        """A small file of an index, in memory; always asked anew."""
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
                return self._patiently(functools.partial(attempt, address))
            except NotThere as error:
                absent += 1
                failures.append((address, error.message))
            except _Passing as error:
                failures.append((address, str(error)))
            except _Differing as error:
                differing = differing or error
            except _TooMuch as error:
                failures.append((address, f"has {error.message}"))
            except _Unreachable as error:
                failures.append((address, error.message))
        if differing is not None:
            raise differing
        told = "".join(f"\n  {redacted(address)}: {why}" for address, why in failures)
        if absent == len(failures):
            raise NotThere(f"{what} is not there{told}", hint="check the name, or the address in sources.yaml")
        if self.offline:
            hint = "run once without --offline"
        else:
            hint = "check the network and sources.yaml" + ("; what arrived is kept, and the next run goes on from there" * kept)
        raise CregraphError(f"{what} cannot be fetched{told}", hint=hint)

    def _patiently(self, attempt: Callable[[], T]) -> T:
        for pause in _PAUSES:
            try:
                return attempt()
            except _Passing:
                time.sleep(pause)
        return attempt()

    def _partial(self, sha256: str) -> Path:
        folder = self.store.root / "partial"
        folder.mkdir(parents=True, exist_ok=True)
        return folder / sha256

    def _receive(self, address: str, partial: Path, *, limit: int) -> None:
        with self.store.explained():
            if address.startswith("file:"):
                self._copy(Path(url2pathname(urlsplit(address).path)), partial, limit)
            elif not is_web_address(address):
                raise _Unreachable("is no address")
            elif self.offline:
                raise _Unreachable("is on the network, and --offline was asked for")
            else:
                self._download(address, partial, limit)

    def _copy(self, source: Path, partial: Path, limit: int) -> None:
        try:
            if source.exists() and not source.is_file():
                raise NotThere("is a folder" if source.is_dir() else "is no regular file")
            reader = source.open("rb")
        except (FileNotFoundError, NotADirectoryError):
            raise NotThere("no such file") from None
        except OSError as error:
            raise _Unreachable(str(error.strerror or error)) from None
        received = 0
        with reader, partial.open("wb") as writer:
            while block := reader.read(_BLOCK):
                received += len(block)
                if received > limit:
                    raise _TooMuch(f"more than {limit} bytes")
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
        url, headers = _with_credentials(address)
        headers |= {"User-Agent": _AGENT, "Accept-Encoding": "identity"}
        if have:
            headers["Range"] = f"bytes={have}-"
        try:
            response = self._pool(url).request(
                "GET",
                url,
                headers=headers,
                preload_content=False,
                timeout=urllib3.Timeout(connect=20, read=60),
                retries=_redirects(),
            )
        except urllib3.exceptions.HTTPError as error:
            raise _Passing(_reason(error)) from None
        try:
            status = response.status
            if status == 416 and have:
                if have == limit:
                    return
                partial.unlink()
                raise _Passing("the server refused to resume")
            if status in (404, 410):
                raise NotThere(f"HTTP {status}")
            if status == 429 or status >= 500:
                raise _Passing(f"HTTP {status}")
            if status in (401, 403, 407):
                raise _Unreachable(f"HTTP {status}: credentials are missing or wrong (they are read from ~/.netrc)")
            if status not in (200, 206):
                raise _Unreachable(f"HTTP {status}")
            resumed = status == 206 and _range_start(response.headers.get("Content-Range")) == have
            if status == 206 and not resumed:
                partial.unlink(missing_ok=True)
                raise _Passing("the server sent another range than asked for")
            received = have if resumed else 0
            expected = _whole(response.headers.get("Content-Length"))
            total = None if expected is None else received + expected
            if total is not None and total > limit:
                raise _TooMuch(f"{total} bytes")
            with partial.open("ab" if resumed else "wb") as writer:
                for block in response.stream(_BLOCK, decode_content=False):
                    received += len(block)
                    if received > limit:
                        raise _TooMuch(f"more than {limit} bytes")
                    writer.write(block)
                    self._on_bytes(len(block))
                writer.flush()
                os.fsync(writer.fileno())
            if total is not None and received != total:
                raise _Passing(f"the connection ended after {received} of {total} bytes")
        except urllib3.exceptions.HTTPError as error:
            raise _Passing(_reason(error)) from None
        finally:
            response.close()

    def _pool(self, url: str) -> urllib3.PoolManager:
        import urllib3

        parts = urlsplit(url)
        proxies = getproxies()
        proxy = proxies.get(parts.scheme) or proxies.get("all")
        if proxy and proxy_bypass(parts.hostname or ""):
            proxy = None
        with self._guard:
            if (proxy or "") not in self._pools:
                made = _proxied(proxy) if proxy else urllib3.PoolManager(num_pools=16, maxsize=16)
                self._pools[proxy or ""] = made
            return self._pools[proxy or ""]


def _proxied(address: str) -> urllib3.PoolManager:
    import urllib3

    parts = urlsplit(address)
    pair = f"{unquote(parts.username)}:{unquote(parts.password or '')}" if parts.username is not None else None
    headers = urllib3.make_headers(proxy_basic_auth=pair) if pair else None
    return urllib3.ProxyManager(address, proxy_headers=headers, num_pools=16, maxsize=16)


def _redirects() -> Any:
    import urllib3

    return urllib3.Retry(total=8, connect=0, read=0, redirect=8, status=0, other=0, raise_on_status=False)


def _with_credentials(address: str) -> tuple[str, dict[str, str]]:
    """The address without user and password, and the header that carries them (from the address, else from ~/.netrc)."""
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


def _range_start(header: str | None) -> int | None:
    return _whole((header or "").removeprefix("bytes ").partition("-")[0])


def _whole(text: str | None) -> int | None:
    """A number as servers write it; None for all else."""
    return int(text) if text and text.isascii() and text.isdigit() and len(text) < 20 else None


def _digest(path: Path, name: str = "sha256") -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.new(name, usedforsecurity=False)).hexdigest()


def _reason(error: Exception) -> str:
    text = str(getattr(error, "reason", None) or error)
    for name in ("NewConnectionError", "ConnectTimeoutError", "NameResolutionError"):
        if name in repr(error) or name in text:
            text = {"NameResolutionError": "the host name is not known"}.get(name, "no connection")
            break
    return text.split(": ", 1)[-1][:200]

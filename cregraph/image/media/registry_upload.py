"""Uploads of blobs to a registry: in one request, or streamed, and resumed where the registry says that it stopped.

Source: OCI Distribution Specification 1.1, "Pushing a blob monolithically" and "Pushing a blob in chunks".
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING
from urllib.parse import quote, urljoin, urlsplit

from cregraph.errors import CregraphError
from cregraph.http import Passing
from cregraph.image.media.registry_http import Exchange
from cregraph.image.model.manifest import Descriptor, digest_of
from cregraph.store.push_records import Uploads

if TYPE_CHECKING:
    import urllib3

__all__ = ["Reader", "cancel", "push_scope", "upload"]

#: A blob's bytes from an offset on; uploads call it again to resume.
Reader = Callable[[int], Iterator[bytes]]


#: Blobs up to this many bytes go up in one request.
_WHOLE = 4 << 20
#: The size of pieces for registries that refuse long requests (HTTP 413).
_PIECE = 16 << 20
_BYTES = "application/octet-stream"


def upload(exchange: Exchange, repository: str, blob: Descriptor, read: Reader, begun: Uploads | None) -> None:
    """Send a blob: a small one whole, another one streamed. After a break, ask the registry how far it came, and continue.

    `read(offset)` gives the bytes from `offset` on. The registry checks the digest before it keeps the blob. With `begun` an
    upload that another process left unfinished is continued if the registry still has it.
    """
    one = _Upload(exchange, repository, blob, begun)
    if blob.size > _WHOLE:
        exchange.patiently(lambda: one.stream(read), about=one.about)
        return
    data = b"".join(read(0))
    if digest_of(data) != blob.digest:
        raise CregraphError(f"{exchange.host}: {one.about}: the bytes have {digest_of(data)}; cregraph did not send them")
    exchange.patiently(lambda: one.finish(one.begin(), data), about=one.about)


def cancel(exchange: Exchange, repository: str, blob: Descriptor, response: urllib3.BaseHTTPResponse) -> None:
    """End the upload that `response` has begun. The registry forgets one that cannot be ended."""
    one = _Upload(exchange, repository, blob, None)
    with contextlib.suppress(Passing, CregraphError):
        one.ask("DELETE", one.place(response, ""), (204, 202, 200))


def push_scope(repository: str) -> str:
    return f"repository:{repository}:pull,push"


class _Upload:
    """The upload of one blob to one repository."""

    def __init__(self, exchange: Exchange, repository: str, blob: Descriptor, begun: Uploads | None) -> None:
        self._exchange = exchange
        self._repository = repository
        self._blob = blob
        self._begun = begun
        self._pieces = blob.size
        self.about = f"{repository}@{blob.digest}"

    def ask(
        self, method: str, place: str, expect: tuple[int, ...], headers: dict[str, str] | None = None, body: _Body = None
    ) -> urllib3.BaseHTTPResponse:
        """Return the answer, closed."""
        scopes = (push_scope(self._repository),)
        response = self._exchange.request(
            method, place, about=self.about, scopes=scopes, headers=headers, body=body, expect=expect, patient=False
        )
        response.close()
        return response

    def begin(self) -> str:
        response = self.ask("POST", f"/v2/{self._repository}/blobs/uploads/", (202,), {"Content-Length": "0"}, b"")
        return self.place(response, "")

    def place(self, response: urllib3.BaseHTTPResponse, before: str) -> str:
        location = response.headers.get("Location") or before
        if not location:
            raise CregraphError(f"{self._exchange.host}: {self.about}: the registry does not return an address for the upload")
        return urljoin(self._exchange.base, location)

    def finish(self, place: str, data: bytes) -> None:
        joined = f"{place}{'&' if urlsplit(place).query else '?'}digest={quote(self._blob.digest, safe='')}"
        self.ask("PUT", joined, (201,), {"Content-Type": _BYTES, "Content-Length": str(len(data))}, data)

    def stream(self, read: Reader) -> None:
        left = self._begun.place(self._repository, self._blob.digest) if self._begun else None
        place, at = self._resumed(urljoin(self._exchange.base, left)) if left is not None else (self.begin(), 0)
        failures = 0
        while at < self._blob.size:
            self._note(place)
            try:
                place, at = self._sent(place, at, read)
            except Passing as error:
                failures += 1
                self._exchange.wait(failures, error, about=self.about)
                before = at
                place, at = self._resumed(place)
                failures = 0 if at > before else failures  # a link that breaks now and then brings a large blob there too
        try:
            self.finish(place, b"")
        except CregraphError:  # what it refuses whole it would refuse again
            self._note(None)
            raise
        self._note(None)

    def _sent(self, place: str, at: int, read: Reader) -> tuple[str, int]:
        """Send one piece from `at` on; return where to go on, and from which byte."""
        end = min(self._blob.size, at + self._pieces)
        headers = {"Content-Type": _BYTES, "Content-Length": str(end - at)}
        if at or end < self._blob.size:
            headers["Content-Range"] = f"{at}-{end - 1}"
        response = self.ask("PATCH", place, (202, 204, 413), headers, _exactly(read(at), end - at))
        if response.status != 413:
            return self.place(response, place), end
        if self._pieces <= _PIECE:
            host = self._exchange.host
            raise CregraphError(f"{host}: {self.about}: refuses chunks of {self._pieces >> 20} MiB (HTTP 413)")
        self._pieces = _PIECE
        return self.begin(), 0

    def _note(self, place: str | None) -> None:
        """Record where an upload goes on. A place on another host carries its own permission, and is kept nowhere."""
        if self._begun is None:
            return
        base = self._exchange.base
        ours = place is not None and urlsplit(place)[:2] == urlsplit(base)[:2]
        self._begun.note(self._repository, self._blob.digest, place[len(base) :] if place and ours else None)

    def _resumed(self, place: str) -> tuple[str, int]:
        """Return where to go on: as far as the registry says that it came, or from the start at a new place."""
        try:
            response = self.ask("GET", place, (204,))
            first, dash, last = response.headers.get("Range", "").removeprefix("bytes=").partition("-")
            if dash and first == "0" and last.isdigit() and int(last) < self._blob.size:
                return self.place(response, place), int(last) + 1 if int(last) else 0  # registries say 0-0 for nothing as well
        except (Passing, CregraphError):
            pass
        return self.begin(), 0


_Body = bytes | Iterable[bytes] | None


def _exactly(blocks: Iterator[bytes], size: int) -> Iterator[bytes]:
    left = size
    for block in blocks:
        yield block[:left]
        left -= len(block)
        if left <= 0:
            return
    raise CregraphError(f"{left} bytes are missing at their source")

"""A registry of the OCI distribution specification 1.1: manifests and blobs, down and up.

Whatever is received is checked against its digest; a download that breaks goes on where it stopped (`Range`), an upload asks the
registry how far it came. Blobs are streamed: no more than a block of them is in memory. All methods are safe with many
threads. Raised are NotInRegistry, Unauthorized and CregraphError; messages name host and repository, never a credential.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Protocol
from urllib.parse import quote, urlencode, urljoin, urlsplit

from cregraph.digest import is_sha256
from cregraph.errors import CregraphError
from cregraph.http.retry import Passing
from cregraph.image.media.registry_http import Exchange, NotInRegistry, Unauthorized
from cregraph.image.model.manifest import ACCEPT, MANIFEST_LIMIT, Descriptor, Manifest, digest_of, follow

if TYPE_CHECKING:
    import urllib3

__all__ = ["Begun", "NotInRegistry", "Reader", "Registry", "Unauthorized"]

#: A blob's bytes from an offset on; uploads call it again to resume.
Reader = Callable[[int], Iterator[bytes]]


class Begun(Protocol):
    """Where uploads that were begun are written down, so that another process may go on with them."""

    def place(self, repository: str, digest: str) -> str | None:
        """The path on the registry at which an upload was begun, if one is known."""
        ...

    def note(self, repository: str, digest: str, place: str | None) -> None:
        """It goes on at `place`; None: it is over."""
        ...


_BLOCK = 1 << 20
#: Blobs up to this many bytes go up in one request.
_WHOLE = 4 << 20
#: The size of pieces for registries that refuse long requests (HTTP 413).
_PIECE = 16 << 20


class Registry:
    """A registry, through `exchange`. `Registry.at(host)` is the usual way to one."""

    def __init__(self, exchange: Exchange) -> None:
        self.exchange = exchange
        self.host = exchange.host

    @classmethod
    def at(cls, host: str, *, plain_http: bool | None = None) -> Registry:
        """The registry at `host[:port]`, with Docker's credentials for it."""
        return cls(Exchange(host, plain_http=plain_http))

    def ping(self) -> None:
        """Ask whether the registry answers and knows us; raises when not."""
        self.exchange.request("GET", "/v2/", about="the registry", expect=(200,)).close()

    def manifest(self, repository: str, reference: str) -> bytes:
        """The manifest or index at a tag or digest; at a digest the bytes are checked against it.

        Against a `Docker-Content-Digest` that the registry states they are checked too.
        """
        about = f"{repository}{'@' if ':' in reference else ':'}{reference}"

        def attempt() -> tuple[bytes, str]:
            response = self.exchange.request(
                "GET",
                f"/v2/{repository}/manifests/{reference}",
                about=about,
                scopes=(_pull(repository),),
                headers={"Accept": ACCEPT},
                patient=False,
            )
            stated = response.headers.get("Docker-Content-Digest", "")
            return self.exchange.read(response, MANIFEST_LIMIT, about=about), stated

        data, stated = self.exchange.patiently(attempt, about=about)
        found = digest_of(data)
        told = "asked for" if ":" in reference else "stated"
        wanted = reference if ":" in reference else stated if stated.startswith("sha256:") else found
        if found != wanted:
            raise CregraphError(
                f"{self.host}: the manifest of {about} has {found}, but {wanted} was {told}",
                "the registry or something on the way to it is broken; nothing was kept",
            )
        return data

    def image(self, repository: str, reference: str) -> Manifest:
        """The manifest of the image for linux/amd64 at a tag or digest; an index is followed."""
        what = f"{self.host}/{repository}{'@' if ':' in reference else ':'}{reference}"
        data = self.manifest(repository, reference)
        return follow(data, lambda one: self.manifest(repository, one.digest), what=what)

    def digest_at(self, repository: str, reference: str) -> str | None:
        """The digest that a tag or digest leads to, None when there is none."""
        try:
            response = self.exchange.request(
                "HEAD",
                f"/v2/{repository}/manifests/{reference}",
                about=f"{repository}:{reference}",
                scopes=(_pull(repository),),
                headers={"Accept": ACCEPT},
            )
        except NotInRegistry:
            return None
        response.close()
        stated = response.headers.get("Docker-Content-Digest", "")
        plain = is_sha256(stated.removeprefix("sha256:")) and stated.startswith("sha256:")
        return stated if plain else digest_of(self.manifest(repository, reference))

    def put_manifest(self, repository: str, reference: str, data: bytes, media_type: str) -> None:
        """Write a manifest at a tag or digest."""
        about = f"{repository}:{reference}"
        response = self.exchange.request(
            "PUT",
            f"/v2/{repository}/manifests/{reference}",
            about=about,
            scopes=(_push(repository),),
            headers={"Content-Type": media_type},
            body=data,
            expect=(201, 200, 202),
        )
        response.close()
        stated = response.headers.get("Docker-Content-Digest")
        if stated and stated != digest_of(data):
            raise CregraphError(f"{self.host}: {about}: was kept as {stated}, but {digest_of(data)} was sent")

    def has_blob(self, repository: str, digest: str, *, for_push: bool = False) -> bool:
        """Whether the repository has the blob. `for_push` asks with the right that the upload will use."""
        try:
            scope = _push(repository) if for_push else _pull(repository)
            self.exchange.request(
                "HEAD", f"/v2/{repository}/blobs/{digest}", about=f"{repository}@{digest}", scopes=(scope,)
            ).close()
        except NotInRegistry:
            return False
        return True

    def blob(self, repository: str, blob: Descriptor, start: int = 0) -> Iterator[bytes]:
        """The blob's bytes from `start` on, in blocks; after a break it goes on with a Range request.

        Size, and from the start the digest, are checked; a differing byte raises at the end, before the iterator is
        exhausted, so whoever consumed all of it has the right bytes.
        """
        about = f"{repository}@{blob.digest}"
        hasher = hashlib.sha256()
        at, failures = start, 0
        while at < blob.size:
            before = at
            try:
                for block in self._ranged(repository, blob, at, about):
                    at += len(block)
                    if at > blob.size:
                        raise CregraphError(f"{self.host}: {about}: has more than the {blob.size} bytes that its manifest states")
                    hasher.update(block)
                    yield block
                if at < blob.size:
                    raise Passing(f"ended after {at} of {blob.size} bytes")
            except Passing as error:
                failures = 1 if at > before else failures + 1
                self.exchange.wait(failures, error, about=about)
        if start == 0 and hasher.hexdigest() != blob.hex:
            raise CregraphError(
                f"{self.host}: a blob of {repository} has sha256:{hasher.hexdigest()}, but its manifest says {blob.digest}",
                "the registry or something on the way to it is broken; nothing was kept",
            )

    def mount(self, repository: str, blob: Descriptor, source: str) -> bool:
        """Make the blob of repository `source` known in `repository` without moving bytes; False when that is not granted."""
        query = urlencode({"mount": blob.digest, "from": source})
        try:
            response = self.exchange.request(
                "POST",
                f"/v2/{repository}/blobs/uploads/?{query}",
                about=f"{repository}@{blob.digest}",
                scopes=(_pull(source), _push(repository)),
                headers={"Content-Length": "0"},
                body=b"",
                expect=(201, 202),
            )
        except (NotInRegistry, Unauthorized):
            return False  # not to be read there by us: the upload will say what is missing
        response.close()
        if response.status == 202:
            self._cancel(repository, response)
        return response.status == 201

    def upload(self, repository: str, blob: Descriptor, read: Reader, *, begun: Begun | None = None) -> None:
        """Send a blob: small ones whole, others streamed; after a break the registry is asked how far it came.

        `read(offset)` gives the bytes from `offset` on. The registry checks the digest before it keeps the blob. With `begun` an
        upload that another process left in the middle is gone on with, if the registry still has it.
        """
        about = f"{repository}@{blob.digest}"
        if blob.size <= _WHOLE:
            data = b"".join(read(0))
            if digest_of(data) != blob.digest:
                raise CregraphError(f"{self.host}: {about}: the bytes to send have {digest_of(data)}; they were not sent")
            self.exchange.patiently(
                lambda: self._finish(repository, self._begin(repository, about), blob, about, data), about=about
            )
        else:
            self.exchange.patiently(lambda: self._stream(repository, blob, read, about, begun), about=about)

    def _ranged(self, repository: str, blob: Descriptor, at: int, about: str) -> Iterator[bytes]:
        import urllib3

        response = self.exchange.request(
            "GET",
            f"/v2/{repository}/blobs/{blob.digest}",
            about=about,
            scopes=(_pull(repository),),
            headers={"Range": f"bytes={at}-"} if at else None,
            expect=(200, 206),
            patient=False,
        )
        skip = 0
        if at and response.status == 200:
            skip = at  # the server knows no ranges
        elif at and not response.headers.get("Content-Range", "").startswith(f"bytes {at}-"):
            response.close()
            raise Passing("the server sent another range than was asked for")
        try:
            for block in response.stream(_BLOCK, decode_content=False):
                kept = block[skip:]
                skip = max(0, skip - len(block))
                if kept:
                    yield kept
        except (urllib3.exceptions.HTTPError, OSError):
            raise Passing("the connection ended early") from None
        finally:
            response.close()

    def _begin(self, repository: str, about: str) -> str:
        response = self.exchange.request(
            "POST",
            f"/v2/{repository}/blobs/uploads/",
            about=about,
            scopes=(_push(repository),),
            headers={"Content-Length": "0"},
            body=b"",
            expect=(202,),
            patient=False,
        )
        response.close()
        return self._place(response, "", about)

    def _place(self, response: urllib3.BaseHTTPResponse, before: str, about: str) -> str:
        location = response.headers.get("Location") or before
        if not location:
            raise CregraphError(f"{self.host}: {about}: the registry gives no place to upload to")
        return urljoin(self.exchange.base, location)

    def _finish(self, repository: str, place: str, blob: Descriptor, about: str, data: bytes) -> None:
        joined = f"{place}{'&' if urlsplit(place).query else '?'}digest={quote(blob.digest, safe='')}"
        self.exchange.request(
            "PUT",
            joined,
            about=about,
            scopes=(_push(repository),),
            headers={"Content-Type": "application/octet-stream", "Content-Length": str(len(data))},
            body=data,
            expect=(201,),
            patient=False,
        ).close()

    def _stream(self, repository: str, blob: Descriptor, read: Reader, about: str, begun: Begun | None) -> None:
        left = begun.place(repository, blob.digest) if begun else None
        if left is not None:
            place, at = self._resumed(repository, urljoin(self.exchange.base, left), blob, about)
        else:
            place, at = self._begin(repository, about), 0
        failures, piece = 0, blob.size
        while at < blob.size:
            self._note(begun, repository, blob, place)
            end = min(blob.size, at + piece)
            headers = {"Content-Type": "application/octet-stream", "Content-Length": str(end - at)}
            if at or end < blob.size:
                headers["Content-Range"] = f"{at}-{end - 1}"
            try:
                response = self.exchange.request(
                    "PATCH",
                    place,
                    about=about,
                    scopes=(_push(repository),),
                    headers=headers,
                    body=_exactly(read(at), end - at),
                    expect=(202, 204, 413),
                    patient=False,
                )
                response.close()
                if response.status == 413:
                    if piece <= _PIECE:
                        raise CregraphError(f"{self.host}: {about}: refuses pieces of {piece >> 20} MiB (HTTP 413)")
                    piece = _PIECE
                    place, at = self._begin(repository, about), 0
                    continue
                place, at = self._place(response, place, about), end
            except Passing as error:
                failures += 1
                self.exchange.wait(failures, error, about=about)
                before = at
                place, at = self._resumed(repository, place, blob, about)
                failures = 0 if at > before else failures  # a link that breaks now and then brings a large blob there too
        try:
            self._finish(repository, place, blob, about, b"")
        except CregraphError:  # what it refuses whole it would refuse again
            self._note(begun, repository, blob, None)
            raise
        self._note(begun, repository, blob, None)

    def _note(self, begun: Begun | None, repository: str, blob: Descriptor, place: str | None) -> None:
        """Write down where an upload goes on. A place on another host carries its own permission, and is kept nowhere."""
        if begun is None:
            return
        ours = place is not None and urlsplit(place)[:2] == urlsplit(self.exchange.base)[:2]
        begun.note(repository, blob.digest, place[len(self.exchange.base) :] if place and ours else None)

    def _resumed(self, repository: str, place: str, blob: Descriptor, about: str) -> tuple[str, int]:
        """Where to go on: as far as the registry says that it came, or from the start at a new place."""
        try:
            response = self.exchange.request("GET", place, about=about, scopes=(_push(repository),), expect=(204,), patient=False)
            response.close()
            first, dash, last = response.headers.get("Range", "").removeprefix("bytes=").partition("-")
            if dash and first == "0" and last.isdigit() and int(last) < blob.size:
                at = int(last) + 1 if int(last) else 0  # registries say 0-0 for nothing as well
                return self._place(response, place, about), at
        except (Passing, CregraphError):
            pass
        return self._begin(repository, about), 0

    def _cancel(self, repository: str, response: urllib3.BaseHTTPResponse) -> None:
        try:
            place = self._place(response, "", "")
            self.exchange.request(
                "DELETE", place, about="", scopes=(_push(repository),), expect=(204, 202, 200), patient=False
            ).close()
        except (Passing, CregraphError):
            pass  # the registry forgets it by itself


def _pull(repository: str) -> str:
    return f"repository:{repository}:pull"


def _push(repository: str) -> str:
    return f"repository:{repository}:pull,push"


def _exactly(blocks: Iterator[bytes], size: int) -> Iterator[bytes]:
    left = size
    for block in blocks:
        yield block[:left]
        left -= len(block)
        if left <= 0:
            return
    raise CregraphError(f"{left} bytes that were to be sent are missing at their source")

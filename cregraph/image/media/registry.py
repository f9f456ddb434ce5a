"""Client of a registry: manifests and blobs, down and up. Source: OCI Distribution Specification 1.1.

All that is received is checked against its digest. A download that breaks continues where it stopped (`Range`); an upload asks
the registry how far it came. Blobs are streamed, one block in memory at a time. All methods are safe with many threads. They
raise NotInRegistry, Unauthorized and CregraphError; messages name host and repository, never a credential.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

from cregraph.digest import is_sha256
from cregraph.errors import CregraphError
from cregraph.http import Passing
from cregraph.image.media.registry_http import Exchange, NotInRegistry, Unauthorized
from cregraph.image.media.registry_upload import Reader, cancel, push_scope, upload
from cregraph.image.model.manifest import ACCEPT, MANIFEST_LIMIT, Descriptor, Manifest, digest_of, follow
from cregraph.store.push_records import Uploads

if TYPE_CHECKING:
    import urllib3

__all__ = ["NotInRegistry", "Registry", "Unauthorized"]

_BLOCK = 1 << 20
_ACCEPT = {"Accept": ACCEPT}


class Registry:
    """A registry, asked through `exchange`. `Registry.at(host)` makes one."""

    def __init__(self, exchange: Exchange) -> None:
        self.exchange = exchange
        self.host = exchange.host

    @classmethod
    def at(cls, host: str, *, plain_http: bool | None = None) -> Registry:
        """Return the registry at `host[:port]`, with Docker's credentials for it."""
        return cls(Exchange(host, plain_http=plain_http))

    def ping(self) -> None:
        """Raise CregraphError unless the registry answers and accepts our credentials."""
        self.exchange.request("GET", "/v2/", about="the registry", expect=(200,)).close()

    def _request(
        self, method: str, repository: str, path: str, about: str, *scopes: str, **more: Any
    ) -> urllib3.BaseHTTPResponse:
        """Return the answer to a request below `repository`; without `scopes` the right to read it is asked for."""
        scopes = scopes or (_pull(repository),)
        return self.exchange.request(method, f"/v2/{repository}/{path}", about=about, scopes=scopes, **more)

    def manifest(self, repository: str, reference: str) -> bytes:
        """Return the manifest or index at a tag or digest.

        The bytes are checked against the digest, or against the `Docker-Content-Digest` that the registry states for a tag.
        """
        about = f"{repository}{'@' if ':' in reference else ':'}{reference}"

        def attempt() -> tuple[bytes, str]:
            response = self._request("GET", repository, f"manifests/{reference}", about, headers=_ACCEPT, patient=False)
            stated = response.headers.get("Docker-Content-Digest", "")
            return self.exchange.read(response, MANIFEST_LIMIT, about=about), stated

        data, stated = self.exchange.patiently(attempt, about=about)
        found = digest_of(data)
        told = "asked for" if ":" in reference else "stated"
        wanted = reference if ":" in reference else stated if stated.startswith("sha256:") else found
        if found != wanted:
            raise CregraphError(
                f"{self.host}: the manifest of {about} has {found}, but {wanted} was {told}",
                "try again. If the error stays, check the registry and proxies on the way",
            )
        return data

    def image(self, repository: str, reference: str) -> Manifest:
        """Return the manifest of the image for linux/amd64 at a tag or digest. An index is followed."""
        what = f"{self.host}/{repository}{'@' if ':' in reference else ':'}{reference}"
        data = self.manifest(repository, reference)
        return follow(data, lambda one: self.manifest(repository, one.digest), what=what)

    def digest_at(self, repository: str, reference: str) -> str | None:
        """Return the digest that a tag or digest leads to, or None if the registry does not have it."""
        try:
            response = self._request("HEAD", repository, f"manifests/{reference}", f"{repository}:{reference}", headers=_ACCEPT)
        except NotInRegistry:
            return None
        response.close()
        stated = response.headers.get("Docker-Content-Digest", "")
        plain = is_sha256(stated.removeprefix("sha256:")) and stated.startswith("sha256:")
        return stated if plain else digest_of(self.manifest(repository, reference))

    def put_manifest(self, repository: str, reference: str, data: bytes, media_type: str) -> None:
        about = f"{repository}:{reference}"
        typed = {"Content-Type": media_type}
        scope = push_scope(repository)
        path = f"manifests/{reference}"
        response = self._request("PUT", repository, path, about, scope, headers=typed, body=data, expect=(201, 200, 202))
        response.close()
        stated = response.headers.get("Docker-Content-Digest")
        if stated and stated != digest_of(data):
            raise CregraphError(f"{self.host}: {about}: the registry stored {stated}, but cregraph sent {digest_of(data)}")

    def has_blob(self, repository: str, digest: str, *, for_push: bool = False) -> bool:
        """Return whether the repository has the blob. `for_push` asks with the right that the upload will use."""
        try:
            scope = push_scope(repository) if for_push else _pull(repository)
            self._request("HEAD", repository, f"blobs/{digest}", f"{repository}@{digest}", scope).close()
        except NotInRegistry:
            return False
        return True

    def blob(self, repository: str, blob: Descriptor, start: int = 0) -> Iterator[bytes]:
        """Yield the blob's bytes from `start` on, in blocks; continue with a Range request after a break.

        The size is checked, and with `start` 0 the digest. A wrong byte raises CregraphError before the iterator is exhausted,
        so that a caller who read all of it has the right bytes.
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
                "try again. If the error stays, check the registry and proxies on the way",
            )

    def mount(self, repository: str, blob: Descriptor, source: str) -> bool:
        """Mount the blob of repository `source` in `repository` without moving bytes; return False if that is not granted."""
        query = urlencode({"mount": blob.digest, "from": source})
        try:
            empty = {"Content-Length": "0"}
            about, scopes = f"{repository}@{blob.digest}", (_pull(source), push_scope(repository))
            path = f"blobs/uploads/?{query}"
            response = self._request("POST", repository, path, about, *scopes, headers=empty, body=b"", expect=(201, 202))
        except (NotInRegistry, Unauthorized):
            return False  # not to be read there by us: the upload will say what is missing
        response.close()
        if response.status == 202:
            cancel(self.exchange, repository, blob, response)
        return response.status == 201

    def upload(self, repository: str, blob: Descriptor, read: Reader, *, begun: Uploads | None = None) -> None:
        """Send a blob: see `registry_upload.upload`."""
        upload(self.exchange, repository, blob, read, begun)

    def _ranged(self, repository: str, blob: Descriptor, at: int, about: str) -> Iterator[bytes]:
        import urllib3

        ranged = {"Range": f"bytes={at}-"} if at else None
        path = f"blobs/{blob.digest}"
        response = self._request("GET", repository, path, about, headers=ranged, expect=(200, 206), patient=False)
        skip = 0
        if at and response.status == 200:
            skip = at  # the server knows no ranges
        elif at and not response.headers.get("Content-Range", "").startswith(f"bytes {at}-"):
            response.close()
            raise Passing("the server sent another range than requested")
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


def _pull(repository: str) -> str:
    return f"repository:{repository}:pull"

"""Uploads to a registry that were begun: where each goes on, so that the next push does not start it anew. Hints only.

A record of the section `uploads` holds a path on the registry, which the registry gave and forgets by itself; no login.
"""

from __future__ import annotations

from cregraph.digest import sha256
from cregraph.store import Store

__all__ = ["Uploads"]

_SECTION = "uploads"


class Uploads:
    """Those to the registry at `host`. Safe with many threads: each blob has a record of its own."""

    def __init__(self, store: Store, host: str) -> None:
        self._store = store
        self._host = host

    def place(self, repository: str, digest: str) -> str | None:
        """The path at which an upload was begun, if one is known."""
        found = self._store.record(_SECTION, self._key(repository, digest))
        place = found.get("place") if isinstance(found, dict) else None
        return place if isinstance(place, str) and place.startswith("/") and not place.startswith("//") else None

    def note(self, repository: str, digest: str, place: str | None) -> None:
        """It goes on at `place`; None: it is over."""
        key = self._key(repository, digest)
        if place is None:
            self._store.drop_record(_SECTION, key)
        else:
            self._store.put_record(_SECTION, key, {"place": place})

    def _key(self, repository: str, digest: str) -> str:
        return sha256(f"{self._host}/{repository}@{digest}".encode())

"""Unfinished uploads to a registry, which the next push resumes: hints only, in the section `uploads`.

A record holds a path that the registry gave and expires by itself. It holds no login.
"""

from __future__ import annotations

from cregraph.digest import sha256
from cregraph.store import Store

__all__ = ["Uploads"]

_SECTION = "uploads"


class Uploads:
    """Unfinished uploads to the registry at `host`. Threads may use it at the same time: each blob has its own record."""

    def __init__(self, store: Store, host: str) -> None:
        self._store = store
        self._host = host

    def place(self, repository: str, digest: str) -> str | None:
        """Return the path of an unfinished upload, or None."""
        place = self._store.fields(_SECTION, self._key(repository, digest)).get("place")
        return place if isinstance(place, str) and place.startswith("/") and not place.startswith("//") else None

    def note(self, repository: str, digest: str, place: str | None) -> None:
        """Record that the upload continues at `place`, or with None that it is over."""
        key = self._key(repository, digest)
        if place is None:
            self._store.drop_record(_SECTION, key)
        else:
            self._store.put_record(_SECTION, key, {"place": place})

    def _key(self, repository: str, digest: str) -> str:
        return sha256(f"{self._host}/{repository}@{digest}".encode())

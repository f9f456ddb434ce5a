"""Hints for pushes: blobs that this store pushed (section `pushed`), and unfinished uploads (section `uploads`).

A registry may have deleted the blobs since, so a push asks it. `plan` estimates from these hints, and a push asks the registry to
mount blobs from its other repositories. The record of an upload holds a path that the registry gave, and no login.
"""

from __future__ import annotations

from collections.abc import Iterable

from cregraph.digest import is_sha256, sha256
from cregraph.store import Store

__all__ = ["Uploads", "elsewhere", "pushed_to", "remember_pushed"]

_PUSHED = "pushed"
_UPLOADS = "uploads"
#: The number of blobs that are recorded for a repository; the latest stay.
_MOST = 4000


def remember_pushed(store: Store, host: str, repository: str, digests: Iterable[str]) -> None:
    """Record that the repository has the blobs `digests` (`sha256:…`)."""
    fresh = dict.fromkeys(digests)
    kept = [digest for digest in _blobs(store, _key(host, repository)) if digest not in fresh]
    value = {"host": host, "repository": repository, "blobs": [*kept, *fresh][-_MOST:]}
    store.put_record(_PUSHED, _key(host, repository), value)


def pushed_to(store: Store, host: str, repository: str) -> frozenset[str]:
    """Return the digests of blobs that were pushed to the repository."""
    return frozenset(_blobs(store, _key(host, repository)))


def elsewhere(store: Store, host: str, repository: str) -> dict[str, str]:
    """Return blobs that were pushed to other repositories of the registry: digest to repository."""
    found: dict[str, str] = {}
    for path in sorted((store.root / _PUSHED).glob("*/*.json")):
        record = store.fields(_PUSHED, path.stem)
        name = record.get("repository")
        if record.get("host") == host and isinstance(name, str) and name != repository:
            found |= dict.fromkeys(_blobs(store, path.stem), name)
    return found


class Uploads:
    """Unfinished uploads to the registry at `host`. Threads may use it at the same time: each blob has its own record."""

    def __init__(self, store: Store, host: str) -> None:
        self._store = store
        self._host = host

    def place(self, repository: str, digest: str) -> str | None:
        """Return the path of an unfinished upload, or None."""
        place = self._store.fields(_UPLOADS, self._key(repository, digest)).get("place")
        return place if isinstance(place, str) and place.startswith("/") and not place.startswith("//") else None

    def note(self, repository: str, digest: str, place: str | None) -> None:
        """Record that the upload continues at `place`, or with None that it is over."""
        key = self._key(repository, digest)
        if place is None:
            self._store.drop_record(_UPLOADS, key)
        else:
            self._store.put_record(_UPLOADS, key, {"place": place})

    def _key(self, repository: str, digest: str) -> str:
        return _key(self._host, f"{repository}@{digest}")


def _key(host: str, repository: str) -> str:
    return sha256(f"{host}/{repository}".encode())


def _blobs(store: Store, key: str) -> list[str]:
    blobs = store.fields(_PUSHED, key).get("blobs")
    listed = blobs if isinstance(blobs, list) else []
    return [blob for blob in listed if isinstance(blob, str) and is_sha256(blob.removeprefix("sha256:"))]

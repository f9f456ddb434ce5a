"""Repositories that layers of this store were pushed to: hints, one record a repository, in the section `pushed`.

A registry may have deleted the blobs since, so a push asks it. `plan` estimates from these hints, and a push asks the registry to
mount blobs from its other repositories.
"""

from __future__ import annotations

from collections.abc import Iterable

from cregraph.digest import is_sha256, sha256
from cregraph.store import Store

__all__ = ["elsewhere", "pushed_to", "remember_pushed"]

_SECTION = "pushed"
#: The number of blobs that are recorded for a repository; the latest stay.
_MOST = 4000


def remember_pushed(store: Store, host: str, repository: str, digests: Iterable[str]) -> None:
    """Record that the repository has the blobs `digests` (`sha256:…`)."""
    fresh = dict.fromkeys(digests)
    kept = [digest for digest in _blobs(store, _key(host, repository)) if digest not in fresh]
    value = {"host": host, "repository": repository, "blobs": [*kept, *fresh][-_MOST:]}
    store.put_record(_SECTION, _key(host, repository), value)


def pushed_to(store: Store, host: str, repository: str) -> frozenset[str]:
    """Return the digests of blobs that were pushed to the repository."""
    return frozenset(_blobs(store, _key(host, repository)))


def elsewhere(store: Store, host: str, repository: str) -> dict[str, str]:
    """Return blobs that were pushed to other repositories of the registry: digest to repository."""
    found: dict[str, str] = {}
    for path in sorted((store.root / _SECTION).glob("*/*.json")):
        record = store.fields(_SECTION, path.stem)
        name = record.get("repository")
        if record.get("host") == host and isinstance(name, str) and name != repository:
            found |= dict.fromkeys(_blobs(store, path.stem), name)
    return found


def _key(host: str, repository: str) -> str:
    return sha256(f"{host}/{repository}".encode())


def _blobs(store: Store, key: str) -> list[str]:
    blobs = store.fields(_SECTION, key).get("blobs")
    listed = blobs if isinstance(blobs, list) else []
    return [blob for blob in listed if isinstance(blob, str) and is_sha256(blob.removeprefix("sha256:"))]

"""The lock files that a store was used with, and the last build of each: records in the section `projects`.

The path of a lock file is known to this machine only, so it is recorded in the store and nowhere else.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from cregraph.digest import Json, is_sha256, sha256
from cregraph.store import Store
from cregraph.store.listing import records

__all__ = ["Built", "Known", "known", "known_of", "record_of", "remember"]

_SECTION = "projects"


@dataclass(frozen=True, kw_only=True, slots=True)
class Built:
    """A finished build: the sha256 of its lock's text (an object of the store), the key and the digest of its image."""

    text: str
    key: str
    digest: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Known:
    """A lock file that this store was used with."""

    lock: Path
    built: Built | None = None


def remember(store: Store, lock: Path, *, built: Built | None = None) -> None:
    """Record that `lock` is used with `store`, and its last build. Without `built`, an existing record stays."""
    value: dict[str, Json] = {"lock": str(lock.absolute())}
    if built is not None:
        value["built"] = {"text": built.text, "key": built.key, "digest": built.digest}
    elif known_of(store, lock) is not None:
        return
    store.put_record(*record_of(lock), value)


def known_of(store: Store, lock: Path) -> Known | None:
    return _read(store, record_of(lock)[1])


def known(store: Store) -> tuple[Known, ...]:
    """Return all recorded lock files, sorted by path, also deleted ones."""
    found = (_read(store, entry.name) for entry in records(store, _SECTION))
    return tuple(sorted((one for one in found if one is not None), key=lambda one: one.lock))


def record_of(lock: Path) -> tuple[str, str]:
    """Return section and key of the record of one lock file."""
    return _SECTION, sha256(str(lock.absolute()).encode("utf-8", "surrogateescape"))


def _read(store: Store, key: str) -> Known | None:
    record = store.fields(_SECTION, key)
    lock, found, built = record.get("lock"), record.get("built"), None
    if isinstance(found, dict) and all(is_sha256(found.get(name)) for name in ("text", "key")):
        built = Built(text=str(found["text"]), key=str(found["key"]), digest=str(found.get("digest", "")))
    return Known(lock=Path(lock), built=built) if isinstance(lock, str) else None

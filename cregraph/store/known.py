"""Which locks a store was used with, and what was last built of each: one record a lock file, in the section `projects`.

A lock file's path is this machine's business, so it stands in the store and nowhere else. `lock` holds the path, `built` what the
last finished build of that file was made from.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from cregraph.digest import is_sha256, sha256
from cregraph.store import Store
from cregraph.store.object_store import is_key

__all__ = ["Built", "Known", "known", "known_of", "record_of", "remember"]

_SECTION = "projects"


@dataclass(frozen=True, kw_only=True, slots=True)
class Built:
    """A finished build: the sha256 of its lock's text (an object of the store), the image's key and its digest."""

    text: str
    key: str
    digest: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Known:
    """A lock file that this store was used with."""

    lock: Path
    built: Built | None = None


def remember(store: Store, lock: Path, *, built: Built | None = None) -> None:
    """Note that `lock` is used with `store`, and what was built of it; without `built` an older note stays."""
    path = lock.absolute()
    if built is None:
        before = known_of(store, path)
        if before is not None:
            return
    value: dict[str, object] = {"lock": str(path)}
    if built is not None:
        value["built"] = {"text": built.text, "key": built.key, "digest": built.digest}
    store.put_record(_SECTION, _key(path), value)


def known_of(store: Store, lock: Path) -> Known | None:
    """What is known of one lock file, or None."""
    return _read(store.record(_SECTION, _key(lock.absolute())))


def known(store: Store) -> tuple[Known, ...]:
    """All lock files that this store was used with, by path; those that are gone from disk too."""
    keys = (path.stem for path in (store.root / _SECTION).glob("*/*.json"))
    found = (_read(store.record(_SECTION, key)) for key in keys if is_key(_SECTION, key))
    return tuple(sorted((one for one in found if one is not None), key=lambda one: one.lock))


def record_of(lock: Path) -> tuple[str, str]:
    """Section and key of the record of one lock file."""
    return _SECTION, _key(lock.absolute())


def _key(path: Path) -> str:
    return sha256(str(path).encode("utf-8", "surrogateescape"))


def _read(record: object) -> Known | None:
    if not isinstance(record, dict) or not isinstance(record.get("lock"), str):
        return None
    found = record.get("built")
    built = None
    if isinstance(found, dict) and all(is_sha256(found.get(name)) for name in ("text", "key")):
        built = Built(text=found["text"], key=found["key"], digest=str(found.get("digest", "")))
    return Known(lock=Path(record["lock"]), built=built)

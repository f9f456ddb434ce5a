"""Removal of what no lock needs from a store (docs/adr/0015).

`collect` runs under the gc lock. Registered processes continue, so files that are newer than their registration stay, and
a file is examined and removed under one exclusive commit lock. Records are removed before the objects that they name: a
collection that is killed leaves no record that names a missing object.
"""

from __future__ import annotations

import contextlib
import fcntl
from collections import Counter
from collections.abc import Container, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from cregraph.errors import CregraphError
from cregraph.store import Store
from cregraph.store.listing import Entry, files, measure, named, objects, records, sections, trees
from cregraph.store.users import User

__all__ = ["Collected", "Reached", "collect", "unreached"]

#: Sections whose keys follow from locks. In a section that is in no list everything stays, and every object that it names.
RECORDS = frozenset({"segments", "layers", "settled", "tasks", "images", "projects"})
TREES = frozenset({"roots", "environments", "segment-trees", "result-trees", "results"})
_DAY = 86400
#: Sections of hints, whose keys follow from no lock: unused records are removed after so many seconds if nobody is registered.
_HINTS = {
    "history": 180 * _DAY,
    "throughput": 180 * _DAY,
    "pushed": 180 * _DAY,
    "task-layers": 30 * _DAY,
    "container-images": 30 * _DAY,
    "uploads": 14 * _DAY,
}
#: Sections whose records name blobs of other systems, so they keep no object.
_FOREIGN = frozenset({"history", "throughput", "pushed", "uploads", "container-images"})
_BATCH = 64  # entries that are removed under one commit lock
_TICK = 0.1  # seconds by which the time of a file may lag: file systems keep time in steps


@dataclass(frozen=True, kw_only=True, slots=True)
class Reached:
    """The content that must stay, with every object that a record in `records` names.

    `records` and `trees` are pairs of section and key, `logs` are file names.
    """

    objects: frozenset[str] = frozenset()
    records: frozenset[tuple[str, str]] = frozenset()
    trees: frozenset[tuple[str, str]] = frozenset()
    logs: frozenset[str] = frozenset()

    def __or__(self, other: Reached) -> Reached:
        return Reached(
            objects=self.objects | other.objects,
            records=self.records | other.records,
            trees=self.trees | other.trees,
            logs=self.logs | other.logs,
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class Collected:
    """The number of removed entries by section, and the bytes that this frees."""

    removed: Mapping[str, int] = field(default_factory=dict)
    freed: int = 0


def collect(store: Store, reached: Reached, users: Iterable[User] = (), *, older: float = 0, dry: bool = False) -> Collected:
    """Remove what is not in `reached` and was not used for `older` seconds; with `dry` only count it.

    The caller holds `users.gc_lock`, which gave `users`, and computed `reached` under it. Files that are newer than the first
    registration stay: their records may not exist yet.
    """
    users = tuple(users)
    with store.scratch_folder() as folder:
        now = folder.stat().st_mtime  # the clock of the store's file system
    began = min([now, *(user.since for user in users)]) - _TICK
    going = [entry for entry in unreached(store, reached, now=now, older=older, idle=not users) if entry.put < began]
    _, freed = measure(going, freed=True)
    gone = going if dry else _remove(store, going, began)
    if not dry:
        store.sweep()
        _locks(store)
    return Collected(removed=Counter(entry.section for entry in gone), freed=freed)


def unreached(store: Store, reached: Reached, *, now: float, older: float = 0, idle: bool = True) -> Iterator[Entry]:
    """Yield what may be removed, records first. `idle` says that no process is registered."""
    limit = now - older
    kept = set(reached.objects)
    for section in sections(store):
        for entry in records(store, section):
            if _is_unreached(entry, reached, now, older, idle=idle):
                yield entry
            elif section not in _FOREIGN:
                kept |= named(entry)
    for section in sorted(TREES):
        yield from _unused(trees(store, section), {name for own, name in reached.trees if own == section}, limit)
    yield from _unused(objects(store), kept, limit)
    yield from _unused(files(store, "partial"), kept, limit)
    yield from _unused(files(store, "logs"), reached.logs, limit)
    yield from _unused(files(store, "quarantine"), (), limit)


def _unused(entries: Iterable[Entry], kept: Container[str], limit: float) -> Iterator[Entry]:
    return (entry for entry in entries if entry.name not in kept and entry.used <= limit)


def _is_unreached(record: Entry, reached: Reached, now: float, older: float, *, idle: bool) -> bool:
    if record.section in _HINTS:
        return idle and record.used <= now - max(older, _HINTS[record.section])
    return record.section in RECORDS and (record.section, record.name) not in reached.records and record.used <= now - older


def _remove(store: Store, going: list[Entry], began: float) -> list[Entry]:
    """Remove `going` and return what was removed: entries that were replaced since stay."""
    gone: list[Entry] = []
    for start in range(0, len(going), _BATCH):
        with (
            store.scratch_folder() as aside,
            store.commit_lock(exclusive=True),
        ):  # the content of `aside` is deleted after the lock
            for entry in going[start : start + _BATCH]:
                with contextlib.suppress(FileNotFoundError):
                    info = entry.path.lstat()
                    if max(info.st_mtime, info.st_ctime) < began:
                        _take(entry.path, aside / str(len(gone)))
                        gone.append(entry)
    return gone


def _locks(store: Store) -> None:
    """Remove lock files that nobody holds. Locks of tasks stay: a process that waits for one does not look for its file again."""
    for path in (store.root / "locks").glob("*"):
        if path.name in ("gc", "commit") or path.name.startswith("task-"):
            continue
        with contextlib.suppress(OSError), path.open("a") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            path.unlink()


def _take(path: Path, aside: Path) -> None:
    """Delete a file, or move a tree to `aside` for deletion after the commit lock is free."""
    try:
        if path.is_dir() and not path.is_symlink():
            path.replace(aside)
        else:
            path.unlink()
    except FileNotFoundError:
        raise
    except OSError as error:
        raise CregraphError(
            f"`{path}` cannot be removed: {error.strerror}",
            hint="run the command as the owner of the store",
        ) from None

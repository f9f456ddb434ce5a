"""Removing from a store what nothing reaches (docs/adr/0015).

`collect` is called in the moment that `use.alone` gives: nobody enters, and what those inside need is reached. They go on
working, so what is put in place after the moment began stays, whatever it is, and an object is looked at and removed in one
step. Records go before the objects that they name: a collection that is killed leaves nothing that names what is gone.
"""

from __future__ import annotations

import contextlib
import fcntl
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from cregraph.errors import CregraphError
from cregraph.store import Store
from cregraph.store.atomic_file import remove_tree
from cregraph.store.listing import Entry, files, measure, named, objects, records, sections, trees
from cregraph.store.users import User

__all__ = ["Collected", "Reached", "collect", "unreached"]

#: Sections of which this version knows what reaches a key. Of others everything stays, and every object named there.
RECORDS = frozenset({"segments", "layers", "settled", "tasks", "images", "projects"})
TREES = frozenset({"roots", "environments", "segment-trees", "result-trees", "results"})
_DAY = 86400
#: Sections that only help later builds, of which no lock says the keys: what nobody touched for so long (seconds) goes, while
#: nobody is inside.
_HELP = {
    "history": 180 * _DAY,
    "throughput": 180 * _DAY,
    "pushed": 180 * _DAY,
    "task-layers": 30 * _DAY,
    "uploads": 14 * _DAY,
}
#: Of these, those whose records tell of blobs elsewhere: an object that they name is not kept for it.
_ELSEWHERE = frozenset({"history", "throughput", "pushed", "uploads"})
_AT_ONCE = 64  # removed in one moment, in which nobody can put anything in place


@dataclass(frozen=True, kw_only=True, slots=True)
class Reached:
    """What must stay. `records` and `trees` are pairs of section and key, `logs` names of files; objects that a record names
    stay with it."""

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
    """How many entries were removed (or would be) of each section, and the bytes that are free for it."""

    removed: Mapping[str, int] = field(default_factory=dict)
    freed: int = 0


def collect(store: Store, reached: Reached, users: Iterable[User] = (), *, older: float = 0, dry: bool = False) -> Collected:
    """Remove what `reached` does not hold and nobody touched for `older` seconds; with `dry` only say what.

    Must be called within `use.alone`, which gave `users`, and after which `reached` was found. What was put in place since the
    first of them entered stays: its record may not be written yet.
    """
    users = tuple(users)
    now = _now(store)
    began = min([now, *(user.since for user in users)]) - _TICK
    going = [entry for entry in unreached(store, reached, now=now, older=older, idle=not users) if entry.put < began]
    freed = measure(going, freed=True).size
    by_section: dict[str, list[Entry]] = {}
    for entry in going if dry else _remove(store, going, began):
        by_section.setdefault(entry.section, []).append(entry)
    if not dry:
        store.sweep()
        _locks(store)
    return Collected(removed={name: len(entries) for name, entries in by_section.items()}, freed=freed)


#: Seconds by which the clock of a file may be behind: file systems keep time in steps.
_TICK = 0.1


def unreached(store: Store, reached: Reached, *, now: float, older: float = 0, idle: bool = True) -> Iterator[Entry]:
    """What may go, records first. What a record that stays names, stays. `idle`: nobody is inside."""
    limit = now - older
    stays = set(reached.objects)
    for section in sections(store):
        for entry in records(store, section):
            if section in _HELP:
                goes = idle and entry.used <= now - max(older, _HELP[section])
            else:
                goes = section in RECORDS and (section, entry.name) not in reached.records and entry.used <= limit
            if goes:
                yield entry
            elif section not in _ELSEWHERE:
                stays |= named(entry)
        if section in TREES:
            for entry in trees(store, section):
                if (section, entry.name) not in reached.trees and entry.used <= limit:
                    yield entry
    for entry in objects(store):
        if entry.name not in stays and entry.used <= limit:
            yield entry
    for entry in files(store, "partial"):
        if entry.name not in stays and entry.used <= limit:
            yield entry
    for entry in files(store, "logs"):
        if entry.name not in reached.logs and entry.used <= limit:
            yield entry
    for entry in files(store, "quarantine"):
        if entry.used <= limit:
            yield entry


def _remove(store: Store, going: list[Entry], began: float) -> list[Entry]:
    """Remove them, but for what was put there anew. Those that went are returned."""
    gone: list[Entry] = []
    for start in range(0, len(going), _AT_ONCE):
        folders: list[Path] = []
        with store.scratch_folder() as aside:
            with store.commit_lock(exclusive=True):
                for entry in going[start : start + _AT_ONCE]:
                    with contextlib.suppress(FileNotFoundError):
                        info = entry.path.lstat()
                        if max(info.st_mtime, info.st_ctime) < began:
                            _take(entry.path, aside, folders)
                            gone.append(entry)
            for folder in folders:
                remove_tree(folder)
    return gone


def _locks(store: Store) -> None:
    """Remove the files of locks that nobody holds. Those of tasks stay: who waits for one does not look whether it is there."""
    for path in (store.root / "locks").glob("*"):
        if path.name in ("gc", "commit") or path.name.startswith("task-"):
            continue
        with contextlib.suppress(OSError), path.open("a") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            path.unlink()


def _take(path: Path, aside: Path, folders: list[Path]) -> None:
    """A file is removed; a tree is moved aside in one step, and removed when others may go on."""
    try:
        if path.is_dir() and not path.is_symlink():
            folder = aside / str(len(folders))
            path.replace(folder)
            folders.append(folder)
        else:
            path.unlink()
    except FileNotFoundError:
        raise
    except OSError as error:
        raise CregraphError(
            f"`{path}` cannot be removed: {error.strerror}",
            hint="run it as who owns the store; what was removed before is gone",
        ) from None


def _now(store: Store) -> float:
    """The time, by the clock of the store's file system."""
    with store.scratch_folder() as folder:
        return folder.stat().st_mtime

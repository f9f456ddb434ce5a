"""The content of a store in groups for people: number, size, how much of it locks reach, and how long it was unused."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from cregraph.store import Store
from cregraph.store.gc.collect import Reached, unreached
from cregraph.store.listing import Entry, files, folders, measure, objects, records, sections, trees

__all__ = ["Usage", "inventory"]

#: Groups of objects: the section and fields of the records that name them.
_MADE = {
    "segments": ("segments", ("object", "index")),
    "layers": ("layers", ("digest",)),
    "task results": ("tasks", ("sha256",)),
    "task layers": ("task-layers", ("sha256",)),
}
_FOLDERS = {"logs": "logs", "partial": "downloads cut off", "quarantine": "quarantine"}


@dataclass(frozen=True, kw_only=True, slots=True)
class Usage:
    """A group: number and bytes, in total and of what known locks reach.

    `oldest` is the earliest last use in seconds since 1970, or None for an empty group.
    """

    name: str
    count: int
    size: int
    reached: int
    reached_size: int
    oldest: float | None


def inventory(store: Store, reached: Reached | None) -> tuple[Usage, ...]:
    """Return every group, also empty ones. Without `reached`, nothing counts as reached."""
    idle = {entry.path for entry in unreached(store, reached, now=math.inf)} if reached is not None else None
    made = {object: kind for kind, (section, fields) in _MADE.items() for object in _named(store, section, fields)}
    by_kind: dict[str, list[Entry]] = {kind: [] for kind in ("artifacts", *_MADE, "trees", *_FOLDERS.values(), "records")}
    for entry in objects(store):
        by_kind[made.get(entry.name, "artifacts")].append(entry)
    for section in sections(store):
        by_kind["trees"] += trees(store, section)
        by_kind["records"] += records(store, section)
    for folder, kind in _FOLDERS.items():
        by_kind[kind] += files(store, folder)
    by_kind["indexes"] = list(folders(store, "repodata", "uv-cache"))
    return tuple(_usage(name, entries, idle) for name, entries in by_kind.items())


def _usage(name: str, entries: list[Entry], idle: set[Path] | None) -> Usage:
    used = [entry for entry in entries if idle is not None and entry.path not in idle]
    count, size = measure(entries)
    reached, reached_size = measure(used)
    return Usage(
        name=name,
        count=count,
        size=size,
        reached=reached,
        reached_size=reached_size,
        oldest=min((entry.used for entry in entries), default=None),
    )


def _named(store: Store, section: str, fields: tuple[str, ...]) -> Iterator[str]:
    for entry in records(store, section):
        record = store.fields(section, entry.name)
        yield from (str(record.get(field)).removeprefix("sha256:") for field in fields)

"""What a plan says of every path of its image, as far as it is known here: of segments that the store holds every byte."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from cregraph.digest import sha256
from cregraph.image.model import segment as segments_of
from cregraph.image.model.preamble import preamble
from cregraph.image.model.segment import Row, ancestors
from cregraph.lock.base_facts import BaseFacts, DirFact
from cregraph.plan.parts import Segment
from cregraph.plan.planner import Plan
from cregraph.store import Store

__all__ = ["Expected", "expected", "places"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Expected:
    """`rows` by absolute path, hard links with the content that they lead to; `owners` whose they are, `by_key` the reverse.

    `known` are the segments (by key) of which every path is in `rows`; of the others only packages can be held against the lock.
    """

    rows: Mapping[str, Row] = field(default_factory=dict)
    owners: Mapping[str, Segment] = field(default_factory=dict)
    by_key: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    known: frozenset[str] = frozenset()
    facts: BaseFacts
    plan: Plan

    def paths_of(self, key: str) -> tuple[str, ...]:
        """The paths of the segment of that key."""
        return self.by_key.get(key, ())

    def directories(self, paths: Mapping[str, object]) -> dict[str, DirFact]:
        """The directories above `paths`, as they must be."""
        needed = {parent for path in paths for parent in ancestors(path.lstrip("/"))}
        return {
            "/" + d.path: DirFact(mode=d.mode, uid=d.uid, gid=d.gid, mtime=d.mtime)
            for d in preamble(needed, self.facts, self.plan.planner.owners)
        }


def expected(plan: Plan, facts: BaseFacts, store: Store) -> Expected:
    """What the image of `plan` must hold over its base."""
    rows: dict[str, Row] = {}
    owners: dict[str, Segment] = {}
    paths: dict[str, tuple[str, ...]] = {}
    for key, segment in plan.segments.items():
        found = _rows(segment, store)
        if found is None:
            continue
        paths[key] = tuple("/" + row.path for row in found)
        by_path = {row.path: row for row in found}
        for row in found:
            content = by_path.get(row.what, row) if row.type == "hardlink" else row
            rows["/" + row.path] = Row(row.path, content.type, content.mode, row.uid, row.gid, content.size, content.what)
            owners["/" + row.path] = segment
    return Expected(rows=rows, owners=owners, by_key=paths, known=frozenset(paths), facts=facts, plan=plan)


def _rows(segment: Segment, store: Store) -> tuple[Row, ...] | None:
    place = segment.place
    if place.get("environment"):  # the empty file by which conda knows an environment
        return (Row(f"{str(place['prefix']).strip('/')}/conda-meta/history", "file", 0o644, 0, 0, 0, sha256(b"")),)
    if segment.kind == "file":  # needs no store
        path, uid, gid, mode = str(place["at"]).lstrip("/"), place["uid"], place["gid"], place.get("mode", 0o644)
        if "link" in place:
            return (Row(path, "symlink", 0o777, uid, gid, 0, place["link"]),)
        if "text" in place:
            data = str(place["text"]).encode()
            return (Row(path, "file", mode, uid, gid, len(data), sha256(data)),)
        if segment.artifact is not None:
            return (Row(path, "file", mode, uid, gid, segment.artifact.size, segment.artifact.sha256),)
    record = segments_of.read(store, segment.key)
    return None if record is None else segments_of.index(store, record)


def places(segment: Segment) -> str | None:
    """The folder or file that a segment fills alone, or None where it shares its folder with others."""
    at = segment.place.get("at")
    return str(at) if isinstance(at, str) else None

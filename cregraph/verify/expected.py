"""The paths that an image must hold over its base, as far as the plan and the store tell them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from cregraph.digest import sha256
from cregraph.image.model import segment as segments_of
from cregraph.image.model.preamble import preamble
from cregraph.image.model.segment import Row
from cregraph.image.model.tar_entry import Entry, ancestors
from cregraph.kinds import KINDS
from cregraph.lock.base_facts import BaseFacts, DirFact
from cregraph.plan.parts import Segment
from cregraph.plan.planner import Plan
from cregraph.store import Store

__all__ = ["Expected", "expected_of"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Expected:
    """The rows by absolute path, and the segment that owns each. Hard links have the row of their file.

    `known` are the keys of segments whose paths are all in `rows`. For other segments only the packages can be compared.
    """

    rows: Mapping[str, Row] = field(default_factory=dict)
    owners: Mapping[str, Segment] = field(default_factory=dict)
    known: frozenset[str] = frozenset()
    facts: BaseFacts
    plan: Plan

    def directories(self, paths: Iterable[str]) -> dict[str, DirFact]:
        """Return the directories above `paths`, as they must be."""
        needed = {parent for path in paths for parent in ancestors(path.lstrip("/"))}
        return {f"/{path}": fact for path, fact in preamble(needed, self.facts, self.plan.planner.owners).items()}


def expected_of(plan: Plan, facts: BaseFacts, store: Store) -> Expected:
    rows: dict[str, Row] = {}
    owners: dict[str, Segment] = {}
    known: set[str] = set()
    for key, segment in plan.segments.items():
        found = _rows(segment, store)
        if found is None:
            continue
        known.add(key)
        by_path = {row.path: row for row in found}
        for row in found:
            content = by_path.get(row.what, row) if row.type == "hardlink" else row
            rows["/" + row.path] = Row(row.path, content.type, content.mode, row.uid, row.gid, content.size, content.what)
            owners["/" + row.path] = segment
    return Expected(rows=rows, owners=owners, known=frozenset(known), facts=facts, plan=plan)


class _BytesNeeded(Exception):
    pass


class _NoBytes:
    """The input of a segment whose bytes are not available."""

    def path(self) -> Path:
        raise _BytesNeeded

    def scratch(self) -> IO[bytes]:
        raise _BytesNeeded


def _rows(segment: Segment, store: Store) -> tuple[Row, ...] | None:
    """Return the rows of a segment from the plan alone if its kind can tell them, else from the store; None if unknown."""
    try:
        return tuple(_row(entry) for entry in KINDS[segment.kind].entries(segment, _NoBytes()))
    except _BytesNeeded:
        record = segments_of.read(store, segment.key)
        return None if record is None else segments_of.index(store, record)


def _row(entry: Entry) -> Row:
    what = entry.link or entry.sha256 or sha256(b"".join(entry.chunks() if entry.chunks else ()))
    return Row(entry.path, entry.type, entry.mode, entry.uid, entry.gid, entry.size, what)

"""Layers: a directory preamble, segments in order, an end marker; each a run of gzip members joined by copying.

function  scope        result
apart     one layer    a segment that lists a path of it again, with equal bytes, gets a layer of its own
assemble  one layer    an object in the store, and a record in its section `layers`
settle    all layers   no path has two owners, or they hold equal bytes in different layers
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass

from cregraph.digest import is_sha256, key_of
from cregraph.errors import CregraphError
from cregraph.image.model import tar_writer as tar
from cregraph.image.model.gzip_members import compress
from cregraph.image.model.preamble import check, preamble
from cregraph.image.model.segment import Row, SegmentRecord, directories, index, members_of
from cregraph.lock.base_facts import BaseFacts
from cregraph.plan.layer_split import LayerPlan, Planner
from cregraph.plan.parts import Segment
from cregraph.store import Store

__all__ = ["MEDIA_TYPE", "LayerRecord", "apart", "assemble", "read", "settle", "settled_key"]

MEDIA_TYPE = "application/vnd.oci.image.layer.v1.tar+gzip"


@dataclass(frozen=True, kw_only=True, slots=True)
class LayerRecord:
    """A layer in the store. `digest` (`sha256:…`) is over the `size` compressed bytes, `diff_id` over the uncompressed ones.

    `segments` are the sha256 of the segments' objects that it was made from.
    """

    key: str
    digest: str
    diff_id: str
    size: int
    media_type: str
    segments: tuple[str, ...]

    @property
    def object(self) -> str:
        """Return the sha256 of its bytes: their name in the store."""
        return self.digest.removeprefix("sha256:")


def read(store: Store, key: str) -> LayerRecord | None:
    """Return the layer of `key`, or None if it must be made: there is no sound record, or its object is gone."""
    found = store.record("layers", key)
    if not isinstance(found, dict):
        return None
    try:
        record = LayerRecord(**{**found, "segments": tuple(found["segments"])})
        sound = (
            record.key == key
            and record.media_type == MEDIA_TYPE
            and all(is_sha256(text.removeprefix("sha256:")) for text in (record.digest, record.diff_id))
            and store.path_of(record.object).stat().st_size == record.size
        )
    except (TypeError, KeyError, AttributeError, OSError):
        return None
    return record if sound else None


def assemble(
    plan: LayerPlan, records: Mapping[str, SegmentRecord], facts: BaseFacts, planner: Planner, store: Store
) -> LayerRecord:
    """Write the layer of `plan`, unless the store has it; return its record. `records` holds its segments by key.

    Compressed segments are copied; they are inflated only for the diff id, and every byte is verified.

    Raises CregraphError, and keeps nothing, if a path is listed twice, replaces something of the base or runs through a link of
    the base, or if a segment in the store is damaged.
    """
    segments = [records[s.key] for s in plan.segments]
    objects = tuple(s.object for s in segments)
    known = read(store, plan.key)
    if known and known.segments == objects:
        return known
    needed = _paths(plan, segments, facts, store)
    folders = preamble(needed, facts, planner.owners_of(plan.segments))
    heads = b"".join(tar.header(path=path, type="directory", **asdict(fact)) for path, fact in folders.items())
    diff = hashlib.sha256(heads)
    with store.writer() as out:
        for member in compress([heads]):
            out.write(member)
        for segment in segments:
            for member, content in members_of(store, segment):
                out.write(member)
                diff.update(content)
        diff.update(tar.END)
        for member in compress([tar.END]):
            out.write(member)
    record = LayerRecord(
        key=plan.key,
        digest=f"sha256:{out.sha256}",
        diff_id=f"sha256:{diff.hexdigest()}",
        size=out.size,
        media_type=MEDIA_TYPE,
        segments=objects,
    )
    store.put_record("layers", plan.key, asdict(record))
    return record


def apart(
    plan: LayerPlan, records: Mapping[str, SegmentRecord], planner: Planner, store: Store
) -> tuple[LayerPlan, tuple[LayerPlan, ...]]:
    """Return the layer as it can be assembled, and a layer for each segment that lists a path of it again."""
    seen: set[str] = set()
    again = set()
    for segment in plan.segments:
        paths = {row.path for row in index(store, records[segment.key])}
        if not seen.isdisjoint(paths):
            again.add(segment.key)
        seen |= paths
    return _parted(plan, again, planner)


def settle(
    layers: Sequence[LayerPlan], records: Mapping[str, SegmentRecord], planner: Planner, store: Store
) -> tuple[LayerPlan, ...]:
    """Return the layers with at most one entry for each path in a layer. Every build does this before it composes an image.

    Two segments may list the same path only as the same entry: equal bytes, mode and owner. In different layers both stay;
    within one layer the later (by name and key) gets a layer of its own, at the end. The outcome
    is recorded, so that indexes are read once for a set of layers.

    Raises:
        CregraphError: Two segments list a path with other bytes, or as file and directory; or there are too many layers.
    """
    key = settled_key(layers)
    moved = store.record("settled", key)
    if not (isinstance(moved, list) and all(isinstance(item, str) for item in moved)):
        moved = _to_move(layers, records, store)
        store.put_record("settled", key, moved)
    if not moved:
        return tuple(layers)
    settled = []
    alone: list[LayerPlan] = []
    for plan in layers:
        rest, others = _parted(plan, moved, planner)
        settled.append(rest)
        alone += others
    settled += alone
    planner.check_room(settled)
    return tuple(settled)


def settled_key(layers: Sequence[LayerPlan]) -> str:
    """Return the key of the outcome of `settle` in the store's section `settled`."""
    return key_of({"settled": [plan.key for plan in layers]})


def _parted(plan: LayerPlan, moved: Collection[str], planner: Planner) -> tuple[LayerPlan, tuple[LayerPlan, ...]]:
    stay = [s for s in plan.segments if s.key not in moved]
    rest = plan if len(stay) == len(plan.segments) else planner.layer(plan.name, stay)
    return rest, tuple(planner.layer(f"{s.group} {s.name}", [s]) for s in plan.segments if s.key in moved)


def _to_move(layers: Sequence[LayerPlan], records: Mapping[str, SegmentRecord], store: Store) -> list[str]:
    """Return the keys of the segments that cannot stay in their layer, sorted."""
    owners: dict[str, tuple[Segment, Row]] = {}
    needed: dict[str, Segment] = {}
    move: set[str] = set()
    for plan in layers:
        here: set[str] = set()
        for segment in plan.segments:
            rows = index(store, records[segment.key])
            for path in directories(rows):
                needed.setdefault(path, segment)
            for row in rows:
                other, first = owners.setdefault(row.path, (segment, row))
                if first is not row and first != row:
                    raise _two_owners(row.path, other, segment, _difference(first, row))
                if row.path in here:
                    move.add(segment.key)
            here.update(row.path for row in rows)
    for path in sorted(owners.keys() & needed.keys()):
        raise _two_owners(path, owners[path][0], needed[path], "a file or link of one, a directory of the other")
    return sorted(move)


def _paths(plan: LayerPlan, segments: Sequence[SegmentRecord], facts: BaseFacts, store: Store) -> frozenset[str]:
    """Return the directories that a layer needs. All its paths are checked against the base and each other."""
    owners: dict[str, Segment] = {}
    needed: dict[str, Segment] = {}
    for segment, record in zip(plan.segments, segments, strict=True):
        rows = index(store, record)
        parents = directories(rows)
        check(parents, rows, facts, segment.name)
        for path in parents:
            needed.setdefault(path, segment)
        for row in rows:
            other = owners.setdefault(row.path, segment)
            if other is not segment:
                raise _two_owners(row.path, other, segment, "a path must not be in a layer twice")
    for path in sorted(owners.keys() & needed.keys()):
        raise _two_owners(path, owners[path], needed[path], "a file or link of one, a directory of the other")
    return frozenset(needed)


def _difference(one: Row, two: Row) -> str:
    if one.type != two.type:
        return f"a {one.type} and a {two.type}"
    if one.what != two.what:
        return "with different content" if one.type == "file" else f"links to `{one.what}` and to `{two.what}`"
    if one.mode != two.mode:
        return f"with modes {one.mode:04o} and {two.mode:04o}"
    return f"owned by {one.uid}:{one.gid} and by {two.uid}:{two.gid}"


def _two_owners(path: str, one: Segment, two: Segment, how: str) -> CregraphError:
    names = [f"`{s.name}` ({s.group})" for s in (one, two)]
    return CregraphError(
        f"`/{path}` belongs to {names[0]} and to {names[1]}: {how}",
        hint="remove one of the two from the profile, or give it another destination",
    )

"""Which segments share a layer: big packages alone, the rest in buckets by the hash of their name.

A pure function of the plan. What a bump moves is the layer of its package, so layers are kept small; what may not change is
the layer of any other package, so nothing here depends on the order of packages or on how many there are, until the limit
of 127 layers is reached.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from cregraph.digest import Json, key_of
from cregraph.errors import CregraphError
from cregraph.plan.parts import Segment

__all__ = ["ALONE", "LIMIT", "LayerPlan", "Owners", "Planner", "split"]

#: Absolute path of a subtree to the (uid, gid) of the directories that are made in it, itself included.
Owners = Mapping[str, tuple[int, int]]

#: The most layers of an image that Docker's stores accept, those of the base counted.
LIMIT = 127

#: Segments of at least this many bytes (compressed, by their artifact) have a layer of their own.
ALONE = 4 << 20

#: Buckets of a group, by the text before its colon. A group of another kind is one bucket.
BUCKETS = {"conda": 32, "r": 16, "python": 16}

#: What changes often comes last: an engine unpacks anew every layer above one that changed.
_ORDER = {"conda": 0, "r": 1, "python": 2, "archive": 3}


@dataclass(frozen=True, kw_only=True, slots=True)
class LayerPlan:
    """A layer before it is made: a readable name, its segments by name and key, and its key."""

    name: str
    segments: tuple[Segment, ...]
    key: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Planner:
    """What decides a layer's bytes besides its segments: the assembly, and through the preamble the base and the owners.

    `base` is the digest of the base's manifest; `base_layers` and `limit` count layers.
    """

    assembly: int
    base: str
    owners: Owners
    base_layers: int
    limit: int = LIMIT

    def layer(self, name: str, segments: Iterable[Segment]) -> LayerPlan:
        """The layer of these segments, sorted by name and key. The layer's own name does not reach its key."""
        ordered = tuple(sorted(segments, key=lambda s: (s.name, s.key)))
        key = key_of(
            {
                "layer": [s.key for s in ordered],
                "assembly": self.assembly,
                "base": self.base,
                "owners": {path: list(owner) for path, owner in self.owners_of(ordered).items()},
            }
        )
        return LayerPlan(name=name, segments=ordered, key=key)

    def owners_of(self, segments: Iterable[Segment]) -> Owners:
        """The owners that can matter to a layer of these segments: at, above or below a path that one of them is placed at.

        A segment that names no path could be anywhere.
        """
        if not self.owners:
            return {}
        places = [set(_paths(each.place)) for each in segments]
        if not all(places):
            return self.owners
        return {
            path: owner
            for path, owner in sorted(self.owners.items())
            if any(_related(path, place) for found in places for place in found)
        }

    def check_room(self, layers: Sequence[LayerPlan]) -> None:
        """Raise CregraphError when the image would have more layers than image stores accept."""
        if self.base_layers + len(layers) > self.limit:
            raise CregraphError(
                f"the image would have {self.base_layers + len(layers)} layers, {self.base_layers} of them the base's; "
                f"image stores accept {self.limit}",
                hint="choose a base with fewer layers, or have fewer separate targets (prefixes, libraries, files)",
            )


def split(segments: Sequence[Segment], planner: Planner, *, alone: int = ALONE) -> tuple[LayerPlan, ...]:
    """The layers of an image, in order. Each segment is in exactly one; the order of `segments` does not matter.

    Segments of one key are one segment: the first by group and name stands. When there would be too many layers, the size from
    which a segment stands alone is doubled until they fit, then the numbers of buckets are halved. Raises CregraphError when
    one layer a group does not fit either.
    """
    if alone < 1:
        raise ValueError("the size from which a segment stands alone is at least one byte")
    by_key = {s.key: s for s in sorted(segments, key=lambda s: (s.group, s.name, s.stage), reverse=True)}
    segments = tuple(by_key.values())
    biggest = max((s.size for s in segments), default=0)
    fewer = 0
    while True:
        layers = _layers(segments, planner, alone, fewer)
        if planner.base_layers + len(layers) <= planner.limit:
            return layers
        if alone <= biggest:
            alone *= 2
        elif max(BUCKETS.values()) >> fewer > 1:
            fewer += 1
        else:
            planner.check_room(layers)


def _paths(value: Json) -> Iterator[str]:
    """The absolute paths anywhere in a segment's place."""
    if isinstance(value, str):
        if value.startswith("/"):
            yield value
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from _paths(item)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _paths(item)


def _related(one: str, other: str) -> bool:
    one, other = one.rstrip("/") + "/", other.rstrip("/") + "/"
    return one.startswith(other) or other.startswith(one)


def _layers(segments: Sequence[Segment], planner: Planner, alone: int, fewer: int) -> tuple[LayerPlan, ...]:
    layers: list[LayerPlan] = []
    for group in sorted({s.group for s in segments}, key=_rank):
        members = sorted((s for s in segments if s.group == group), key=lambda s: (s.name, s.key))
        count = max(1, BUCKETS.get(_kind(group), 1) >> fewer)
        big = [s for s in members if s.size >= alone]
        buckets: dict[int, list[Segment]] = {}
        for one in members:
            if one.size < alone:
                buckets.setdefault(_bucket(one.name, count), []).append(one)
        layers += [planner.layer(f"{group} {one.name}", [one]) for one in big]
        layers += [
            planner.layer(group if count == 1 else f"{group} {number + 1}/{count}", buckets[number]) for number in sorted(buckets)
        ]
    return tuple(layers)


def _bucket(name: str, count: int) -> int:
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:8]) % count


def _kind(group: str) -> str:
    return group.partition(":")[0]


def _rank(group: str) -> tuple[int, str]:
    return _ORDER.get(_kind(group), len(_ORDER)), group

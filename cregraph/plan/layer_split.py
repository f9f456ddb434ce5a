"""The distribution of segments over layers: a large package has its own, the others share buckets by the hash of their name.

A pure function of the plan. A version bump changes the layer of its package only. So nothing here depends on the order of
packages, or on how many there are until the limit of 127 layers is reached.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from cregraph.digest import Json, key_of
from cregraph.errors import CregraphError
from cregraph.plan.parts import LayerRules, Segment

__all__ = ["ALONE", "LIMIT", "LayerPlan", "Owners", "Planner", "split"]

#: Absolute path of a subtree to the (uid, gid) of the directories that are made in it, itself included.
Owners = Mapping[str, tuple[int, int]]

#: The most layers of an image that Docker's stores accept, those of the base counted.
LIMIT = 127

#: Segments of at least this many bytes (compressed, by their artifact) have a layer of their own.
ALONE = 4 << 20


@dataclass(frozen=True, kw_only=True, slots=True)
class LayerPlan:
    """A layer that is not made yet: a readable name, its segments by name and key, and its key."""

    name: str
    segments: tuple[Segment, ...]
    key: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Planner:
    """The inputs that decide a layer's bytes, besides its segments: the assembly and, through the preamble, the base and owners.

    `base` is the digest of the base's manifest; `base_layers` and `limit` count layers.
    """

    assembly: int
    base: str
    owners: Owners
    base_layers: int
    limit: int = LIMIT

    def layer(self, name: str, segments: Iterable[Segment]) -> LayerPlan:
        """Return the layer of these segments, sorted by name and key. The layer's own name is not part of its key."""
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
        """Return the owners of paths at, above or below a path where one of these segments is placed.

        All of them if a segment names no path, because it could be anywhere.
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
                hint="choose a base with fewer layers, or use fewer targets (prefixes, libraries, files)",
            )


def split(
    segments: Sequence[Segment], planner: Planner, kinds: Mapping[str, LayerRules], *, alone: int = ALONE
) -> tuple[LayerPlan, ...]:
    """Return the layers of an image, in the order of `kinds`. Each segment is in exactly one; the order of `segments` is free.

    Kinds that change often come last in `kinds`: an engine unpacks every layer above one that changed again.
    Segments of one key are one segment: the first by group and name stands. When there would be too many layers, the size from
    which a segment stands alone is doubled until they fit, then the numbers of buckets are halved. Raises CregraphError when
    one layer a group does not fit either.
    """
    if alone < 1:
        raise ValueError("the size from which a segment has its own layer must be at least one byte")
    by_key = {s.key: s for s in sorted(segments, key=lambda s: (s.group, s.name, s.stage), reverse=True)}
    segments = tuple(by_key.values())
    biggest = max((s.size for s in segments), default=0)
    most = max((kinds[s.kind].BUCKETS for s in segments), default=1)
    fewer = 0
    while True:
        layers = _layers(segments, planner, kinds, alone, fewer)
        if planner.base_layers + len(layers) <= planner.limit:
            return layers
        if alone <= biggest:
            alone *= 2
        elif most >> fewer > 1:
            fewer += 1
        else:
            planner.check_room(layers)


def _paths(value: Json) -> Iterator[str]:
    """The absolute paths anywhere in a segment's place."""
    if isinstance(value, str):
        if value.startswith("/"):
            yield value
    elif isinstance(value, Mapping | list | tuple):
        for item in value.values() if isinstance(value, Mapping) else value:
            yield from _paths(item)


def _related(one: str, other: str) -> bool:
    one, other = one.rstrip("/") + "/", other.rstrip("/") + "/"
    return one.startswith(other) or other.startswith(one)


def _layers(
    segments: Sequence[Segment], planner: Planner, kinds: Mapping[str, LayerRules], alone: int, fewer: int
) -> tuple[LayerPlan, ...]:
    layers: list[LayerPlan] = []
    order = list(kinds)
    for kind, group in sorted({(s.kind, s.group) for s in segments}, key=lambda pair: (order.index(pair[0]), pair[1])):
        members = sorted((s for s in segments if s.group == group), key=lambda s: (s.name, s.key))
        count = max(1, kinds[kind].BUCKETS >> fewer)
        big = [s for s in members if s.size >= alone]
        buckets: dict[int, list[Segment]] = {}
        for one in members:
            if one.size < alone:
                number = int.from_bytes(hashlib.sha256(one.name.encode()).digest()[:8]) % count
                buckets.setdefault(number, []).append(one)
        layers += [planner.layer(f"{group} {one.name}", [one]) for one in big]
        layers += [
            planner.layer(group if count == 1 else f"{group} {number + 1}/{count}", buckets[number]) for number in sorted(buckets)
        ]
    return tuple(layers)

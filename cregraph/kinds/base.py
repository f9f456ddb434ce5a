"""The protocol of a kind: a module with four main functions, and the arguments of these.

    ask      a step of a recipe, references substituted, to asks       pure
    pin      all asks of one target to pins                            asks sources, through `Sources`
    place    a target's pins to segments and tasks                     pure
    entries  a segment's input to tar entries                          streams bytes, writes nothing

Kinds never import each other. A need of another kind's package is a token in `provides` and `needs` (`r:rlang`).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Protocol

from cregraph.digest import Json
from cregraph.image.model.tar_entry import Entry
from cregraph.lock.base_facts import BaseFacts
from cregraph.lock.pins import Ask, Pin, Target
from cregraph.lock.rules import LockRules
from cregraph.plan.parts import LayerRules, Placement, Segment
from cregraph.profile.step import Step, StepRules
from cregraph.sources.protocol import LocationRules, Sources

__all__ = ["Input", "Kind", "PinContext", "PlaceContext"]


@dataclass(frozen=True, kw_only=True, slots=True)
class PinContext:
    """The known facts and targets when a target is pinned.

    `facts` are the base's; `targets` the targets that were resolved before this one; `locked` this target's pins in the old
    lock that should stay where they can (already without those that `--upgrade…` frees); `as_of` an ISO date (UTC) or None.
    `project` is the folder in which `./paths` lie; `shipped` the folder of the standard recipes.
    """

    project: Path
    shipped: Path
    facts: BaseFacts | None = None
    build_root: BaseFacts | None = None
    targets: tuple[Target, ...] = ()
    locked: tuple[Pin, ...] = ()
    as_of: str | None = None
    today: str = "1970-01-01"


@dataclass(frozen=True, kw_only=True, slots=True)
class PlaceContext:
    """The known state when a target is placed: the base's facts, the build root, the lock's targets, and earlier placements.

    `order` is the stages in graph order. `placed` maps a target's id to its placement.
    """

    assembly: int
    facts: BaseFacts
    build_root: str  # manifest digest of the image that tasks run over
    targets: tuple[Target, ...]
    order: tuple[str, ...]
    placed: Mapping[str, Placement] = field(default_factory=dict)

    def target(self, kind: str, place: str) -> Target | None:
        return next((t for t in self.targets if (t.kind, t.place) == (kind, place)), None)

    def segments_of(self, target: Target, roots: Iterable[str]) -> tuple[str, ...]:
        """Return the keys of the segments of the pins named `roots` and of all that they need in `target`, sorted by name.

        Raises KeyError for a root that `target` does not pin.
        """
        of = self.placed[target.id].of
        return tuple(of[name] for name in sorted(_reached(target, roots)) if name in of)

    def stage_of(self, target: Target) -> dict[str, str]:
        """Return for each pin of `target` the stage that owns it: the first in graph order whose asks reach it over `needs`."""
        rank = {stage: i for i, stage in enumerate(self.order)}
        stages = sorted({a.stage for a in target.asks}, key=lambda s: rank.get(s, len(rank)))
        owner: dict[str, str] = {}
        for stage in stages:
            asked = [p.name for p in target.pins if any(text.split(":")[0] == stage for text in p.asked)]
            owner = dict.fromkeys(_reached(target, asked), stage) | owner
        return {p.name: owner.get(p.name, stages[-1] if stages else "") for p in target.pins}


def _reached(target: Target, roots: Iterable[str]) -> set[str]:
    """Return the names of the pins of `target` that `roots` need, directly or not, and `roots` themselves."""
    pins = {p.name: p for p in target.pins}
    by_token = {provided.split(" ")[0]: p.name for p in target.pins for provided in p.provides}
    seen: set[str] = set()
    todo = list(roots)
    while todo:
        name = todo.pop()
        if name not in seen:
            seen.add(name)
            todo.extend(by_token[need] for need in pins[name].needs if need in by_token)
    return seen


class Input(Protocol):
    """The verified bytes that a segment is made from, and temporary files for content that must be seekable."""

    def path(self) -> Path:
        """Return the artifact's file in the store, or the tar that is the result of the segment's task."""

    def scratch(self) -> IO[bytes]:
        """Return an unnamed temporary file that exists while the segment is written."""


class Kind(StepRules, LockRules, LayerRules, LocationRules, Protocol):
    """A module in cregraph/kinds that has these names. Most can be taken from kinds/defaults.py.

    The protocols that it extends lie below: what profile/, lock/, plan/ and sources/ ask of a kind.
    """

    NAME: str
    #: Modules (next to the kind's, or by full name) with what other commands ask: CONTRIBUTING.md lists them.
    PARTS: Mapping[str, str]

    # -- asking and pinning

    #: Kinds whose pins decide the pins of this one: if one of theirs moves, this kind resolves again.
    STANDS_ON: frozenset[str]
    #: Whether pins are taken from files of the project, which can change at any time, so that no lock answers for them.
    READS_PROJECT: bool
    #: Whether the sources are dated snapshots, in which nothing is newer: what an upgrade frees is looked for in today's.
    SNAPSHOTS: bool

    def ask(self, step: Step) -> Sequence[Ask]: ...

    def pin(self, target: Target, sources: Sources, context: PinContext) -> Target: ...

    def tools(self, pin: Pin) -> tuple[str, ...]:
        """Return the places of the targets in the sandbox that the pin's task needs, such as an interpreter that builds."""

    # -- placing

    def place(self, target: Target, context: PlaceContext) -> Placement: ...

    def entries(self, segment: Segment, source: Input) -> Iterator[Entry]: ...

    def projection(self, target: Target, placement: Placement) -> Mapping[str, Json]:
        """Return the part of a locked target that decides bytes, for the lock that the image carries."""

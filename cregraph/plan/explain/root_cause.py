"""Root causes: the changes between two plans that make a rebuild necessary, as data and as text. Pure."""

from __future__ import annotations

import json
from dataclasses import dataclass
from itertools import zip_longest
from typing import Literal

from cregraph.digest import Json
from cregraph.kinds import KINDS
from cregraph.lock.diff import How, differing, pin_change
from cregraph.lock.pins import BASE, BUILD_ROOT, Pin
from cregraph.plan.explain.plan_index import PinPlace, PlanIndex
from cregraph.plan.parts import Segment, Task
from cregraph.text import few

__all__ = ["CARRIED", "Cause", "Root", "RootFinder", "What", "cause_text", "how_changed", "root_text"]

#: The nearest cause of the segment that holds the lock. It differs whenever anything does, so it explains nothing.
CARRIED = "the lock that the image carries"

#: What can be at the root.
What = Literal["pin", "variable", "label", "place", "command", "owners", "assembly", "split"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Root:
    """A change that a person made.

    Attributes:
        how: "added", "removed", "changed" (another version or value), "rebuilt" (same version, other bytes), "moved" (same
            bytes, other data in the lock).
        old: Version or value before; None if it is new. `new` likewise, None if it is gone.
        asked: The places that ask for it, in the old lock if it is gone.
        via: The package that is asked for and needs this one, if no place asks for this one itself.
    """

    what: What
    name: str
    how: How
    ecosystem: str = ""
    old: str | None = None
    new: str | None = None
    asked: tuple[str, ...] = ()
    via: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class Cause:
    """The cause of another key. `near` is the thing's own input that differs, as text; `roots` are the changes behind it."""

    near: str
    roots: tuple[Root, ...] = ()


def root_text(root: Root) -> str:
    """Return text such as `rlang 1.1.5 -> 1.1.6 (extras.cran of team.yaml)`."""
    if root.what == "split":
        text = "layers are split in another way"
    elif root.what == "owners":
        text = f"the owners of folders in {root.name}"
    else:
        text = _changed(root)
    lines = few((_line(one) for one in root.asked), 2)
    why = f"for {root.via}: {lines}" if root.via and lines else f"for {root.via}" if root.via else lines
    return f"{text} ({why})" if why else text


def _changed(root: Root) -> str:
    kind = {"variable": "variable ", "label": "label "}.get(root.what, "")
    name, old, new = kind + root.name, root.old, root.new
    if root.how == "added":
        return f"{name} {new} is new" if new and root.what == "pin" else f"{name} is new"
    if root.how == "removed":
        return f"{name} {old} is gone" if old and root.what == "pin" else f"{name} is gone"
    if root.how == "rebuilt":
        return f"{name} {new}: same version, other bytes" if new else f"{name} changed"
    if root.how == "moved":
        return f"{name} {new or ''}".rstrip() + ": same bytes, other metadata"
    if old == new or old is None or new is None:
        return f"{name} changed"
    return f"{name} {old} -> {new}"


def _line(where: str) -> str:
    """`team.yaml: extras.cran` as `extras.cran of team.yaml`."""
    file, colon, field = where.partition(": ")
    return f"{field} of {file}" if colon else where


def cause_text(cause: Cause) -> str:
    """Return text such as `its needed task rlang 1.1.5 -> 1.1.6 (extras.cran of team.yaml)`."""
    if not cause.roots:
        return cause.near
    first, more = cause.roots[0], len(cause.roots) - 1
    also = f" and {more} more" if more else ""
    if cause.near in ("new", "its source", first.name):
        return root_text(first) + also
    if cause.near.endswith(f" {first.name}") and first.how in ("changed", "rebuilt"):
        return cause.near.removesuffix(first.name) + root_text(first) + also
    return f"{cause.near}: {root_text(first)}{also}"


class RootFinder:
    """A finder of the roots of differences between the plans `old` and `new`."""

    def __init__(self, old: PlanIndex, new: PlanIndex) -> None:
        self._old, self._new = old, new

    def pin(self, new: PinPlace | None, old: PinPlace | None) -> Root | None:
        """Return what differs between two pins; None if nothing does or there is neither."""
        second, first = self._new.pins.get(new) if new else None, self._old.pins.get(old) if old else None
        known, place = (self._new, new) if second else (self._old, old)
        pin, how = second or first, _how(first, second, moved=new != old)
        if pin is None or place is None or how is None:
            return None
        rules = KINDS[known.targets[place[0]].kind]
        asked, via = known.asked(place)
        return Root(
            what="pin",
            ecosystem=rules.ECOSYSTEM,
            name=rules.shown_name(pin),
            how=how,
            old=first.version if first else None,
            new=second.version if second else None,
            asked=asked,
            via=via,
        )

    def pin_of_task(self, task: Task, how: Literal["added", "removed"]) -> Root:
        """Return the pin that brought a task or took it away."""
        known = self._new if how == "added" else self._old
        for artifact in task.artifacts:
            place = known.pin_of(artifact)
            root = self.pin(place, None) if how == "added" else self.pin(None, place)
            if root is not None:
                return root
        return Root(what="place", name=task.name, how=how)

    def inputs(self, task: Task, old: Task | None) -> list[Root]:
        """Return the task's own artifacts that differ: its source, and what a wheel is built with."""
        before = [self._old.pin_of(artifact) for artifact in (old.artifacts if old else ())]
        after = [self._new.pin_of(artifact) for artifact in task.artifacts]
        places = dict.fromkeys([*after, *before])
        found = (self.pin(place if place in after else None, place if place in before else None) for place in places)
        return [root for root in found if root is not None]

    def removed(self, segment: Segment) -> Root | None:
        """Return what took away a segment of the old plan; None if its pin stays and did not change."""
        place = self._old.pin_of_segment(segment)
        if place is not None and place not in self._new.pins:
            return self.pin(None, place)
        return Root(what="place", name=segment.name, how="removed", asked=self._old.asked_at(segment))

    def place(self, segment: Segment, old: Segment, field: str) -> Root:
        """Return why one field of a segment's place differs."""
        group = self._new.segment_id(segment)[1]
        interpreter = self.pin((group, "python"), (group, "python")) if field == "python" else None
        if interpreter is not None:
            return interpreter
        target = self._new.targets.get(group)
        if target is not None and target.place.startswith("$(") and self._digest(self._old) != self._digest(self._new):
            return self.base()  # the base says where the target is
        before, after = _shortened(old.place.get(field)), _shortened(segment.place.get(field))
        how, asked = how_changed(before, after), self._new.asked_at(segment)
        return Root(what="place", name=f"{segment.name}: {field}", how=how, old=before, new=after, asked=asked)

    def base(self) -> Root:
        """Return what differs in the base image."""
        target = next(t for t in self._new.targets.values() if t.place == BASE)
        place = (target.id, target.pins[0].name)
        return self.pin(place, place) or Root(what="pin", ecosystem="base", name="base", how="moved")

    def build_root(self) -> Root:
        """Return what differs in the image that tasks run over."""
        target = next((t for t in self._new.targets.values() if t.place == BUILD_ROOT), None)
        if target is None:
            return self.base()
        place = (target.id, target.pins[0].name)
        found = self.pin(place, place) if place in self._old.pins else None
        return found or Root(what="pin", ecosystem="base", name="build root", how="changed")

    def assembly(self) -> list[Root]:
        old, new = self._old.plan.lock.assembly, self._new.plan.lock.assembly
        return [] if old == new else [Root(what="assembly", name="assembly", how="changed", old=str(old), new=str(new))]

    def command(self, task: Task, old: Task) -> Root:
        """Return the first difference in what a task runs."""
        pairs: list[tuple[str, Json, Json]] = [(f"variable {name}", one, two) for name, one, two in differing(old.env, task.env)]
        results = [sorted(each.results.values()) for each in (old, task)]
        pairs += [("output", old.output, task.output), ("folder", old.cwd, task.cwd), ("results", results[0], results[1])]
        arguments = enumerate(zip_longest(old.argv, task.argv))
        pairs += [(f"argument {number}", before, after) for number, (before, after) in arguments]
        for name, before, after in pairs:
            if before != after:
                one, other = _shortened(before), _shortened(after)
                return Root(what="command", name=f"{task.name}: {name}", how=how_changed(one, other), old=one, new=other)
        return Root(what="command", name=task.name, how="changed")

    @staticmethod
    def _digest(index: PlanIndex) -> str:
        return index.plan.lock.base.artifact.sha256


def _how(old: Pin | None, new: Pin | None, *, moved: bool) -> How | None:
    how = pin_change(old, new) if old or new else None
    if how == "rebuilt" and moved:
        return "changed"  # another artifact at another place
    return None if how == "moved" and old and new and dict(old.data) == dict(new.data) else how


def how_changed(old: str | None, new: str | None) -> Literal["added", "removed", "changed"]:
    """Return how a value differs from the old one, where None means that it does not exist."""
    return "added" if old is None else "removed" if new is None else "changed"


def _shortened(value: Json) -> str | None:
    if value is None:
        return None
    text = value if isinstance(value, str) else json.dumps(value, sort_keys=True, ensure_ascii=False)
    return text if len(text) <= 120 else text[:119] + "…"

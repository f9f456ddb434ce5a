"""One plan, indexed by kind, group and name rather than by key, so that two plans can be compared. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

from cregraph.kinds import KINDS
from cregraph.lock.pins import Artifact
from cregraph.lock.rules import answered_asks
from cregraph.plan.parts import Segment, Task
from cregraph.plan.planner import Plan

__all__ = ["PinPlace", "PlanIndex", "renamed_targets"]

#: The id of a pin's target, and the pin's name.
PinPlace = tuple[str, str]


class PlanIndex:
    """Pins, segments, tasks and layers of `plan`. `renamed` maps ids of targets to the ids that the other plan has for them."""

    def __init__(self, plan: Plan, renamed: Mapping[str, str]) -> None:
        self.plan = plan
        self._renamed = renamed
        self._twice = {pair for pair, count in Counter((t.kind, t.name) for t in plan.tasks).items() if count > 1}
        self.targets = {renamed.get(t.id, t.id): t for t in plan.lock.targets}
        self.pins = {(name, p.name): p for name, t in self.targets.items() for p in t.pins}
        segments = [*plan.segments.values(), *plan.hidden.values()]
        self.segments = {self.segment_id(s): s for s in segments}
        self.tasks = {self.task_id(t): t for t in plan.tasks}
        self.by_key: dict[str, Segment | Task] = {**{s.key: s for s in segments}, **{t.key: t for t in plan.tasks}}
        self.layers = {layer.name: layer for layer in plan.layers}
        self.layer_keys = {layer.key for layer in plan.layers}
        self._by_sha256: dict[str, list[PinPlace]] = {}
        self._needing: dict[str, list[PinPlace]] = {}
        for place, pin in self.pins.items():
            self._by_sha256.setdefault(pin.artifact.sha256, []).append(place)
            for token in pin.needs:
                self._needing.setdefault(token, []).append(place)

    def segment_id(self, segment: Segment) -> tuple[str, str, str]:
        """Return what a segment is, independent of its key."""
        return segment.kind, self._renamed.get(segment.group, segment.group), segment.name

    def task_id(self, task: Task) -> tuple[str, str, str]:
        """Return what a task is, independent of its key. Its output tells two tasks of one name apart."""
        return task.kind, task.name, task.output if (task.kind, task.name) in self._twice else ""

    def pin_of(self, artifact: Artifact, target: str | None = None) -> PinPlace | None:
        """Return the pin that an artifact belongs to, preferably one in `target`."""
        found = self._by_sha256.get(artifact.sha256, [])
        return min(found, key=lambda place: (place[0] != target, self.pins[place].artifact != artifact, place), default=None)

    def pin_of_segment(self, segment: Segment) -> PinPlace | None:
        """Return the pin that a segment is made from."""
        group = self.segment_id(segment)[1]
        if (group, segment.name) in self.pins:
            return group, segment.name
        return self.pin_of(segment.artifact, group) if segment.artifact else None

    def asked(self, place: PinPlace) -> tuple[tuple[str, ...], str]:
        """Return the places that ask for a pin. Without one: those of the nearest pin that needs it, and its name."""
        lines = self._lines(place)
        if lines:
            return lines, ""
        seen, todo = {place}, [place]
        while todo:
            tokens = sorted({provided.partition(" ")[0] for each in todo for provided in self.pins[each].provides})
            todo = sorted({other for token in tokens for other in self._needing.get(token, ())} - seen)
            for other in todo:
                lines = self._lines(other)
                if lines:
                    return lines, other[1]
            seen.update(todo)
        return (), ""

    def _lines(self, place: PinPlace) -> tuple[str, ...]:
        target = self.targets[place[0]]
        return tuple(sorted({ask.where for ask in answered_asks(self.pins[place], target, KINDS[target.kind])}))

    def asked_at(self, segment: Segment) -> tuple[str, ...]:
        """Return the places that ask for something where a segment without a pin lies."""
        target = self.targets.get(self.segment_id(segment)[1])
        asks = [ask for ask in (target.asks if target else ()) if isinstance(ask.what, Mapping)]
        return tuple(sorted(a.where for a in asks if isinstance(a.what.get("at"), list) and segment.name in a.what["at"]))


def renamed_targets(old: Plan, new: Plan) -> dict[str, str]:
    """Return the old id of each target that moved: the only new one of its kind, where the only other one is gone."""
    before, after = ({t.id: t.kind for t in plan.lock.targets} for plan in (old, new))
    found = {}
    for name in sorted({*before.values()}):
        gone = [target for target, of in before.items() if of == name and target not in after]
        fresh = [target for target, of in after.items() if of == name and target not in before]
        if len(gone) == len(fresh) == 1:
            found[fresh[0]] = gone[0]
    return found

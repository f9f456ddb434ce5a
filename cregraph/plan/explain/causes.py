"""Causes of new keys: two plans compared input by input, down to the roots. Pure.

A key covers inputs that have keys of their own. Each is looked up in the other plan by its kind, group and name, so the
question "which input differs" repeats until it reaches something that a person changed: a pin, the base, a variable, a place,
a command.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from cregraph.lock.diff import differing
from cregraph.plan.explain.plan_index import PlanIndex, renamed_targets
from cregraph.plan.explain.root_cause import CARRIED, Cause, Root, RootFinder, What, how_changed
from cregraph.plan.layer_split import LayerPlan
from cregraph.plan.parts import Segment, Task
from cregraph.plan.planner import EMBEDDED, Plan
from cregraph.text import few

__all__ = ["Causes"]


class Causes:
    """The causes of differences between the plans `old` and `new`. Methods return None for a thing with the same key in both."""

    def __init__(self, old: Plan, new: Plan) -> None:
        self._old, self._new = PlanIndex(old, {}), PlanIndex(new, renamed_targets(old, new))
        self._roots = RootFinder(self._old, self._new)
        self._tasks: dict[str, Cause | None] = {}

    def of_segment(self, segment: Segment) -> Cause | None:
        """Return why a segment of the new plan has another key or is new."""
        if segment.key in self._old.by_key:
            return None
        if segment.name == EMBEDDED:
            return Cause(near=CARRIED)
        old = self._old.segments.get(self._new.segment_id(segment))
        own = self._roots.pin(self._new.pin_of_segment(segment), self._old.pin_of_segment(old) if old else None)
        if old is None:
            root = own or Root(what="place", name=segment.name, how="added", asked=self._new.asked_at(segment))
            return Cause(near="new", roots=(root,))
        if own is not None:
            return Cause(near="its source", roots=(own,))
        task = self._new.by_key.get(segment.task_key or "") if segment.task_key != old.task_key else None
        return (self.of_task(task) if isinstance(task, Task) else None) or self._placed(segment, old)

    def of_task(self, task: Task) -> Cause | None:
        """Return why a task of the new plan has another key or is new."""
        if task.key not in self._tasks:
            self._tasks[task.key] = None if task.key in self._old.by_key else self._task(task)
        return self._tasks[task.key]

    def of_layer(self, layer: LayerPlan) -> Cause | None:
        """Return why a layer of the new plan has another key or is new."""
        if layer.key in self._old.layer_keys:
            return None
        old = self._old.layers.get(layer.name)
        arrived, gone = self._moved(layer, old)
        changed = [(s.name, cause) for s in layer.segments if (cause := self.of_segment(s)) is not None]
        roots = [*(root for _, cause in changed for root in cause.roots), *self._removed(gone), *self._of_all_layers()]
        names = [name for name, cause in changed if cause.near != CARRIED] + [s.name for s in gone]
        if roots or names:
            return Cause(near="new" if old is None else few(names, 3) or "the base", roots=_once(roots))
        if changed:
            return Cause(near=CARRIED)
        if arrived:
            return Cause(near="split in another way", roots=(Root(what="split", name=layer.name, how="changed"),))
        return Cause(near="owners of folders", roots=(Root(what="owners", name=layer.name, how="changed"),))

    def _moved(self, layer: LayerPlan, old: LayerPlan | None) -> tuple[bool, list[Segment]]:
        """Whether the layer has segments that the old one has not, and those that only the old one has."""
        before = {self._old.segment_id(s): s for s in (old.segments if old else ())}
        here = {self._new.segment_id(s) for s in layer.segments}
        return old is None or not here <= before.keys(), [before[place] for place in before if place not in here]

    def _of_all_layers(self) -> list[Root]:
        """What changes every layer."""
        base = [self._roots.base()] if self._old.plan.planner.base != self._new.plan.planner.base else []
        return base + self._roots.assembly()

    def of_image(self) -> tuple[Root, ...]:
        """Return what differs in the image's config: variables and labels. They are in no layer, but in the tag."""
        found = []
        sides: tuple[tuple[What, Mapping[str, str], Mapping[str, str]], ...] = (
            ("variable", self._old.plan.env, self._new.plan.env),
            ("label", self._old.plan.labels, self._new.plan.labels),
        )
        for what, old, new in sides:
            for name, before, after in differing(old, new):
                if not name.endswith((".key", ".base.digest")):
                    found.append(Root(what=what, name=name, how=how_changed(before, after), old=before, new=after))
        return tuple(found)

    def gone(self) -> tuple[Root, ...]:
        """Return the roots of the segments that only the old image has."""
        return _once(self._removed(s for s in self._old.segments.values() if s.key in self._old.plan.segments))

    def _removed(self, segments: Iterable[Segment]) -> list[Root]:
        """Why those of the old plan's segments that the new plan has not are gone."""
        gone = (s for s in segments if self._old.segment_id(s) not in self._new.segments)
        return [root for s in gone if (root := self._roots.removed(s)) is not None]

    def _task(self, task: Task) -> Cause:
        old = self._old.tasks.get(self._new.task_id(task))
        own = self._roots.inputs(task, old)
        if old is None:
            return Cause(near="new", roots=_once(own) or (Root(what="place", name=task.name, how="added"),))
        needed = list(self._needed(task, old))
        found = [("its source", own)] if own else []
        found += [(label, roots) for label, itself, roots in needed if itself]
        found += self._environment(task, old)
        if task.root != old.root:
            found.append(("the build root", [self._roots.build_root()]))
        found += [(label, roots) for label, itself, roots in needed if not itself]
        roots = [root for _, listed in found for root in listed]
        if not roots:
            return Cause(near="its command", roots=(self._roots.command(task, old),))
        return Cause(near=found[0][0], roots=_once(roots))

    def _needed(self, task: Task, old: Task) -> Iterator[tuple[str, bool, list[Root]]]:
        """The needed tasks that differ, whether by themselves rather than by what they need, and their roots."""
        before = {self._old.task_id(t): t for key in old.needs if isinstance(t := self._old.by_key.get(key), Task)}
        after = {self._new.task_id(t): t for key in task.needs if isinstance(t := self._new.by_key.get(key), Task)}
        for place in sorted({*before, *after}):
            one, other = after.get(place), before.get(place)
            cause = self.of_task(one) if one is not None else None
            if one is not None and other is not None:
                if cause is not None:
                    yield f"its needed task {one.name}", cause.near == "its source", list(cause.roots)
            elif one is not None:
                roots = list(cause.roots) if cause else [self._roots.pin_of_task(one, "added")]
                yield f"it needs {one.name} now", True, roots
            elif other is not None:
                yield f"it needs {other.name} no longer", True, [self._roots.pin_of_task(other, "removed")]

    def _environment(self, task: Task, old: Task) -> Iterator[tuple[str, list[Root]]]:
        """The segments that the task sees and that differ, with their roots."""
        before = {self._old.segment_id(s): s for key in old.environment if isinstance(s := self._old.by_key.get(key), Segment)}
        after = {self._new.segment_id(s): s for key in task.environment if isinstance(s := self._new.by_key.get(key), Segment)}
        for place in sorted({*before, *after}):
            one, other = after.get(place), before.get(place)
            if one is not None and other is not None and one.key == other.key:
                continue
            cause = self.of_segment(one) if one is not None else None
            if cause is not None:
                yield f"its environment's {place[2]}", list(cause.roots)
                continue
            new, gone = self._new.pin_of_segment(one) if one else None, self._old.pin_of_segment(other) if other else None
            root = self._roots.pin(new, None) if one is not None else self._roots.pin(None, gone)
            if root is not None:
                yield f"its environment's {place[2]}", [root]

    def _placed(self, segment: Segment, old: Segment) -> Cause:
        """The same input at another place or in another form."""
        fields = [field for field, _, _ in differing(old.place, segment.place)]
        roots = [self._roots.place(segment, old, field) for field in fields] + self._roots.assembly()
        if not roots:  # another artifact that no pin stands for
            roots.append(Root(what="place", name=segment.name, how="changed", asked=self._new.asked_at(segment)))
        return Cause(near="its " + few(fields, 3) if fields else "its source", roots=_once(roots))


def _once(roots: Iterable[Root]) -> tuple[Root, ...]:
    return tuple(dict.fromkeys(roots))

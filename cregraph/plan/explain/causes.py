"""Why something must be made anew: two plans compared input by input, down to the pins at the root. Pure.

A key covers inputs that have keys of their own. Each is looked up in the other plan by what it is (kind, group, name), so the
question "which input differs" is asked again until it reaches something that a person changed: a pin, the base, a variable,
a place, a command.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Set
from dataclasses import dataclass
from typing import Literal

from cregraph.digest import Json
from cregraph.kinds import kind
from cregraph.lock.pins import BASE, BUILD_ROOT, Artifact, Pin, Target
from cregraph.lock.rules import answered_asks
from cregraph.plan.explain.root_cause import CARRIED, Cause, How, Root, What, several
from cregraph.plan.layer_split import LayerPlan
from cregraph.plan.parts import Segment, Task
from cregraph.plan.planner import EMBEDDED, Plan

__all__ = ["Causes"]


@dataclass(frozen=True, kw_only=True, slots=True)
class _Known:
    """One plan, by what things are."""

    plan: Plan
    called: Mapping[str, str]
    twice: Set[tuple[str, str]]
    pins: Mapping[tuple[str, str], Pin]
    targets: Mapping[str, Target]
    segments: Mapping[tuple[str, str, str], Segment]
    tasks: Mapping[tuple[str, str, str], Task]
    by_key: Mapping[str, Segment | Task]
    layers: Mapping[str, LayerPlan]
    by_sha256: Mapping[str, list[tuple[str, str]]]
    needing: Mapping[str, list[tuple[str, str]]]

    @classmethod
    def of(cls, plan: Plan, called: Mapping[str, str]) -> _Known:
        """`called` maps ids of targets to what the other plan calls them."""
        segments = [*plan.segments.values(), *plan.hidden.values()]
        by_sha256: dict[str, list[tuple[str, str]]] = {}
        needing: dict[str, list[tuple[str, str]]] = {}
        targets = {called.get(t.id, t.id): t for t in plan.lock.targets}
        for name, target in targets.items():
            for pin in target.pins:
                by_sha256.setdefault(pin.artifact.sha256, []).append((name, pin.name))
                for token in pin.needs:
                    needing.setdefault(token, []).append((name, pin.name))
        twice = {pair for pair, count in Counter((t.kind, t.name) for t in plan.tasks).items() if count > 1}
        return cls(
            plan=plan,
            called=called,
            twice=twice,
            pins={(name, p.name): p for name, t in targets.items() for p in t.pins},
            targets=targets,
            segments={(s.kind, called.get(s.group, s.group), s.name): s for s in segments},
            tasks={(t.kind, t.name, t.output if (t.kind, t.name) in twice else ""): t for t in plan.tasks},
            by_key={**{s.key: s for s in segments}, **{t.key: t for t in plan.tasks}},
            layers={layer.name: layer for layer in plan.layers},
            by_sha256=by_sha256,
            needing=needing,
        )

    def segment_id(self, segment: Segment) -> tuple[str, str, str]:
        """What a segment is, whatever its key."""
        return segment.kind, self.called.get(segment.group, segment.group), segment.name

    def task_id(self, task: Task) -> tuple[str, str, str]:
        """What a task is, whatever its key; where it puts its result says it only where two have one name."""
        return task.kind, task.name, task.output if (task.kind, task.name) in self.twice else ""

    def pin_of(self, artifact: Artifact, target: str | None = None) -> tuple[str, str] | None:
        """The target and name of the pin that an artifact is of; in `target` first."""
        found = self.by_sha256.get(artifact.sha256, [])
        return min(found, key=lambda place: (place[0] != target, self.pins[place].artifact != artifact, place), default=None)

    def asked(self, place: tuple[str, str]) -> tuple[tuple[str, ...], str]:
        """The lines that ask for a pin; where none does, those for the nearest package that needs it, and its name."""
        lines = self._lines(place)
        if lines:
            return lines, ""
        seen, todo = {place}, [place]
        while todo:
            tokens = sorted({provided.partition(" ")[0] for each in todo for provided in self.pins[each].provides})
            todo = sorted({other for token in tokens for other in self.needing.get(token, ())} - seen)
            for other in todo:
                lines = self._lines(other)
                if lines:
                    return lines, other[1]
            seen.update(todo)
        return (), ""

    def _lines(self, place: tuple[str, str]) -> tuple[str, ...]:
        target = self.targets[place[0]]
        return tuple(sorted({ask.where for ask in answered_asks(self.pins[place], target, kind(target.kind))}))


class Causes:
    """Why things of the plan `new` are not what they were in `old`. Answers are None for what is the same there."""

    def __init__(self, old: Plan, new: Plan) -> None:
        self._old, self._new = _Known.of(old, {}), _Known.of(new, _renamed(old, new))
        self._tasks: dict[str, Cause | None] = {}

    def of_segment(self, segment: Segment) -> Cause | None:
        """Why a segment of the new plan has another key, or is there at all."""
        if segment.key in self._old.by_key:
            return None
        if segment.name == EMBEDDED:
            return Cause(near=CARRIED)
        old = self._old.segments.get(self._new.segment_id(segment))
        own = self._pin_root(self._place_of(segment, self._new), None if old is None else self._place_of(old, self._old))
        if old is None:
            root = own or Root(what="place", name=segment.name, how="added", asked=_lines_at(self._new, segment))
            return Cause(near="new", roots=(root,))
        if own is not None:
            return Cause(near="its source", roots=(own,))
        if segment.task_key != old.task_key and segment.task_key in self._new.by_key:
            made = self._new.by_key[segment.task_key or ""]
            found = self.of_task(made) if isinstance(made, Task) else None
            if found is not None:
                return found
        return self._placed(segment, old)

    def of_task(self, task: Task) -> Cause | None:
        """Why a task of the new plan has another key, or is there at all."""
        if task.key not in self._tasks:
            self._tasks[task.key] = None if task.key in self._old.by_key else self._task(task)
        return self._tasks[task.key]

    def of_layer(self, layer: LayerPlan) -> Cause | None:
        """Why a layer of the new plan has another key, or is there at all."""
        if any(layer.key == other.key for other in self._old.plan.layers):
            return None
        old = self._old.layers.get(layer.name)
        before = {self._old.segment_id(s): s for s in old.segments} if old else {}
        changed = [(s.name, cause) for s in layer.segments if (cause := self.of_segment(s)) is not None]
        here = {self._new.segment_id(s) for s in layer.segments}
        gone = [s for place, s in before.items() if place not in here]
        arrived = [s for s in layer.segments if self._new.segment_id(s) not in before and self.of_segment(s) is None]
        roots = [root for _, cause in changed for root in cause.roots]
        roots += [r for s in gone if self._old.segment_id(s) not in self._new.segments and (r := self._removed(s)) is not None]
        if self._old.plan.planner.base != self._new.plan.planner.base:
            roots.append(self._base())
        if self._old.plan.lock.assembly != self._new.plan.lock.assembly:
            roots.append(self._assembly())
        names = [name for name, cause in changed if cause.near != CARRIED] + [s.name for s in gone]
        if roots or names:
            near = "new" if old is None else several(names) if names else "the base"
            return Cause(near=near, roots=_once(roots))
        if changed:
            return Cause(near=CARRIED)
        if old is None or arrived:
            return Cause(near="split in another way", roots=(Root(what="split", name=layer.name, how="changed"),))
        return Cause(near="owners of folders", roots=(Root(what="owners", name=layer.name, how="changed"),))

    def of_image(self) -> tuple[Root, ...]:
        """What differs in the image's config: variables and labels. They make no layer, and another tag."""
        found = []
        sides: tuple[tuple[What, Mapping[str, str], Mapping[str, str]], ...] = (
            ("variable", self._old.plan.env, self._new.plan.env),
            ("label", self._old.plan.labels, self._new.plan.labels),
        )
        for what, old, new in sides:
            for name in sorted({*old, *new}):
                if old.get(name) != new.get(name) and not name.endswith((".key", ".base.digest")):
                    found.append(
                        Root(what=what, name=name, how=_how(old.get(name), new.get(name)), old=old.get(name), new=new.get(name))
                    )
        return tuple(found)

    def gone(self) -> tuple[Root, ...]:
        """The pins that the image held and holds no longer."""
        lost = [
            s for place, s in self._old.segments.items() if place not in self._new.segments and s.key in self._old.plan.segments
        ]
        return _once(root for s in lost if (root := self._removed(s)) is not None)

    def _task(self, task: Task) -> Cause:
        old = self._old.tasks.get(self._new.task_id(task))
        own = self._inputs(task, old)
        if old is None:
            return Cause(near="new", roots=_once(own) or (Root(what="place", name=task.name, how="added"),))
        needed = list(self._needed(task, old))
        found = [("its source", own)] if own else []
        found += [(label, roots) for label, itself, roots in needed if itself]
        found += self._beneath(task, old)
        if task.root != old.root:
            found.append(("the build root", [self._root_image()]))
        found += [(label, roots) for label, itself, roots in needed if not itself]
        near, roots = found[0][0] if found else "", [root for _, listed in found for root in listed]
        if not roots:
            roots.append(_command(task, old))
            near = "its command"
        return Cause(near=near, roots=_once(roots))

    def _inputs(self, task: Task, old: Task | None) -> list[Root]:
        """The artifacts of its own that differ: its source, what a wheel is built with."""
        found: list[Root] = []
        before = {place: a for a in (old.artifacts if old else ()) if (place := self._old.pin_of(a)) is not None}
        after = {place: a for a in task.artifacts if (place := self._new.pin_of(a)) is not None}
        for place in dict.fromkeys([*after, *before]):
            root = self._pin_root(place if place in after else None, place if place in before else None)
            if root is not None:
                found.append(root)
        return found

    def _needed(self, task: Task, old: Task) -> Iterator[tuple[str, bool, list[Root]]]:
        """Tasks whose results it sees, and whether they differ by themselves, not by what they see in their turn."""
        before = {self._old.task_id(t): t for key in old.needs if isinstance(t := self._old.by_key.get(key), Task)}
        after = {self._new.task_id(t): t for key in task.needs if isinstance(t := self._new.by_key.get(key), Task)}
        for place in sorted({*before, *after}):
            one, other = after.get(place), before.get(place)
            cause = self.of_task(one) if one is not None else None
            if one is not None and other is not None:
                if cause is not None:
                    yield f"its needed task {one.name}", cause.near == "its source", list(cause.roots)
            elif one is not None:
                yield f"it needs {one.name} now", True, list(cause.roots) if cause else [self._pin_of_task(one, "added")]
            elif other is not None:
                yield f"it needs {other.name} no longer", True, [self._pin_of_task(other, "removed")]

    def _beneath(self, task: Task, old: Task) -> Iterator[tuple[str, list[Root]]]:
        """The segments of the environment that it sees."""
        before = {self._old.segment_id(s): s for key in old.environment if isinstance(s := self._old.by_key.get(key), Segment)}
        after = {self._new.segment_id(s): s for key in task.environment if isinstance(s := self._new.by_key.get(key), Segment)}
        for place in sorted({*before, *after}):
            one, other = after.get(place), before.get(place)
            if one is not None and other is not None and one.key == other.key:
                continue
            root: Root | None = None
            if one is not None:
                cause = self.of_segment(one)
                if cause is not None:
                    yield f"its environment's {one.name}", list(cause.roots)
                    continue
                root = self._pin_root(self._place_of(one, self._new), None)
            elif other is not None:
                root = self._pin_root(None, self._place_of(other, self._old))
            if root is not None:
                yield f"its environment's {place[2]}", [root]

    def _placed(self, segment: Segment, old: Segment) -> Cause:
        """The same input at another place, or with another form."""
        fields = sorted(f for f in {*segment.place, *old.place} if segment.place.get(f) != old.place.get(f))
        roots: list[Root] = []
        for field in fields:
            around = (self._new.segment_id(segment)[1], "python")
            python = self._pin_root(around, around) if field == "python" else None
            if python is not None:
                roots.append(python)
            elif (
                segment.kind == "python" and self._old.plan.lock.base.artifact.sha256 != self._new.plan.lock.base.artifact.sha256
            ):
                roots.append(self._base())
            else:
                before, after = _short(old.place.get(field)), _short(segment.place.get(field))
                asked = _lines_at(self._new, segment)
                roots.append(
                    Root(
                        what="place", name=f"{segment.name}: {field}", how=_how(before, after), old=before, new=after, asked=asked
                    )
                )
        if self._old.plan.lock.assembly != self._new.plan.lock.assembly:
            roots.append(self._assembly())
        if not roots:  # another artifact that no pin stands for
            roots.append(Root(what="place", name=segment.name, how="changed", asked=_lines_at(self._new, segment)))
        return Cause(near="its " + several(fields) if fields else "its source", roots=_once(roots))

    def _place_of(self, segment: Segment, known: _Known) -> tuple[str, str] | None:
        """The pin that a segment is of."""
        group = known.segment_id(segment)[1]
        if (group, segment.name) in known.pins:
            return group, segment.name
        return known.pin_of(segment.artifact, group) if segment.artifact else None

    def _pin_root(self, new: tuple[str, str] | None, old: tuple[str, str] | None) -> Root | None:
        """What differs between two pins of one place; None when nothing does, or there is neither."""
        second, first = self._new.pins.get(new) if new else None, self._old.pins.get(old) if old else None
        known, place = (self._new, new) if second else (self._old, old)
        pin = second or first
        if pin is None or place is None:
            return None
        how: How
        if first is None:
            how = "added"
        elif second is None:
            how = "removed"
        elif first.version != second.version or (new != old and first.artifact.sha256 != second.artifact.sha256):
            how = "changed"
        elif first.artifact.sha256 != second.artifact.sha256:
            how = "rebuilt"
        elif dict(first.data) != dict(second.data):
            how = "moved"
        else:
            return None
        target = known.targets[place[0]]
        asked, via = known.asked(place)
        return Root(
            what="pin",
            ecosystem=kind(target.kind).ECOSYSTEM,
            name=kind(target.kind).shown_name(pin),
            how=how,
            old=first.version if first else None,
            new=second.version if second else None,
            asked=asked,
            via=via,
        )

    def _pin_of_task(self, task: Task, how: Literal["added", "removed"]) -> Root:
        known = self._new if how == "added" else self._old
        for artifact in task.artifacts:
            place = known.pin_of(artifact)
            root = self._pin_root(place, None) if how == "added" else self._pin_root(None, place)
            if root is not None:
                return root
        return Root(what="place", name=task.name, how=how)

    def _removed(self, segment: Segment) -> Root | None:
        place = self._place_of(segment, self._old)
        if place is not None and place not in self._new.pins:
            return self._pin_root(None, place)
        return Root(what="place", name=segment.name, how="removed", asked=_lines_at(self._old, segment))

    def _base(self) -> Root:
        base = next(t for t in self._new.targets.values() if t.place == BASE)
        place = (base.id, base.pins[0].name)
        found = self._pin_root(place, place)
        return found or Root(what="pin", ecosystem="base", name="base", how="moved")

    def _root_image(self) -> Root:
        root = next((t for t in self._new.targets.values() if t.place == BUILD_ROOT), None)
        if root is None:
            return self._base()
        place = (root.id, root.pins[0].name)
        found = self._pin_root(place, place) if place in self._old.pins else None
        return found or Root(what="pin", ecosystem="base", name="build root", how="changed")

    def _assembly(self) -> Root:
        old, new = self._old.plan.lock.assembly, self._new.plan.lock.assembly
        return Root(what="assembly", name="assembly", how="changed", old=str(old), new=str(new))


def _once(roots: Iterable[Root]) -> tuple[Root, ...]:
    return tuple(dict.fromkeys(roots))


def _how(old: str | None, new: str | None) -> Literal["added", "removed", "changed"]:
    return "added" if old is None else "removed" if new is None else "changed"


def _renamed(old: Plan, new: Plan) -> dict[str, str]:
    """Targets that moved: the one of its kind that is new, and the one that is gone."""
    before, after = ({t.id: t.kind for t in plan.lock.targets} for plan in (old, new))
    found = {}
    for each in sorted({*before.values()}):
        gone = [name for name, of in before.items() if of == each and name not in after]
        fresh = [name for name, of in after.items() if of == each and name not in before]
        if len(gone) == len(fresh) == 1:
            found[fresh[0]] = gone[0]
    return found


def _command(task: Task, old: Task) -> Root:
    """What differs in what a task runs, and how."""
    pairs: list[tuple[str, Json, Json]] = [
        (f"variable {n}", old.env.get(n), task.env.get(n)) for n in sorted({*old.env, *task.env})
    ]
    pairs += [("output", old.output, task.output), ("folder", old.cwd, task.cwd), ("results", _at(old), _at(task))]
    length = max(len(old.argv), len(task.argv))
    pairs += [(f"argument {i}", _nth(old.argv, i), _nth(task.argv, i)) for i in range(length)]
    for name, before, after in pairs:
        if before != after:
            first, second = _short(before), _short(after)
            return Root(what="command", name=f"{task.name}: {name}", how=_how(first, second), old=first, new=second)
    return Root(what="command", name=task.name, how="changed")


def _at(task: Task) -> list[str]:
    return sorted(task.results.values())


def _nth(texts: tuple[str, ...], number: int) -> str | None:
    return texts[number] if number < len(texts) else None


def _short(value: Json) -> str | None:
    if value is None:
        return None
    text = value if isinstance(value, str) else json.dumps(value, sort_keys=True, ensure_ascii=False)
    return text if len(text) <= 120 else text[:119] + "…"


def _lines_at(known: _Known, segment: Segment) -> tuple[str, ...]:
    """The lines that put something at the place of a segment that is no pin's."""
    target = known.targets.get(known.segment_id(segment)[1])
    return tuple(
        sorted(
            ask.where
            for ask in (target.asks if target else ())
            if isinstance(ask.what, Mapping) and isinstance(ask.what.get("at"), list) and segment.name in ask.what["at"]
        )
    )

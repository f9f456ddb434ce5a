"""Differences of two locks: pins, asks, and settings of the image, of targets and of stages. Pure.

Versions are compared as texts, never by order: `1.1.4 -> 1.1.5` states the old and the new one. The places of asks are only
explanations, so locks that differ only in them are the same.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Literal, TypeVar

from cregraph.digest import Json
from cregraph.lock.lock_file import Lock, StageRecord, sorted_lock
from cregraph.lock.pins import Ask, Pin, Target
from cregraph.lock.rules import Kinds, LockRules, answered_asks, in_sandbox

__all__ = ["AskChange", "How", "LockDiff", "PinChange", "Setting", "compare", "differing", "pin_change"]

#: How a pin differs: see `PinChange`.
How = Literal["added", "removed", "changed", "rebuilt", "moved"]
T = TypeVar("T")

#: Order of changes: pins that both locks have, then added pins, then removed pins.
_HOW = {"added": 1, "removed": 2}


@dataclass(frozen=True, kw_only=True, slots=True)
class PinChange:
    """A pin that differs.

    `how`: `added`, `removed`, `changed` (another version), `rebuilt` (same version, other bytes), `moved` (same bytes; source,
    needs or build differ). `build` marks pins that only the sandbox sees. `asked_by` are the places of the new asks that the
    pin answers.
    """

    kind: str
    target: str
    name: str
    how: How
    old: Pin | None
    new: Pin | None
    build: bool = False
    asked_by: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class AskChange:
    """An ask that was added (`added` is true) or removed."""

    kind: str
    stage: str
    text: str
    where: str
    added: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class Setting:
    """A value that differs: of the image (`label`), a target (`channels`), a stage (`needs`), or a variable of the image."""

    section: str
    name: str
    old: str | None
    new: str | None


@dataclass(frozen=True, kw_only=True, slots=True)
class LockDiff:
    """All differences. Pins and asks are sorted by kind, then by type of change."""

    same: bool
    pins: tuple[PinChange, ...] = ()
    asks: tuple[AskChange, ...] = ()
    settings: tuple[Setting, ...] = ()


def compare(old: Lock, new: Lock, kinds: Kinds) -> LockDiff:
    before, after = {t.id: t for t in old.targets}, {t.id: t for t in new.targets}
    pins: list[PinChange] = []
    asks: list[AskChange] = []
    settings = _settings("image", asdict(old.identity), asdict(new.identity))
    for target_id in sorted({*before, *after}):
        target = after.get(target_id) or before[target_id]
        rules = kinds[target.kind]
        first, second = (side.get(target_id) or replace(target, asks=(), pins=()) for side in (before, after))
        asks += _asks(first, second, rules)
        pins += _pins(first, second, rules)
        settings += _settings(rules.ECOSYSTEM, first.options, second.options)
    order = list(kinds)
    return LockDiff(
        same=_decisive(old) == _decisive(new),
        pins=tuple(sorted(pins, key=lambda c: (order.index(c.kind), c.build, _HOW.get(c.how, 0), c.name, c.target))),
        asks=tuple(sorted(asks, key=lambda a: (order.index(a.kind), not a.added, a.text, a.stage))),
        settings=(*settings, *_stages(old.stages, new.stages), *_settings("env", old.env, new.env)),
    )


def differing(old: Mapping[str, T], new: Mapping[str, T]) -> Iterator[tuple[str, T | None, T | None]]:
    """Yield each key whose values differ, sorted, with the old and the new value. A missing value is None."""
    for key in sorted({*old, *new}):
        before, after = old.get(key), new.get(key)
        if before != after:
            yield key, before, after


def _pins(old: Target, new: Target, rules: LockRules) -> Iterator[PinChange]:
    before, after = {p.name: p for p in old.pins}, {p.name: p for p in new.pins}
    there = {(a.stage, _json(a.what)) for a in old.asks}
    for _, first, second in differing(before, after):
        pin, how = second or first, pin_change(first, second)
        if how is None or pin is None:
            continue
        answered = answered_asks(second, new, rules) if second else ()
        yield PinChange(
            kind=new.kind,
            target=new.id,
            name=rules.shown_name(pin),
            how=how,
            old=first,
            new=second,
            build=in_sandbox(pin, new, rules),
            asked_by=tuple(sorted({a.where for a in answered if (a.stage, _json(a.what)) not in there})),
        )


def pin_change(old: Pin | None, new: Pin | None) -> How | None:
    """Return how a pin differs from the old one; None if it does not. At most one of them is None."""
    if old is None:
        return "added"
    if new is None:
        return "removed"
    if old.version != new.version:
        return "changed"
    if old.artifact.sha256 != new.artifact.sha256:
        return "rebuilt"
    return "moved" if replace(old, asked=()) != replace(new, asked=()) else None


def _asks(old: Target, new: Target, rules: LockRules) -> list[AskChange]:
    before, after = ({(a.stage, _json(a.what)): a for a in t.asks} for t in (old, new))

    def change(ask: Ask, added: bool) -> AskChange:
        return AskChange(kind=ask.kind, stage=ask.stage, text=_text(ask.what, rules), where=ask.where, added=added)

    added = [change(a, True) for key, a in after.items() if key not in before]
    return added + [change(a, False) for key, a in before.items() if key not in after]


def _text(what: Json, rules: LockRules) -> str:
    """Return the text of an ask, with the fields that decide bytes of files."""
    text = rules.ask_text(what)
    if isinstance(what, Mapping) and isinstance(what.get("at"), list):
        if not text:
            form = "link" if "link" in what else "text"
            text = f"{form} {_json(what.get(form))[:60]}"
        text += f" at {', '.join(map(str, what['at']))}"
        text += "".join(f", {field} {what[field]}" for field in ("mode", "owner") if field in what)
    return text or _json(what)[:120]


def _settings(section: str, old: Mapping[str, Json], new: Mapping[str, Json]) -> list[Setting]:
    return [Setting(section=section, name=name, old=_option(one), new=_option(two)) for name, one, two in differing(old, new)]


def _option(value: Json) -> str | None:
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, list | tuple) and all(isinstance(item, str) for item in value):
        return ", ".join(value)
    return _json(value)


def _stages(old: Sequence[StageRecord], new: Sequence[StageRecord]) -> list[Setting]:
    before, after = {s.name: s for s in old}, {s.name: s for s in new}
    found = []
    for name in [*after, *(name for name in before if name not in after)]:
        first, second = before.get(name), after.get(name)
        if first is not None and second is not None:
            found += _stage(first, second)
        else:
            used = ("used" if stage else None for stage in (first, second))
            found.append(Setting(section="stages", name=name, old=next(used), new=next(used)))
    if not found and list(before) != list(after):
        found.append(Setting(section="stages", name="order", old=", ".join(before), new=", ".join(after)))
    return found


def _stage(old: StageRecord, new: StageRecord) -> list[Setting]:
    name = f"{new.name}: needs"
    found = _settings("stages", {name: list(old.needs)}, {name: list(new.needs)})
    first, second = (_json(list(stage.checks)) for stage in (old, new))
    if first != second:
        counts = (f"{len(stage.checks)} ({text[:60]})" for stage, text in ((old, first), (new, second)))
        found.append(Setting(section="stages", name=f"{new.name}: checks", old=next(counts), new=next(counts)))
    return found


def _decisive(lock: Lock) -> Lock:
    """Return the lock in sorted order, without fields that only explain."""
    targets = (
        replace(
            target,
            asks=tuple(replace(ask, where="") for ask in target.asks),
            pins=tuple(replace(pin, asked=()) for pin in target.pins),
        )
        for target in lock.targets
    )
    return sorted_lock(replace(lock, targets=tuple(targets)))


def _json(value: Json) -> str:
    return json.dumps(value, sort_keys=True, ensure_ascii=False, separators=(",", ":"))

"""Resolve what profile and recipes ask to a lock. This is the only phase that chooses, and the only one that asks sources.

A pin that nobody asked to move stays. A target whose asks are those of the old lock is not resolved again, unless something
that it stands on moved or an upgrade frees some of its pins. Then its kind gets the old pins as those to keep.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field, replace

from cregraph.errors import CregraphError, Several, did_you_mean
from cregraph.kinds import KINDS
from cregraph.kinds.base import PinContext
from cregraph.lock.base_facts import BaseFacts
from cregraph.lock.consistency import agrees, find_problems
from cregraph.lock.lock_file import Identity, Lock, StageRecord, sorted_lock
from cregraph.lock.pins import BASE, BUILD_ROOT, Pin, Target
from cregraph.lock.staleness import same_asks
from cregraph.sources.protocol import Sources

__all__ = ["Upgrade", "order", "resolve"]

_LATE = re.compile(r"\$\([A-Za-z0-9_-]+\.python\.minor\)")


@dataclass(frozen=True, kw_only=True, slots=True)
class Upgrade:
    """Which pins may move: all, or those with these names (in any case)."""

    all: bool = False
    packages: frozenset[str] = frozenset()

    def frees(self, pin: Pin) -> bool:
        return self.all or pin.name.lower() in self.packages


def resolve(
    *,
    identity: Identity,
    stages: Sequence[StageRecord],
    targets: Sequence[Target],
    sources: Sources,
    context: PinContext,
    facts_for: Callable[[Pin], BaseFacts],
    old: Lock | None = None,
    upgrade: Upgrade | None = None,
    title: str = "cannot lock",
) -> Lock:
    """Return a lock that answers `targets`, keeping what `old` pins and `upgrade` does not free.

    `context` carries the folders and dates. `facts_for` returns the facts of an image that was pinned. `title` begins the
    message of several problems.

    Raises:
        CregraphError: Asks cannot be answered. The message names those of all ecosystems that could be looked at.
    """
    upgrade = upgrade or Upgrade()
    before = {t.id: t for t in old.targets} if old else {}
    _check_names(upgrade, before)
    resolver = _Resolver(sources, context, facts_for, old, upgrade, find_problems(old, KINDS) if old else ())
    for target in order(targets):
        resolver.try_to_add(target, before.get(target.id))
    if resolver.problems:
        raise Several(resolver.problems, title, resolver.notes)
    if resolver.facts is None:
        raise CregraphError("no stage asks for a base image", hint="use the stage `snowbooks` or `base`, or an `image` step")
    return sorted_lock(Lock(identity=identity, stages=tuple(stages), targets=tuple(resolver.done)))


@dataclass(slots=True)
class _Resolver:
    """The targets that were resolved so far, and what the next ones stand on."""

    sources: Sources
    context: PinContext
    facts_for: Callable[[Pin], BaseFacts]
    old: Lock | None
    upgrade: Upgrade
    broken: Collection[str]
    done: list[Target] = field(default_factory=list)
    moved: set[str] = field(default_factory=set)
    facts: BaseFacts | None = None
    build_root: BaseFacts | None = None
    problems: list[CregraphError] = field(default_factory=list)
    failed: set[str] = field(default_factory=set)
    notes: list[str] = field(default_factory=list)

    def try_to_add(self, target: Target, locked: Target | None) -> None:
        """Resolve `target`, unless it stands on one that could not be resolved and has no locked pins either.

        The locked pins stand for those of a target that failed, so that one run also finds the problems of what stands on it.
        """
        failed = KINDS[target.kind].STANDS_ON & self.failed
        if failed:
            self.notes.append(
                f"The {target.kind} packages are not checked yet, because they need the {' and '.join(failed)} packages."
            )
            self.failed.add(target.kind)
            return
        try:
            self.add(target, locked)
        except CregraphError as error:
            if target.place in (BASE, BUILD_ROOT):
                raise
            self.problems.append(error)
            if locked is not None and locked.pins:
                self.done.append(replace(target, pins=locked.pins))
            else:
                self.failed.add(target.kind)

    def add(self, target: Target, locked: Target | None) -> None:
        """Resolve `target` if its locked pins do not stand."""
        if target.on_demand and not any(target.place in KINDS[t.kind].tools(p) for t in self.done for p in t.pins):
            self.done.append(target)
            return
        if locked is not None and self._stands(target, locked):
            resolved = replace(target, pins=locked.pins)
        else:
            resolved = self._pinned(target, locked)
            if locked is None or _identities(locked) != _identities(resolved):
                self.moved.add(target.kind)
        self.done.append(resolved)
        if target.place == BASE:
            self.facts = self.facts_for(resolved.pins[0])
            if self.old:
                self.broken = find_problems(self.old, KINDS, base=self.facts.python.distributions if self.facts.python else ())
        elif target.place == BUILD_ROOT:
            self.build_root = self.facts_for(resolved.pins[0])

    def _stands(self, target: Target, locked: Target) -> bool:
        """Whether the locked pins answer `target` as they are, so that no source is asked."""
        rules = KINDS[target.kind]
        return (
            not rules.READS_PROJECT
            and target.id not in self.broken
            and not rules.STANDS_ON & self.moved
            and len(self._kept(locked)) == len(locked.pins)
            and (bool(locked.pins) or not target.on_demand)
            and _fresh(locked, target, self.sources)
        )

    def _kept(self, locked: Target) -> tuple[Pin, ...]:
        """The locked pins that should stay if they can."""
        return tuple(p for p in locked.pins if not self.upgrade.frees(p) and agrees(p, KINDS[locked.kind]))

    def _pinned(self, target: Target, locked: Target | None) -> Target:
        """`target` with the pins that its kind chooses."""
        rules = KINDS[target.kind]
        early = replace(target, asks=tuple(replace(a, what=_early(a.what, self.facts)) for a in target.asks))
        upgraded = locked is not None and any(self.upgrade.frees(p) for p in locked.pins)
        context = replace(
            self.context,
            facts=self.facts,
            build_root=self.build_root,
            targets=tuple(self.done),
            locked=self._kept(locked) if locked else (),
            as_of=self.context.as_of or (self.context.today if upgraded and rules.SNAPSHOTS else None),
        )
        return replace(target, pins=rules.pin(early, self.sources, context).pins)


def order(targets: Sequence[Target]) -> list[Target]:
    """Return targets in the order in which they are pinned: the base, the build root, then by scope (sandbox last) and kind."""
    rank = list(KINDS)
    first = (BASE, BUILD_ROOT)
    return sorted(targets, key=lambda t: (t.place not in first, t.scope == "sandbox", rank.index(t.kind), t.id))


def _fresh(locked: Target, target: Target, sources: Sources) -> bool:
    if not same_asks(locked, target):
        return False
    for pin in locked.pins:
        if pin.artifact.kind == "path":
            artifact, _ = sources.take(kind="path", source=pin.artifact.source, file="")
            if artifact.sha256 != pin.artifact.sha256:
                return False
    return True


def _early(what: object, facts: BaseFacts | None) -> object:
    if not isinstance(what, str) or not _LATE.search(what):
        return what
    if facts is None or facts.python is None:
        raise CregraphError(f"`{what}` needs the Python of the base, but the base has no Python")
    return _LATE.sub(".".join(facts.python.version.split(".")[:2]), what)


def _identities(target: Target) -> set[tuple[str, str, str]]:
    return {(p.name, p.version, p.artifact.sha256 + str(p.data.get("facts", ""))) for p in target.pins}


def _check_names(upgrade: Upgrade, before: dict[str, Target]) -> None:
    known = {pin.name.lower() for target in before.values() for pin in target.pins}
    for name in sorted(upgrade.packages - known):
        raise CregraphError(
            f"`--upgrade-package {name}`: the lock pins no package of that name",
            hint=did_you_mean(name, known, "write the name as in the lock, such as r-dplyr, survival or rpy2"),
        )

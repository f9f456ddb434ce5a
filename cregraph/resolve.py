"""Resolve: what profile and recipes ask, to a lock. The one phase that chooses, and the one that asks the world.

A pin that nobody asked to move stays. A target whose asks are those of the old lock is not resolved again, unless something
that it stands on moved or an upgrade frees some of its pins; then its old pins are given to its kind as what to keep.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from cregraph.errors import CregraphError, nearest
from cregraph.kinds import KINDS, kind
from cregraph.kinds.base import PinContext
from cregraph.lock.base_facts import BaseFacts
from cregraph.lock.consistency import agrees, find_problems
from cregraph.lock.lock_file import Identity, Lock, StageRecord, sorted_lock
from cregraph.lock.pins import BASE, BUILD_ROOT, Pin, Target
from cregraph.lock.staleness import same_asks
from cregraph.sources.protocol import Sources

__all__ = ["Upgrade", "order", "resolve"]

#: What a kind's pins depend on besides its own asks.
_STANDS_ON = {"conda": {"image"}, "r": {"image", "conda"}, "python": {"image"}}
_LATE = re.compile(r"\$\([A-Za-z0-9_-]+\.python\.minor\)")


@dataclass(frozen=True, kw_only=True, slots=True)
class Upgrade:
    """Which pins may move: all, or those with these names (in any case)."""

    all: bool = False
    packages: frozenset[str] = frozenset()

    def frees(self, pin: Pin) -> bool:
        """Whether `pin` may move."""
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
    on_target: Callable[[str], None] = lambda _id: None,
) -> Lock:
    """A lock that answers `targets`, keeping what `old` pins and `upgrade` does not free.

    `context` carries the folders and dates; `facts_for` the facts of an image that was pinned. Raises CregraphError from
    the kinds, naming asks that cannot be answered.
    """
    upgrade = upgrade or Upgrade()
    before = {t.id: t for t in old.targets} if old else {}
    broken = find_problems(old) if old else {}
    _check_names(upgrade, before)
    done: list[Target] = []
    moved: set[str] = set()
    facts: BaseFacts | None = None
    build_root: BaseFacts | None = None
    for target in order(targets):
        locked = before.get(target.id)
        on_demand = target.scope == "sandbox" and target.place != BUILD_ROOT
        if on_demand and not _compiles(done):
            done.append(target)
            continue
        kept = tuple(p for p in locked.pins if not upgrade.frees(p) and agrees(p, target.kind)) if locked else ()
        freed = locked is not None and len(kept) < len(locked.pins)
        stands = target.id not in broken and not (_STANDS_ON.get(target.kind, set()) & moved)
        unpinned = on_demand and locked is not None and not locked.pins
        if (
            locked is not None
            and not freed
            and stands
            and not unpinned
            and target.kind not in ("file", "image")  # they look at files of the project, and ask nobody
            and _fresh(locked, target, sources)
        ):
            resolved = replace(target, pins=locked.pins)
        else:
            on_target(target.id)
            early = replace(target, asks=tuple(replace(a, what=_early(a.what, facts)) for a in target.asks))
            # A dated snapshot has nothing newer: what an upgrade frees is looked for in today's.
            upgraded = locked is not None and any(upgrade.frees(p) for p in locked.pins)
            as_of = context.as_of or (context.today if upgraded and target.kind == "r" else None)
            own = replace(context, facts=facts, build_root=build_root, targets=tuple(done), locked=kept, as_of=as_of)
            pinned = kind(target.kind).pin(early, sources, own)
            resolved = replace(target, pins=pinned.pins)
            if locked is None or _identities(locked) != _identities(resolved):
                moved.add(target.kind)
        done.append(resolved)
        if target.place == BASE:
            facts = facts_for(resolved.pins[0])
            broken = find_problems(old, base=facts.python.distributions if facts.python else ()) if old else {}
        elif target.place == BUILD_ROOT:
            build_root = facts_for(resolved.pins[0])
    if facts is None:
        raise CregraphError("no stage asks for a base image", hint="use the recipe `snowbooks`, or one with an `image` step")
    return sorted_lock(Lock(identity=identity, stages=tuple(stages), targets=tuple(done)))


def order(targets: Sequence[Target]) -> list[Target]:
    """Return targets in the order in which they are pinned: the base, the build root, then by scope (sandbox last) and kind."""
    rank = {name: number for number, name in enumerate(KINDS)}
    first = (BASE, BUILD_ROOT)
    return sorted(targets, key=lambda t: (t.place not in first, t.scope == "sandbox", rank[t.kind], t.id))


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
        raise CregraphError(f"`{what}` needs the Python of the base, and none was found in it")
    return _LATE.sub(".".join(facts.python.version.split(".")[:2]), what)


def _compiles(done: Sequence[Target]) -> bool:
    return any(
        pin.data.get("role") == "build" or pin.data.get("form") == "sdist" for t in done if t.kind == "python" for pin in t.pins
    )


def _identities(target: Target) -> set[tuple[str, str, str]]:
    return {(p.name, p.version, p.artifact.sha256 + str(p.data.get("facts", ""))) for p in target.pins}


def _check_names(upgrade: Upgrade, before: dict[str, Target]) -> None:
    known = {pin.name.lower() for target in before.values() for pin in target.pins}
    for name in sorted(upgrade.packages - known):
        meant = nearest(name, known)
        raise CregraphError(
            f"`--upgrade-package {name}`: the lock pins no package of that name",
            hint=f"did you mean `{meant}`?" if meant else "names are as in the lock, such as r-dplyr, survival or rpy2",
        )

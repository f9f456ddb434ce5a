"""Consistency of a lock: pins answer every ask, meet every requirement, and provide the tokens of their names.

A hand edit or a git merge can break a lock without a conflict. `find_problems` reports that offline; `cregraph lock` repairs it.
The kind (`LockRules`) defines the meaning of asks and tokens; this module only visits them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from cregraph.lock.lock_file import Lock
from cregraph.lock.pins import Pin, Target
from cregraph.lock.rules import Kinds, LockRules, Offers

__all__ = ["agrees", "find_problems"]


def find_problems(lock: Lock, kinds: Kinds, *, base: Iterable[str] | None = None) -> dict[str, list[str]]:
    """Return the problems of each target, by the target's id. Targets without problems are left out.

    `base` are the normal names (PEP 503) of the base's Python distributions. With None, a requirement that they could meet
    is not a problem.
    """
    offers = Offers(
        tokens=frozenset(token.split(" ")[0] for t in lock.targets for p in t.pins for token in p.provides),
        base=None if base is None else frozenset(base),
        targets=lock.targets,
    )
    found = {t.id: list(_of(t, offers, kinds[t.kind])) for t in lock.targets if t.pins or not t.on_demand}
    return {target_id: listed for target_id, listed in found.items() if listed}


def agrees(pin: Pin, rules: LockRules) -> bool:
    """Return whether a pin provides the tokens of its name and version."""
    return all(token in pin.provides for token in rules.own_tokens(pin))


def _of(target: Target, offers: Offers, rules: LockRules) -> Iterator[str]:
    yield from rules.problems(target, offers)
    for pin in target.pins:
        if not agrees(pin, rules):
            yield f"`{pin.name}` {pin.version}: `provides` in the lock has another name or version: {', '.join(pin.provides)}"
        for need in pin.needs:
            if need not in offers.tokens and not rules.base_has(need, offers):
                ecosystem, _, name = need.partition(":")
                yield f"`{pin.name}` needs `{name}` ({ecosystem}), but the lock has no pin for it"

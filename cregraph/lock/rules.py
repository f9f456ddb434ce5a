"""What lock/ asks of a kind. Kinds are above lock/ in import order, so functions that need them take `kinds` as an argument."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from cregraph.digest import Json
from cregraph.lock.pins import Ask, Pin, Scope, Target

__all__ = ["Kinds", "LockRules", "answered_asks"]


class LockRules(Protocol):
    """The part of a kind (cregraph/kinds/base.py) that decides what a lock means."""

    #: The word that people use for the kind's ecosystem.
    ECOSYSTEM: str

    def scope(self, place: str) -> Scope:
        """Return the scope of the target at `place`."""
        ...

    def ask_text(self, what: Json) -> str:
        """Return the ask as the pins that answer it repeat it in `asked`; empty if no pin answers it. Takes any JSON."""
        ...

    def shown_name(self, pin: Pin) -> str:
        """Return the name by which people know what is pinned."""
        ...


#: Returns the rules of a kind by its name. Raises KeyError for an unknown kind.
Kinds = Callable[[str], LockRules]


def answered_asks(pin: Pin, target: Target, rules: LockRules) -> tuple[Ask, ...]:
    """Return the asks of `target` that its pin says that it answers."""
    return tuple(ask for ask in target.asks if f"{ask.stage}: {rules.ask_text(ask.what)}" in pin.asked)

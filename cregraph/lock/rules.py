"""What lock/ asks of a kind. Kinds are above lock/ in import order, so functions that need them take `kinds` as an argument."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from cregraph.lock.pins import Scope

__all__ = ["Kinds", "LockRules"]


class LockRules(Protocol):
    """The part of a kind (cregraph/kinds/base.py) that decides what a lock means."""

    def scope(self, place: str) -> Scope:
        """Return the scope of the target at `place`."""
        ...


#: Returns the rules of a kind by its name. Raises KeyError for an unknown kind.
Kinds = Callable[[str], LockRules]

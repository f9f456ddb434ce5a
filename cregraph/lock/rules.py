"""What lock/ asks of a kind. Kinds are above lock/ in import order, so functions that need them take `kinds` as an argument."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Protocol

from cregraph.digest import Json
from cregraph.lock.pins import Ask, Pin, Scope, Target

__all__ = ["Kinds", "LockRules", "Offers", "answered_asks", "in_sandbox"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Offers:
    """What can meet a requirement: `tokens` of all pins (without versions), and the Python distributions of the base.

    `base` holds normal names (PEP 503); None if the base is not known yet.
    """

    tokens: frozenset[str]
    base: frozenset[str] | None
    targets: tuple[Target, ...]


class LockRules(Protocol):
    """The part of a kind (cregraph/kinds/base.py) that says what a lock means."""

    #: The word that people use for the kind's ecosystem.
    ECOSYSTEM: str

    def scope(self, place: str) -> Scope:
        """Return the scope of the target at `place`."""

    def ask_text(self, what: Json) -> str:
        """Return the ask as the pins that answer it repeat it in `asked`; empty if no pin answers it. Takes any JSON."""

    def shown(self, what: Json) -> str:
        """Return the ask as the reasons of a stale lock show it. Takes any JSON."""

    def shown_name(self, pin: Pin) -> str:
        """Return the name by which people know what is pinned."""

    def hidden(self, pin: Pin) -> bool:
        """Return whether only tasks see the pin, though its target is part of the image."""

    def own_tokens(self, pin: Pin) -> tuple[str, ...]:
        """Return the tokens, with versions, that a pin of this name and version must provide."""

    def base_has(self, token: str, offers: Offers) -> bool:
        """Return whether the base provides `token`, or could."""

    def problems(self, target: Target, offers: Offers) -> Iterable[str]:
        """Return a sentence for each ask that no pin answers, and for each pin that contradicts another target."""

    def folder(self, ask: Ask) -> str | None:
        """Return the path in the project, or of a recipe, of which an ask takes every file."""


#: Kinds by name, in the order of sections in a review.
Kinds = Mapping[str, LockRules]


def in_sandbox(pin: Pin, target: Target, rules: LockRules) -> bool:
    """Return whether only tasks see the pin, so that it is not part of the image."""
    return target.scope == "sandbox" or rules.hidden(pin)


def answered_asks(pin: Pin, target: Target, rules: LockRules) -> tuple[Ask, ...]:
    """Return the asks of `target` that its pin says that it answers."""
    return tuple(ask for ask in target.asks if f"{ask.stage}: {rules.ask_text(ask.what)}" in pin.asked)

"""The interface of a kind to lock/. Kinds are above lock/ in import order, so functions take `kinds` as an argument."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Protocol

from cregraph.digest import Json
from cregraph.lock.pins import Ask, Pin, Scope, Target

__all__ = ["Kinds", "LockRules", "Offers", "answered_asks", "in_sandbox"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Offers:
    """Names that can meet a requirement: `tokens` of all pins (without versions), and the base's Python distributions.

    `base` holds normal names (PEP 503); None if the base is not known yet.
    """

    tokens: frozenset[str]
    base: frozenset[str] | None
    targets: tuple[Target, ...]


class LockRules(Protocol):
    """The part of a kind (cregraph/kinds/base.py) that defines the meaning of a lock."""

    #: The usual name of the kind's ecosystem, for people.
    ECOSYSTEM: str

    def scope(self, place: str) -> Scope:
        """Return the scope of the target at `place`."""

    def ask_text(self, what: Json) -> str:
        """Return the ask as pins state it in `asked`; empty if no pin answers it. Takes any JSON."""

    def shown(self, what: Json) -> str:
        """Return the ask as the reasons of a stale lock show it. Takes any JSON."""

    def shown_name(self, pin: Pin) -> str:
        """Return the pin's usual name, for people."""

    def hidden(self, pin: Pin) -> bool:
        """Return whether only tasks see the pin, though its target is part of the image."""

    def own_tokens(self, pin: Pin) -> tuple[str, ...]:
        """Return the tokens, with versions, that a pin of this name and version must provide."""

    def base_has(self, token: str, offers: Offers) -> bool:
        """Return whether the base provides `token`, or could provide it."""

    def problems(self, target: Target, offers: Offers) -> Iterable[str]:
        """Return a sentence for each ask that no pin answers, and for each pin that contradicts another target."""

    def folder(self, ask: Ask) -> str | None:
        """Return the folder in the project or a recipe whose files the ask takes, or None."""


#: Kinds by name, in the order of sections in a review.
Kinds = Mapping[str, LockRules]


def in_sandbox(pin: Pin, target: Target, rules: LockRules) -> bool:
    """Return whether only tasks see the pin, so that it is not part of the image."""
    return target.scope == "sandbox" or rules.hidden(pin)


def answered_asks(pin: Pin, target: Target, rules: LockRules) -> tuple[Ask, ...]:
    """Return the asks of `target` that `pin` names in `asked`."""
    return tuple(ask for ask in target.asks if f"{ask.stage}: {rules.ask_text(ask.what)}" in pin.asked)

"""Functions that most kinds share. A kind takes one by assignment (`scope = defaults.scope`) and states only what is special."""

from __future__ import annotations

from cregraph.digest import Json
from cregraph.lock.pins import Pin, Scope

__all__ = ["SANDBOX", "ask_text", "scope", "shown_name"]

#: What lies below this folder exists in the sandbox only.
SANDBOX = "/cregraph/"


def scope(place: str) -> Scope:
    """Return "sandbox" for a place below SANDBOX, else "image"."""
    return "sandbox" if place.startswith(SANDBOX) else "image"


def ask_text(what: Json) -> str:
    """Return `what` if it is a text."""
    return what if isinstance(what, str) else ""


def shown_name(pin: Pin) -> str:
    """Return the pin's own name."""
    return pin.name

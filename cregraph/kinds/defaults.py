"""Functions that most kinds share. A kind takes one by assignment (`scope = defaults.scope`) and states only what is special."""

from __future__ import annotations

from cregraph.lock.pins import Scope

__all__ = ["SANDBOX", "scope"]

#: What lies below this folder exists in the sandbox only.
SANDBOX = "/cregraph/"


def scope(place: str) -> Scope:
    """Return "sandbox" for a place below SANDBOX, else "image"."""
    return "sandbox" if place.startswith(SANDBOX) else "image"

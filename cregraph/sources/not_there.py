"""The answer of a source that has not what it was asked for."""

from __future__ import annotations

from cregraph.errors import CregraphError

__all__ = ["NotThere"]


class NotThere(CregraphError):
    """Every address was reached, and none has the file."""

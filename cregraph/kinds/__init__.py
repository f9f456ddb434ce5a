"""The kinds, by name. A kind is a module of this folder; each is imported when it is first used."""

from __future__ import annotations

from importlib import import_module
from typing import cast

from cregraph.kinds.base import Kind

__all__ = ["KINDS", "fields_of", "kind"]

#: Kinds in the order in which targets are pinned and placed: what a kind asks of another stands before it.
KINDS = ("image", "conda", "r", "python", "archive", "file")


def kind(name: str) -> Kind:
    """The kind of that name. An unknown one raises KeyError: recipes and locks are checked before."""
    if name not in KINDS:
        raise KeyError(name)
    return cast(Kind, import_module(f"cregraph.kinds.{name}"))


def fields_of() -> dict[str, dict[str, tuple[str, bool]]]:
    """The fields that each kind's step may have: name to type and whether it must be there."""
    return {name: dict(kind(name).FIELDS) for name in KINDS}

"""The kinds, by name. A kind is a module of this folder; each is imported when it is first used."""

from __future__ import annotations

from importlib import import_module
from types import ModuleType
from typing import cast

from cregraph.kinds.base import Kind

__all__ = ["KINDS", "MODULES", "fields_of", "kind", "parts"]

#: The module of each kind, in the order in which targets are pinned and placed: a kind follows those whose pins it needs.
MODULES = {
    "image": "cregraph.kinds.image.image_kind",
    "conda": "cregraph.kinds.conda.conda_kind",
    "r": "cregraph.kinds.r.r_kind",
    "python": "cregraph.kinds.python.python_kind",
    "archive": "cregraph.kinds.archive",
    "file": "cregraph.kinds.file",
}
KINDS = tuple(MODULES)


def kind(name: str) -> Kind:
    """The kind of that name. An unknown one raises KeyError: recipes and locks are checked before."""
    return cast(Kind, import_module(MODULES[name]))


def parts(part: str) -> dict[str, ModuleType]:
    """Return the module of each kind that has `part` (see `Kind.PARTS`), by the kind's name."""
    return {name: import_module(path) for name in MODULES if (path := kind(name).PARTS.get(part))}


def fields_of() -> dict[str, dict[str, tuple[str, bool]]]:
    """The fields that each kind's step may have: name to type and whether it must be there."""
    return {name: dict(kind(name).FIELDS) for name in KINDS}

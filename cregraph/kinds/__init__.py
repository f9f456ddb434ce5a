"""The kinds, by name. A kind is a module of this folder; each is imported when it is first looked up."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cache
from importlib import import_module
from types import ModuleType
from typing import cast

from cregraph.kinds import defaults
from cregraph.kinds.base import Kind

__all__ = ["KINDS", "MODULES", "parts"]

#: The module of each kind, in the order in which targets are pinned and placed: a kind follows those whose pins it needs.
MODULES = {
    "image": "cregraph.kinds.image.image_kind",
    "conda": "cregraph.kinds.conda.conda_kind",
    "r": "cregraph.kinds.r.r_kind",
    "python": "cregraph.kinds.python.python_kind",
    "archive": "cregraph.kinds.archive",
    "file": "cregraph.kinds.file",
}


@cache
def _kind(path: str) -> Kind:
    """Return the module at `path`. It gets the names of kinds/defaults.py that it does not state itself."""
    module = import_module(path)
    for name in defaults.__all__:
        vars(module).setdefault(name, getattr(defaults, name))
    return cast(Kind, module)


class _Kinds(Mapping[str, Kind]):
    def __getitem__(self, name: str) -> Kind:
        return _kind(MODULES[name])

    def __iter__(self) -> Iterator[str]:
        return iter(MODULES)

    def __len__(self) -> int:
        return len(MODULES)


#: The kinds by name, in the order of MODULES. Raises KeyError for an unknown name: recipes and locks are checked before.
KINDS: Mapping[str, Kind] = _Kinds()


def parts(part: str) -> dict[str, ModuleType]:
    """Return the module of each kind that has `part` (see `Kind.PARTS`), by the kind's name."""
    found = {name: kind.PARTS[part] for name, kind in KINDS.items() if part in kind.PARTS}
    return {
        name: import_module(path if "." in path else f".{path}", MODULES[name].rpartition(".")[0]) for name, path in found.items()
    }

"""Debian control text, as R writes it: DESCRIPTION files and the PACKAGES index of a CRAN-like repository.

A paragraph consists of lines `Field: value`. A line that starts with white space continues the value above. An empty line ends
the paragraph ("Writing R Extensions", 1.1.1). Dependency fields are lists of `name (op version)` (1.1.3).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from cregraph.errors import CregraphError

__all__ = ["BASE_PACKAGES", "Dependency", "decode", "dependencies", "needs", "paragraph", "paragraphs"]

#: R and the packages that it includes. They are never pinned.
BASE_PACKAGES = frozenset(
    {"R", "base", "compiler", "datasets", "graphics", "grDevices", "grid", "methods", "parallel", "splines", "stats"}
    | {"stats4", "tcltk", "tools", "utils"}
)

#: Most characters of one index. CRAN's index has 10 million.
_LIMIT = 256 << 20
_DEPENDENCY = re.compile(r"([A-Za-z][A-Za-z0-9.]*)\s*(?:\(\s*(>=|<=|==|=|<|>|!=)\s*([0-9]+(?:[.-][0-9]+)*|r[0-9]+)\s*\))?")


@dataclass(frozen=True, kw_only=True, slots=True)
class Dependency:
    """An entry of Depends, Imports or LinkingTo. `op` and `version` are both set or both empty."""

    name: str
    op: str = ""
    version: str = ""

    def __str__(self) -> str:
        return f"{self.name} {self.op}{self.version}" if self.op else self.name


def decode(data: bytes) -> str:
    """Return `data` as text: UTF-8 if it is valid, else Latin-1, which accepts every byte."""
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        return data.decode("latin-1")


def paragraphs(text: str, *, what: str) -> Iterator[dict[str, str]]:
    """Yield the paragraphs of `text`. Line breaks in values become one space. The last of two equal fields wins.

    Ignores a line that is neither field nor continuation, as R does. Raises CregraphError, naming `what`, if the text is larger
    than `_LIMIT`.
    """
    if len(text) > _LIMIT:
        raise CregraphError(f"{what} is larger than {_LIMIT >> 20} MiB, more than a package index has")
    fields: dict[str, str] = {}
    last = ""
    for line in text.splitlines():
        if line[:1] in (" ", "\t"):
            if last and (more := line.strip()):
                fields[last] = f"{fields[last]} {more}".strip()
            continue
        if not line:
            if fields:
                yield fields
            fields, last = {}, ""
            continue
        name, colon, value = line.partition(":")
        if colon:
            fields[name] = value.strip()
            last = name
        else:
            last = ""
    if fields:
        yield fields


def paragraph(text: str, *, what: str) -> dict[str, str]:
    """Return the first paragraph of `text`. Raises CregraphError, naming `what`, if it is empty."""
    for fields in paragraphs(text, what=what):
        return fields
    raise CregraphError(f"{what} is empty")


def needs(fields: Mapping[str, str], *, what: str) -> tuple[tuple[Dependency, ...], tuple[Dependency, ...]]:
    """Return the entries of Depends and Imports, and those of LinkingTo. Raises CregraphError as `dependencies` does."""
    depends, imports, linking = (
        dependencies(fields.get(field), what=f"{what}: {field}") for field in ("Depends", "Imports", "LinkingTo")
    )
    return depends + imports, linking


def dependencies(field: str | None, *, what: str) -> tuple[Dependency, ...]:
    """Return the entries of a dependency field, in order. Raises CregraphError, naming `what`, for an invalid entry."""
    found = []
    for entry in (field or "").split(","):
        entry = entry.strip()
        if not entry:
            continue  # trailing commas occur on CRAN
        match = _DEPENDENCY.fullmatch(entry)
        if match is None:
            raise CregraphError(f"{what}: `{entry[:80]}` is not a dependency (expected `name` or `name (>= version)`)")
        name, op, version = match.groups(default="")
        if version.startswith("r"):
            op = version = ""  # `R (>= r45672)` names a revision of R's sources; releases cannot be compared with it
        found.append(Dependency(name=name, op="==" if op == "=" else op, version=version))
    return tuple(found)

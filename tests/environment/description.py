"""R's DESCRIPTION files and PACKAGES indexes: stanzas of fields (R's "Writing R Extensions", section 1.1.1)."""

from __future__ import annotations

import re

from .parts import words

_BASE = frozenset(
    words("R base compiler datasets graphics grDevices grid methods parallel splines stats stats4 tcltk tools utils")
)


def read_description(text: str) -> dict[str, str]:
    """The fields of one DESCRIPTION, continuation lines joined by one space."""
    fields: dict[str, str] = {}
    name = ""
    for line in text.splitlines():
        if line[:1].isspace():
            fields[name] += " " + line.strip()
        elif ":" in line:
            name, value = line.split(":", 1)
            fields[name] = value.strip()
    return fields


def needs(fields: dict[str, str], *, linking: bool = True) -> dict[str, str]:
    """What a package needs to be installed: name to relation (`>= 1.2`, or nothing), without R and its own packages."""
    found: dict[str, str] = {}
    for field in ("Depends", "Imports", *(["LinkingTo"] if linking else [])):
        for name, relation in re.findall(r"([A-Za-z][A-Za-z0-9.]*)\s*(?:\(([^)]*)\))?", fields.get(field, "")):
            if name not in _BASE and (relation or name not in found):
                found[name] = " ".join(relation.split())
    return found


def r_wanted(fields: dict[str, str]) -> str:
    """The R version that a package's Depends asks for at least, or `0`."""
    found = re.search(r"\bR\s*\(>=?\s*([\d.-]+)\s*\)", fields.get("Depends", ""))
    return found[1] if found else "0"

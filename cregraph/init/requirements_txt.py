"""Reader of pip's `requirements.txt` (pip documentation, "Requirements File Format")."""

from __future__ import annotations

import re

from cregraph.init.carried import Carried
from cregraph.profile.package_texts import requirement

__all__ = ["read_requirements"]


def read_requirements(text: str, into: Carried) -> None:
    """Add the requirements of `text` to `extras.pip`. Options and paths are left out with their line."""
    whole, first = "", 0
    for number, line in enumerate(text.split("\n"), 1):
        first = first or number
        joined = line.rstrip("\r")
        if joined.endswith("\\") and not joined.lstrip().startswith("#"):
            whole += joined[:-1]
            continue
        item = re.sub(r"(^|\s)#.*$", "", whole + joined).strip()
        start, whole, first = first, "", 0
        if item.startswith("-"):
            into.leave(start, item.split("=")[0].split(" ")[0], "options of pip belong in sources.yaml or are not needed")
            continue
        name, mark, _ = item.partition(" --")
        if mark:
            into.leave(start, name.strip(), "its options and hashes are left out; `cregraph lock` pins the sha256 of each file")
        if name:
            into.add("extras.pip", " ".join(name.split()), start, _by_name)


def _by_name(text: str) -> None:
    if "://" in text or text.startswith((".", "/")) or " @ " in text:
        raise ValueError("is an address or a path; packages are asked for by name")
    requirement(text)

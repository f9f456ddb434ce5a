"""Conda packages in messages: those that hold what a compiler looks for, and those with link scripts."""

from __future__ import annotations

import mmap
import re
import tempfile
from collections.abc import Container, Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path

from cregraph.errors import CregraphError
from cregraph.kinds.conda import conda_archive
from cregraph.lock.pins import Pin, Target
from cregraph.store import Store
from cregraph.text import few, printable

__all__ = ["held", "link_scripts", "listed", "notes"]


@cache
def held() -> Mapping[str, Mapping[str, str]]:
    """Return the conda package that has a name, for each sort of name in held.yaml (`headers`, `libraries`, ...)."""
    import yaml

    packages = yaml.safe_load(Path(__file__).with_name("held.yaml").read_text(encoding="utf-8"))
    found: dict[str, dict[str, str]] = {}
    for package, sorts in packages.items():
        for sort, names in sorts.items():
            found.setdefault(sort, {}).update(dict.fromkeys(names.split(), package))
    return found


def listed(store: Store, package: str) -> bool | None:
    """Return whether an index of a conda channel in the store lists `package`; None if the store does not tell.

    Indexes in shards are msgpack: a text is preceded by its length.
    """
    name = package.encode()
    known = False
    for path in sorted((store.root / "repodata").glob("*")) if (store.root / "repodata").is_dir() else ():
        if not path.is_file() or path.stat().st_size == 0 or path.name.endswith(".info.json"):
            continue
        whole = path.suffix == ".json"
        marks = (b'"name":"' + name + b'"', b'"name": "' + name + b'"') if whole else (bytes([0xA0 | len(name)]) + name,)
        if len(name) > 31 and not whole:
            marks = (bytes([0xD9, len(name)]) + name,)
        try:
            with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
                if any(data.find(mark) >= 0 for mark in marks):
                    return True
                known = known or (whole and data.find(b'"r-') >= 0)
        except (OSError, ValueError):
            continue
    return False if known else None


_LINK_SCRIPT = re.compile(r"bin/\.[^/]+-(?:pre-link|post-link|pre-unlink)\.sh")


def notes(
    targets: Sequence[Target], store: Store, *, before: Sequence[Target] = (), only: Container[str] | None = None
) -> Iterator[str]:
    """Return a note about packages with link scripts, if their bytes are in the store."""
    pins = [pin for target in targets if target.kind == "conda" for pin in target.pins if only is None or pin.name in only]
    found = [f"{pin.name} {pin.version} ({', '.join(scripts)})" for pin in pins if (scripts := _scripts(pin, store))]
    way = "make their changes with a `file` step of a recipe, or in a notebook"
    yield from [f"cregraph does not run these link scripts: {few(found)}\n  {way}"] if found else []


def _scripts(pin: Pin, store: Store) -> list[str]:
    if not store.has(pin.artifact.sha256):
        return []
    try:
        return [printable(name) for name in link_scripts(store.path_of(pin.artifact.sha256))]
    except CregraphError:
        return []  # the build refuses the package, with the reason


def link_scripts(path: Path) -> list[str]:
    return [member for member in conda_archive.listed(path, tempfile.TemporaryFile, path.name) if _LINK_SCRIPT.fullmatch(member)]

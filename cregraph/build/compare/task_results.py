"""Comparison of two results of one task, file by file."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import IO

from cregraph.build.compare.file_contents import compare_file
from cregraph.build.compare.finding import Finding, shown
from cregraph.errors import CregraphError
from cregraph.formats.inflate import part
from cregraph.formats.untrusted_tar import PACKAGE, Member, Reader

__all__ = ["compare_results", "compare_tars"]

_LIMIT = 256 << 20  # bytes of a file up to which its content is compared
_FOUND = 200  # findings after which the comparison ends


def compare_results(one: Path, two: Path) -> list[Finding]:
    """Return `compare_tars` of two files."""
    with one.open("rb") as first, two.open("rb") as second:
        return compare_tars(first, second)


def compare_tars(one: IO[bytes], two: IO[bytes]) -> list[Finding]:
    """Return how two normalised tars (`cregraph.engines.capture`) differ, by path. Both files are seekable.

    At most two contents of 256 MiB are in memory. A file that is not a tar, which a remote cache may hold, is a finding. The
    texts of findings are printable, also with hostile file names.
    """
    try:
        found = list(itertools.islice(_differences(_Result(one), _Result(two)), _FOUND))
    except CregraphError as error:
        found = [Finding(path="(the whole result)", cause="unknown", inside=f"cannot be read as a tar: {error.message}")]
    return [
        replace(each, path=shown(each.path, 400), inside=shown(each.inside, 200), one=shown(each.one), two=shown(each.two))
        for each in found
    ]


class _Result:
    """A tar and its entries by path."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self.entries = {entry.path: entry for entry in Reader(file, what="it", policy=PACKAGE)}

    def content(self, path: str) -> bytes | None:
        """Return the content of a file; None if it does not exist or is too large."""
        entry = self.entries.get(path)
        return b"".join(self._blocks(entry)) if entry and entry.type == "file" and entry.size <= _LIMIT else None

    def sha256(self, path: str) -> str:
        hasher = hashlib.sha256()
        for block in self._blocks(self.entries[path]):
            hasher.update(block)
        return hasher.hexdigest()

    def _blocks(self, entry: Member) -> Iterator[bytes]:
        return part(self._file, entry.offset, entry.size)


def _differences(first: _Result, second: _Result) -> Iterator[Finding]:
    databases: set[str] = set()
    for path in sorted(first.entries.keys() | second.entries.keys()):
        if path.endswith(".rdx") and f"{path[:-1]}b" in databases:
            continue  # it only says where the objects of its .rdb lie
        mine, theirs = first.entries.get(path), second.entries.get(path)
        if mine is None or theirs is None:
            a, b = ("is missing" if each is None else "exists" for each in (mine, theirs))
            yield Finding(path=path, cause="listing", one=a, two=b)
        elif mine.type != theirs.type or mine.link != theirs.link:
            yield Finding(path=path, cause="mode", one=_form(mine), two=_form(theirs))
        elif mine.type == "file":
            found = _contents(path, first, second)
            if found and path.endswith(".rdb"):
                databases.add(path)
            yield from found
            if mine.mode != theirs.mode:
                yield Finding(path=path, cause="mode", one=f"mode {mine.mode:04o}", two=f"mode {theirs.mode:04o}")


def _contents(path: str, first: _Result, second: _Result) -> list[Finding]:
    one, two = first.content(path), second.content(path)
    if one is not None and two is not None:
        return compare_file(path, one, two, lambda sibling: (first.content(sibling), second.content(sibling)))
    if first.entries[path].size == second.entries[path].size and first.sha256(path) == second.sha256(path):
        return []
    return [Finding(path=path, cause="unknown", inside="too large to compare")]


def _form(entry: Member) -> str:
    return shown(f"a link to {entry.link}" if entry.type == "symlink" else "a folder" if entry.type == "directory" else "a file")

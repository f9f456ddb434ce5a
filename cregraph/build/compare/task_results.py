"""Two results of one task that should be equal, file by file."""

from __future__ import annotations

import tarfile
from dataclasses import replace
from pathlib import Path
from typing import IO

from cregraph.build.compare.file_contents import compare_file
from cregraph.build.compare.finding import Finding, shown

__all__ = ["compare_tars", "differing_tars"]

_LIMIT = 256 << 20  # bytes of a file that is looked into
_FOUND = 200


def compare_tars(one: IO[bytes], two: IO[bytes]) -> list[Finding]:
    """What differs between two normalised tars (cregraph.engines.capture), by path; empty when their entries are equal.

    The files are seekable. At most two contents are in memory, of at most 256 MiB each. One that is no tar, as a cache may hold
    it, is a finding. What findings say is printable, whatever files are called.
    """
    try:
        found = _compared(one, two)
    except (tarfile.TarError, ValueError, OverflowError, EOFError) as error:
        found = [Finding(path="(the whole result)", cause="unknown", inside=f"cannot be read as a tar: {error}")]
    return [
        replace(each, path=shown(each.path, 400), inside=shown(each.inside, 200), one=shown(each.one), two=shown(each.two))
        for each in found
    ]


def _compared(one: IO[bytes], two: IO[bytes]) -> list[Finding]:
    found: list[Finding] = []
    with tarfile.open(fileobj=one, mode="r:") as first, tarfile.open(fileobj=two, mode="r:") as second:
        listed = [{member.name: member for member in each} for each in (first, second)]
        tars = (first, second)

        def content(name: str) -> tuple[bytes | None, bytes | None]:
            read = []
            for tar, members in zip(tars, listed, strict=True):
                member = members.get(name)
                reader = tar.extractfile(member) if member and member.isfile() and member.size <= _LIMIT else None
                read.append(reader.read() if reader else None)
            return read[0], read[1]

        for name in sorted(listed[0].keys() | listed[1].keys()):
            mine, theirs = (members.get(name) for members in listed)
            if mine is None or theirs is None:
                a, b = ("is not there" if each is None else "is there" for each in (mine, theirs))
                found.append(Finding(path=name, cause="listing", one=a, two=b))
            elif mine.type != theirs.type or mine.linkname != theirs.linkname:
                found.append(Finding(path=name, cause="mode", one=_said(mine), two=_said(theirs)))
            elif mine.isfile():
                data = content(name)
                if data[0] is None or data[1] is None:
                    if mine.size != theirs.size or _hash(first, mine) != _hash(second, theirs):
                        found.append(Finding(path=name, cause="unknown", inside="too large to look into"))
                else:
                    # An .rdx says where the objects of its .rdb lie, and follows from them.
                    if not (name.endswith(".rdx") and found and found[-1].path == f"{name[:-1]}b"):
                        found += compare_file(name, data[0], data[1], content)
                if mine.mode != theirs.mode:
                    found.append(Finding(path=name, cause="mode", one=f"mode {mine.mode:04o}", two=f"mode {theirs.mode:04o}"))
            if len(found) >= _FOUND:
                break
    return found


def differing_tars(one: Path, two: Path) -> list[Finding]:
    """The same for two files."""
    with one.open("rb") as first, two.open("rb") as second:
        return compare_tars(first, second)


def _said(member: tarfile.TarInfo) -> str:
    return shown(f"a link to {member.linkname}" if member.issym() else "a folder" if member.isdir() else "a file")


def _hash(tar: tarfile.TarFile, member: tarfile.TarInfo) -> str:
    import hashlib

    reader = tar.extractfile(member)
    assert reader is not None
    hasher = hashlib.sha256()
    while block := reader.read(1 << 20):
        hasher.update(block)
    return hasher.hexdigest()

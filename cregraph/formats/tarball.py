"""Tarballs of one package, read without unpacking: R packages (source and binary) and Python sdists.

Such a tarball has one top folder and is untrusted: `cregraph.formats.untrusted_tar` refuses members that are unsafe to unpack.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from cregraph.errors import CregraphError
from cregraph.formats.inflate import blocks_as_file, inflated_file
from cregraph.formats.untrusted_tar import PACKAGE, Member, Reader, leads_out
from cregraph.text import printable

__all__ = ["Scanned", "files", "scan", "unpack"]

_READ = 1 << 20


@dataclass(frozen=True, kw_only=True, slots=True)
class Scanned:
    """A tarball's top folder, the names of files below it, and the bytes of the wanted files."""

    top: str
    files: frozenset[str]
    read: Mapping[str, bytes]


def scan(path: Path, *, what: str, wanted: Collection[str], hint: str) -> Scanned:
    """Check every member of the tarball at `path` (plain, gzip, bzip2, xz or zstd) and read the `wanted` files.

    Raises CregraphError, naming `what` and the member, if it is unsafe to unpack. `hint` is the hint of that error.
    """
    top = ""
    files: set[str] = set()
    read: dict[str, bytes] = {}
    tar = _opened(path, what, hint)
    for member in tar:
        _check(member, what)
        first, _, inner = member.path.partition("/")
        top = top or first
        if first and first != top:
            raise CregraphError(f"{what} has two top folders, `{top}` and `{first}` (expected one)", hint=hint)
        if member.type != "directory":
            files.add(inner)
            if inner in wanted:
                if member.type != "file" or member.size > _READ:
                    raise CregraphError(f"{what}: `{member.path}` is not a file of at most {_READ >> 20} MiB")
                read[inner] = tar.read()
    return Scanned(top=top, files=frozenset(files), read=read)


def files(path: Path, *, what: str, chosen: Callable[[str], bool], most: int) -> Iterator[tuple[str, bytes]]:
    """Yield name and bytes of the regular files below the top folder whose names are `chosen`.

    Raises CregraphError, naming `what` and the member, for a file of more than `most` bytes, and as `scan` does.
    """
    tar = _opened(path, what)
    for member in tar:
        inner = member.path.partition("/")[2]
        if member.type == "file" and chosen(inner):
            if member.size > most:
                raise CregraphError(f"{what}: `{member.path}` has more than {most >> 20} MiB")
            yield inner, tar.read()


def unpack(path: Path, out: IO[bytes], *, what: str) -> list[Member]:
    """Inflate the tarball into the empty file `out`. Return its files and links; contents start at `offset` in `out`.

    Raises CregraphError as `scan` does.
    """
    out.writelines(inflated_file(path, what=what))
    out.seek(0)
    found = []
    for member in Reader(out, what=what, policy=PACKAGE):
        _check(member, what)
        if member.type != "directory":
            found.append(member)
    return found


def _opened(path: Path, what: str, hint: str | None = None) -> Reader:
    return Reader(blocks_as_file(inflated_file(path, what=what, hint=hint)), what=what, policy=PACKAGE, hint=hint)


def _check(member: Member, what: str) -> None:
    """Refuse paths and links that other tools read differently or that lead out of the top folder."""
    if "\\" in member.name:
        raise CregraphError(f"{what}: `{printable(member.name, 200)}` leads out of its folder")
    top = member.path.split("/")[0]
    if (member.type == "symlink" and leads_out(member.path, member.link, top)) or (
        member.type == "hardlink" and not member.link.startswith(top + "/")
    ):
        raise CregraphError(
            f"{what}: `{printable(member.name, 200)}` is a link to `{printable(member.link, 200)}`, outside of its folder"
        )

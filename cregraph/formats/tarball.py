"""Tarballs of one package, looked through without unpacking: R packages (source and binary) and Python sdists.

Such a tarball has one top folder. It comes from anywhere: names that climb, links that lead out, devices, members that
stand twice and bombs are refused by name.
"""

from __future__ import annotations

import bz2
import gzip
import lzma
import posixpath
import tarfile
import zlib
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, cast

from cregraph.errors import CregraphError

__all__ = ["Scanned", "files", "leads_out", "scan", "unpack"]

#: Bytes of all members and headers, bytes of a member that is read, members. Real ones are far below.
_UNPACKED = 1 << 30
_READ = 1 << 20
_MEMBERS = 200_000
#: Bytes of a header: a long name, extended attributes.
_HEADER = 1 << 20
_BLOCK = 1 << 20


@dataclass(frozen=True, kw_only=True, slots=True)
class Scanned:
    """What a tarball holds: its top folder, the names of its files below that, and the bytes of those that were wanted."""

    top: str
    files: frozenset[str]
    read: Mapping[str, bytes]


def scan(path: Path, *, what: str, wanted: Collection[str], hint: str) -> Scanned:
    """Look at every member of the tarball at `path` (plain, gzip, bzip2 or xz); read the files `wanted` (`DESCRIPTION`).

    Raises CregraphError naming `what` and the member for whatever must not be unpacked; `hint` says what is wanted instead.
    """
    top = ""
    files: set[str] = set()
    read: dict[str, bytes] = {}
    try:
        with _inflated(path, what) as stream, _opened(stream, "r|") as tar:
            for count, member in enumerate(tar):
                if count >= _MEMBERS:
                    raise CregraphError(f"{what} holds more than {_MEMBERS} members, which no package does")
                name = _checked(member, what)
                if not name:
                    continue
                first, _, inner = name.partition("/")
                top = top or first
                if first != top:
                    raise CregraphError(f"{what} has two top folders, `{top}` and `{first}`; a source package has one", hint=hint)
                if member.isdir():
                    continue
                if inner in files:
                    raise CregraphError(f"{what}: `{name}` stands in it twice")
                files.add(inner)
                if inner in wanted:
                    if not member.isfile() or member.size > _READ:
                        raise CregraphError(f"{what}: `{name}` is no file of at most {_READ >> 20} MiB")
                    reader = tar.extractfile(member)
                    read[inner] = reader.read() if reader else b""
    except FileNotFoundError:
        raise
    except _BROKEN as error:
        raise CregraphError(f"{what} cannot be read as a source tarball: {error}", hint=hint) from None
    return Scanned(top=top, files=frozenset(files), read=read)


def files(path: Path, *, what: str, chosen: Callable[[str], bool], most: int) -> Iterator[tuple[str, bytes]]:
    """The regular files of a tarball that `scan` let pass, below its top folder, whose names are `chosen`, with their bytes.

    Raises CregraphError naming `what` and the member for one of more than `most` bytes.
    """
    try:
        with _inflated(path, what) as stream, _opened(stream, "r|") as tar:
            for member in tar:
                inner = _checked(member, what).partition("/")[2]
                if member.isreg() and chosen(inner):
                    if member.size > most:
                        raise CregraphError(f"{what}: `{member.name}` has more than {most >> 20} MiB")
                    reader = tar.extractfile(member)
                    yield inner, reader.read() if reader else b""
    except _BROKEN as error:
        raise CregraphError(f"{what} cannot be read: {error}") from None


def unpack(path: Path, out: IO[bytes], *, what: str) -> list[tuple[str, tarfile.TarInfo]]:
    """Inflate the tarball into the empty file `out`; its files and links by their paths, contents at `offset_data` in `out`.

    Checked as by `scan`, and files with holes are refused. An OSError of this machine (a full disk) stays one.
    """
    found: dict[str, tarfile.TarInfo] = {}
    try:
        with _inflated(path, what) as stream:
            while block := stream.read(_BLOCK):
                out.write(block)
        out.seek(0)
        with _opened(out, "r:") as tar:
            for count, member in enumerate(tar):
                if count >= _MEMBERS:
                    raise CregraphError(f"{what} holds more than {_MEMBERS} members, which no package does")
                name = _checked(member, what)
                if not name or member.isdir():
                    continue
                if member.issparse():
                    raise CregraphError(f"{what}: `{name}` is stored with holes (a sparse file), which is not read here")
                if name in found:
                    raise CregraphError(f"{what}: `{name}` stands in it twice")
                found[name] = member
    except _BROKEN as error:
        if getattr(error, "errno", None) is not None:
            raise
        raise CregraphError(f"{what} cannot be read: {error}") from None
    return list(found.items())


#: What the readers raise for bytes that are none.
_BROKEN = (tarfile.TarError, EOFError, zlib.error, lzma.LZMAError, OSError, ValueError)


class _Small(tarfile.TarInfo):
    """A header that claims to be large is refused before it fills the memory."""

    def _proc_member(self, tar: tarfile.TarFile) -> tarfile.TarInfo:
        extended = (tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.SOLARIS_XHDTYPE, tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK)
        if self.type in extended and self.size > _HEADER:
            raise tarfile.ReadError(f"a header of {self.size} bytes")
        return super()._proc_member(tar)  # type: ignore[misc,no-any-return]


def _opened(stream: object, mode: str) -> tarfile.TarFile:
    return tarfile.open(fileobj=cast(IO[bytes], stream), mode=cast(Any, mode), tarinfo=_Small)


def _checked(member: tarfile.TarInfo, what: str) -> str:
    """The member's path without `./`; empty for the archive's own folder. Refuses what must not be unpacked."""
    name = member.name
    if name.startswith("/") or "\\" in name or "\0" in name or ".." in name.split("/"):
        raise CregraphError(f"{what}: `{name[:200]}` leads out of its folder")
    path = posixpath.normpath(name) if name else "."
    if path == ".":
        return ""
    if not (member.isfile() or member.isdir() or member.issym() or member.islnk()):
        raise CregraphError(f"{what}: `{name[:200]}` is a device or another special file")
    top = path.split("/")[0]
    if member.issym() and leads_out(path, member.linkname, top):
        raise CregraphError(f"{what}: `{name[:200]}` is a link to `{member.linkname[:200]}`, out of its folder")
    if member.islnk() and leads_out(f"{top}/x", posixpath.relpath(member.linkname, top), top):
        raise CregraphError(f"{what}: `{name[:200]}` is a link to `{member.linkname[:200]}`, out of its folder")
    return path


def leads_out(path: str, link: str, top: str) -> bool:
    if link.startswith("/"):
        return True
    end = posixpath.normpath(posixpath.join(posixpath.dirname(path), link))
    return end != top and not end.startswith(top + "/")


def _inflated(path: Path, what: str) -> _Bounded:
    with path.open("rb") as file:
        magic = file.read(6)
    opened: IO[bytes]
    if magic.startswith(b"\x1f\x8b"):
        opened = cast(IO[bytes], gzip.open(path))  # noqa: SIM115
    elif magic.startswith(b"BZh"):
        opened = cast(IO[bytes], bz2.open(path))  # noqa: SIM115
    elif magic.startswith(b"\xfd7zXZ\x00"):
        opened = cast(IO[bytes], lzma.open(path))  # noqa: SIM115
    else:
        opened = path.open("rb")
    return _Bounded(opened, what)


class _Bounded:
    """A reader that refuses to inflate without end, headers included."""

    def __init__(self, file: IO[bytes], what: str) -> None:
        self._file = file
        self._what = what
        self._left = _UNPACKED

    def __enter__(self) -> _Bounded:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def read(self, size: int = -1) -> bytes:
        data = self._file.read(self._left + 1 if size < 0 else min(size, self._left + 1))
        self._left -= len(data)
        if self._left < 0:
            raise CregraphError(f"{self._what} unpacks to more than {_UNPACKED >> 30} GiB, which no package does")
        return data

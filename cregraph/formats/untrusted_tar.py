"""Tars of unknown origin, read forward without unpacking, in bounded memory.

The reader understands ustar, pax (POSIX.1-2001) and GNU headers. It refuses names that lead out, invalid numbers, and damaged
or huge headers. It also refuses tars that are cut or past the limits of their `Policy`.
"""

from __future__ import annotations

import posixpath
from collections.abc import Iterator
from dataclasses import dataclass
from typing import IO, Literal

from cregraph.errors import CregraphError
from cregraph.formats import tar_header
from cregraph.text import printable

__all__ = ["IMAGE", "PACKAGE", "Member", "Policy", "Reader", "is_tar", "leads_out"]

_CHUNK = 1 << 20
_HEADER_LIMIT = 1 << 20
_PATH_LIMIT = 4096
_SPARSE = {"GNU.sparse.major", "GNU.sparse.map"}
_NUMBERS = (("size", 124, 136), ("uid", 108, 116), ("gid", 116, 124), ("mtime", 136, 148))
_ZERO = bytes(tar_header.BLOCK)

Type = Literal["file", "directory", "symlink", "hardlink", "other"]
_TYPES: dict[bytes, Type] = {b"0": "file", b"\0": "file", b"7": "file", b"S": "file", b"1": "hardlink", b"2": "symlink"}
_TYPES |= {b"5": "directory", b"3": "other", b"4": "other", b"6": "other"}


@dataclass(frozen=True, kw_only=True, slots=True)
class Policy:
    """Limits of a tar: members, and bytes in total (headers included).

    A `package` holds files, directories and links only, at relative paths, each path once. Image layers may hold any member.
    In a layer an absolute name is relative to the root, and a later member replaces an earlier one. Past `free` bytes,
    inflated bytes may be at most 1100 times the compressed ones; gzip's own limit is 1032.
    """

    members: int
    bytes: int
    free: int
    package: bool


IMAGE = Policy(members=10_000_000, bytes=1 << 40, free=16 << 30, package=False)
PACKAGE = Policy(members=500_000, bytes=16 << 30, free=256 << 20, package=True)


@dataclass(slots=True)
class Member:
    """A member of a tar.

    Attributes:
        name: As written, without a directory's trailing slash. Bytes that are not UTF-8 are surrogates (PEP 383).
        path: `name` without leading slash and `.` parts; empty for the root.
        mode: Permission bits, with set-id and sticky bits.
        mtime: Whole seconds.
        size: Bytes of content; 0 for all but files.
        link: A symbolic link's text as written; a hard link's path, cleaned as `path` is.
        offset: Where the content starts in the stream.
        sparse: Whether the file is stored with holes. Its content cannot be read.
    """

    name: str
    path: str
    type: Type
    mode: int
    uid: int
    gid: int
    mtime: int
    size: int
    link: str
    offset: int
    sparse: bool


def leads_out(path: str, link: str, top: str = "") -> bool:
    """Return whether the symbolic link `link` at `path` leads out of the folder `top`; both paths are relative and clean."""
    end = posixpath.normpath(posixpath.join(posixpath.dirname(path), link))
    if link.startswith("/") or end == ".." or end.startswith("../"):
        return True
    return bool(top) and end != top and not end.startswith(top + "/")


def is_tar(head: bytes) -> bool:
    """Return whether a file that begins with `head` (512 bytes) is a tar with a member."""
    try:
        tar_header.check_sum(head)
    except ValueError:
        return False
    return len(head) == tar_header.BLOCK


class Reader:
    """The members of a tar in order. `blocks` and `read` give the current member's content; unread content is skipped.

    At the end of the tar the rest of `stream` is read. Error messages begin with `what`.
    """

    def __init__(self, stream: IO[bytes], *, what: str, policy: Policy, hint: str | None = None) -> None:
        self._stream = stream
        self._what = what
        self._policy = policy
        self._hint = hint
        self._global: dict[str, str] = {}
        self._member: Member | None = None
        self._at = 0  # bytes read so far
        self._left = 0  # unread bytes of the member's content
        self._padding = 0

    def __iter__(self) -> Iterator[Member]:
        """Yield each member. Raises CregraphError if the tar is unsafe, damaged or past the limits."""
        count = 0
        seen: set[str] = set()
        while (member := self._readable()) is not None:
            count += 1
            if count > self._policy.members:
                raise self._full()
            if self._policy.package:
                self._check_package(member, seen)
            self._member, self._left, self._padding = member, member.size, -member.size % tar_header.BLOCK
            yield member
            self._skip(self._left + self._padding)
        while self._some(_CHUNK):
            pass

    def blocks(self) -> Iterator[bytes]:
        """Yield the rest of the member's content, in blocks of at most 1 MiB."""
        assert self._member is not None
        if self._member.sparse:
            raise self._bad(f"`{_shown(self._member.name)}` is a sparse file, which cregraph does not read")
        while self._left:
            block = self._some(min(self._left, _CHUNK))
            if not block:
                raise self._bad("ends in the middle of a file")
            self._left -= len(block)
            yield block

    def read(self, most: int | None = None) -> bytes:
        """Return the rest of the member's content, cut after `most` bytes."""
        data = bytearray()
        for block in self.blocks():
            data += block
            if most is not None and len(data) >= most:
                break
        return bytes(data[:most])

    def _readable(self) -> Member | None:
        try:
            return self._next()
        except ValueError as error:
            raise self._bad(str(error)) from None

    def _next(self) -> Member | None:
        extended: dict[str, str] = {}
        for _ in range(64):
            block = self._exactly(tar_header.BLOCK)
            if not block and extended:
                raise self._bad("ends after an extended header")
            if not block or block == _ZERO:
                return None
            tar_header.check_sum(block)
            flag = block[156:157]
            if flag in (b"x", b"g", b"L", b"K"):
                self._extend(flag, block, extended)
            else:
                return self._read_header(block, flag, {**self._global, **extended} if self._global else extended)
        raise self._bad("has too many extended headers for one member")

    def _extend(self, flag: bytes, block: bytes, extended: dict[str, str]) -> None:
        """Read an extended header. GNU's long names win over pax records."""
        size = tar_header.number(block[124:136])
        if not 0 <= size <= _HEADER_LIMIT:
            raise self._bad(f"has an extended header of {size} bytes (maximum {_HEADER_LIMIT})")
        data = self._exactly(size)
        self._skip(-size % tar_header.BLOCK)
        if len(data) < size:
            raise self._bad("ends in the middle of a header")
        if flag == b"x":
            extended.update(tar_header.records(data))
        elif flag == b"g":
            self._global.update(tar_header.records(data))
        else:
            extended["GNU.long" + flag.decode()] = tar_header.decoded(_text(data))

    def _read_header(self, block: bytes, flag: bytes, extended: dict[str, str]) -> Member:
        name, link = self._names(block, extended)
        sparse = flag == b"S" or not _SPARSE.isdisjoint(extended)
        found = _TYPES.get(flag, "other")
        if found == "file" and not sparse and name.endswith("/"):
            found = "directory"  # tars before POSIX mark directories so
        size, uid, gid, mtime = [
            tar_header.decimal(extended[key]) if key in extended else tar_header.number(block[start:end])
            for key, start, end in _NUMBERS
        ]
        if flag == b"S":
            self._skip_sparse_map(block)
        if flag in b"123456":
            size = 0  # no content follows these, even if their header states a size
        if min(size, uid, gid) < 0:
            raise self._bad(f"gives `{_shown(name)}` a size or owner below zero")
        return Member(
            name=name.rstrip("/") if found == "directory" else name,
            path=self._clean(name),
            type=found,
            mode=tar_header.number(block[100:108]) & 0o7777,
            uid=uid,
            gid=gid,
            mtime=mtime,
            size=0 if found == "directory" else size,
            link=self._clean(link) if found == "hardlink" else link,
            offset=self._at,
            sparse=sparse,
        )

    def _names(self, block: bytes, extended: dict[str, str]) -> tuple[str, str]:
        """Return the member's name and its link target."""
        name = _text(block[:100])
        if block[257:263] == b"ustar\0" and (prefix := _text(block[345:500])):
            name = prefix + b"/" + name
        path = extended.get("GNU.longL") or extended.get("GNU.sparse.name") or extended.get("path") or tar_header.decoded(name)
        link = extended.get("GNU.longK") or extended.get("linkpath") or tar_header.decoded(_text(block[157:257]))
        if len(path) > _PATH_LIMIT or len(link) > _PATH_LIMIT:
            raise self._bad(f"names a path of more than {_PATH_LIMIT} characters")
        return path, link

    def _clean(self, name: str) -> str:
        if "\0" in name:
            raise self._bad("names a path with a NUL character")
        if "/." not in name and "//" not in name and name[:1] not in "./" and name[-1:] != "/":
            return name  # most are clean
        parts = [part for part in name.split("/") if part and part != "."]
        if ".." in parts or (self._policy.package and name.startswith("/")):
            raise self._bad(f"`{_shown(name.rstrip('/'))}` leads out of its folder")
        return "/".join(parts)

    def _check_package(self, member: Member, seen: set[str]) -> None:
        if member.type == "other":
            raise self._bad(f"`{_shown(member.name)}` is a device or another special file")
        if member.sparse:
            raise self._bad(f"`{_shown(member.name)}` is a sparse file, which cregraph does not read")
        if member.type != "directory":
            if member.path in seen:
                raise self._bad(f"`{_shown(member.path)}` is contained twice")
            seen.add(member.path)

    def _skip_sparse_map(self, block: bytes) -> None:
        more = block[482] == 1
        for _ in range(100_000):
            if not more:
                return
            block = self._exactly(tar_header.BLOCK)
            if len(block) < tar_header.BLOCK:
                raise self._bad("ends in the middle of a header")
            more = block[504] == 1
        raise self._bad("has a sparse file with a map that is too long")

    def _some(self, most: int) -> bytes:
        data = self._stream.read(most)
        self._at += len(data)
        if self._at > self._policy.bytes:
            raise self._full()
        return data

    def _exactly(self, size: int) -> bytes:
        """Return `size` bytes, or fewer at the end of the stream. Refuse a part of a header."""
        data = self._some(size)
        if len(data) == size:
            return data
        while len(data) < size and (more := self._some(size - len(data))):
            data += more
        if 0 < len(data) < size == tar_header.BLOCK:
            raise self._bad("ends in the middle of a header")
        return data

    def _skip(self, size: int) -> None:
        while size:
            block = self._some(min(size, _CHUNK))
            if not block:
                raise self._bad("ends in the middle of a file")
            size -= len(block)

    def _full(self) -> CregraphError:
        return self._bad(f"holds more than {self._policy.members} members or {self._policy.bytes >> 30} GiB")

    def _bad(self, why: str) -> CregraphError:
        return CregraphError(f"{self._what}: {why}", self._hint)


def _text(field: bytes) -> bytes:
    return field.partition(b"\0")[0]


def _shown(name: str) -> str:
    return printable(name, 200)

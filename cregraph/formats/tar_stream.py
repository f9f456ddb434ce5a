"""A tar of unknown origin read forward: one header walk, no member unpacked, memory bounded.

Read are ustar, pax (POSIX.1-2001) and GNU headers (long names, base-256 numbers, old sparse files). Names are checked here,
so nothing that climbs (`..`) leaves this module. Limits: an extended header 1 MiB, a path 4096 bytes, 10 million
members, 1 TiB of plain bytes, and past 16 GiB a ratio of 1100 to the compressed ones (gzip's own limit is 1032).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import IO, Literal

from cregraph.errors import CregraphError

__all__ = ["Member", "Taker", "bounded", "members"]

_BLOCK = 512
_CHUNK = 1 << 20
_HEADER_LIMIT = 1 << 20
_PATH_LIMIT = 4096
_MEMBERS_LIMIT = 10_000_000
_ZERO = bytes(_BLOCK)
_OCTAL = b"01234567"

Type = Literal["file", "directory", "symlink", "hardlink", "other"]
_TYPES: dict[bytes, Type] = {
    b"0": "file",
    b"\0": "file",
    b"7": "file",
    b"S": "file",
    b"1": "hardlink",
    b"2": "symlink",
    b"5": "directory",
    b"3": "other",
    b"4": "other",
    b"6": "other",
}


@dataclass(slots=True)
class Member:
    """A member: `path` without leading and trailing slash, empty for the root. `link` as written. `mtime` in whole seconds."""

    path: str
    type: Type
    mode: int
    uid: int
    gid: int
    mtime: int
    size: int
    link: str


#: Takes a member's content as it passes: called with blocks, and with None at its end.
Taker = Callable[[bytes | None], None]


def members(stream: IO[bytes], *, what: str, taker: Callable[[Member], Taker | None]) -> Iterator[Member]:
    """The members in order, each after its content went to what `taker` gave for it (None: skipped).

    `stream` is read to its end. Raises CregraphError, beginning with `what`, for what is no tar, is cut, climbs or is
    past the limits.
    """
    walk = _Walk(stream, what)
    count = 0
    while (member := walk.next()) is not None:
        count += 1
        if count > _MEMBERS_LIMIT:
            raise CregraphError(f"{what}: has more than {_MEMBERS_LIMIT} members")
        walk.content(member.size, taker(member) if member.type == "file" else None)
        yield member
    while stream.read(_CHUNK):
        pass


class _Walk:
    def __init__(self, stream: IO[bytes], what: str) -> None:
        self._stream = stream
        self._what = what
        self._global: dict[str, str] = {}

    def next(self) -> Member | None:
        extended: dict[str, str] = {}
        long_name = long_link = None
        for _ in range(64):
            block = self._stream.read(_BLOCK)
            if not block:
                if extended or long_name is not None:
                    raise self._bad("ends after an extended header")
                return None
            if len(block) < _BLOCK:
                raise self._bad("ends in the middle of a header")
            if block == _ZERO:
                return None
            self._check(block)
            flag = block[156:157]
            if flag in (b"x", b"g", b"L", b"K"):
                size = self._number(block[124:136])
                if not 0 <= size <= _HEADER_LIMIT:
                    raise self._bad(f"has an extended header of {size} bytes; {_HEADER_LIMIT} are the most that is read")
                data = self._small(size)
                if flag == b"x":
                    extended.update(self._records(data))
                elif flag == b"g":
                    self._global.update(self._records(data))
                elif flag == b"L":
                    long_name = data.rstrip(b"\0")
                else:
                    long_link = data.rstrip(b"\0")
                continue
            return self._member(block, flag, {**self._global, **extended}, long_name, long_link)
        raise self._bad("has too many extended headers for one member")

    def content(self, size: int, take: Taker | None) -> None:
        left = size + -size % _BLOCK
        wanted = size
        read = self._stream.read
        while left:
            block = read(min(left, _CHUNK))
            if not block:
                raise self._bad("ends in the middle of a file")
            left -= len(block)
            if take is not None:
                if wanted:
                    take(block[:wanted] if len(block) > wanted else block)
                wanted = max(0, wanted - len(block))
        if take is not None:
            take(None)

    def _member(
        self, block: bytes, flag: bytes, extended: dict[str, str], long_name: bytes | None, long_link: bytes | None
    ) -> Member:
        name = long_name if long_name is not None else _text(block[:100])
        if long_name is None and block[257:263] == b"ustar\0" and (prefix := _text(block[345:500])):
            name = prefix + b"/" + name
        path = extended.get("GNU.sparse.name") or extended.get("path") or name.decode("utf-8", "surrogateescape")
        link_bytes = long_link if long_link is not None else _text(block[157:257])
        link = extended.get("linkpath") or link_bytes.decode("utf-8", "surrogateescape")
        kind = _TYPES.get(flag, "other")
        if kind == "file" and flag != b"S" and path.endswith("/"):
            kind = "directory"  # how tars before POSIX say it
        size = self._decimal(extended["size"]) if "size" in extended else self._number(block[124:136])
        if flag == b"S":
            self._skip_sparse_map(block)
        if kind in ("directory", "symlink", "hardlink") or flag in (b"3", b"4", b"6"):
            size = 0  # no content follows these, whatever their header says
        if len(path) > _PATH_LIMIT or len(link) > _PATH_LIMIT:
            raise self._bad(f"names a path of more than {_PATH_LIMIT} characters")
        uid = self._decimal(extended["uid"]) if "uid" in extended else self._number(block[108:116])
        gid = self._decimal(extended["gid"]) if "gid" in extended else self._number(block[116:124])
        if size < 0 or uid < 0 or gid < 0:
            raise self._bad(f"gives `{path[:200]}` a size or owner below zero")
        return Member(
            path=self._clean(path),
            type=kind,
            mode=self._number(block[100:108]) & 0o7777,
            uid=uid,
            gid=gid,
            mtime=self._decimal(extended["mtime"]) if "mtime" in extended else self._number(block[136:148]),
            size=size,
            link=self._clean(link) if kind == "hardlink" else link,
        )

    def _clean(self, path: str) -> str:
        if "\0" in path:
            raise self._bad("names a path with a NUL in it")
        parts = [part for part in path.split("/") if part and part != "."]
        if ".." in parts:
            raise self._bad(f"names a path that climbs: `{path[:200]}`")
        return "/".join(parts)

    def _skip_sparse_map(self, block: bytes) -> None:
        more = block[482] == 1
        for _ in range(100_000):
            if not more:
                return
            block = self._small(_BLOCK)
            more = block[504] == 1
        raise self._bad("has a sparse file with too long a map")

    def _small(self, size: int) -> bytes:
        data = self._stream.read(size + -size % _BLOCK)
        if len(data) < size:
            raise self._bad("ends in the middle of a header")
        return data[:size]

    def _records(self, data: bytes) -> dict[str, str]:
        found: dict[str, str] = {}
        at = 0
        while at < len(data) and data[at : at + 1] != b"\0":
            space = data.find(b" ", at, at + 20)
            digits = data[at:space] if space > 0 else b""
            end = at + int(digits) if digits.isdigit() else 0
            record = data[space + 1 : end]
            key, equals, value = record.partition(b"=")
            if not space < end <= len(data) or not equals or not value.endswith(b"\n"):
                raise self._bad("has a damaged extended header")
            found[key.decode("utf-8", "surrogateescape")] = value[:-1].decode("utf-8", "surrogateescape")
            at = end
        return found

    def _check(self, block: bytes) -> None:
        stated = block[148:156].strip(b" \0")
        if not stated or stated.translate(None, _OCTAL) or int(stated, 8) != sum(block) - sum(block[148:156]) + 8 * 32:
            raise self._bad("is no tar, or a damaged one (a header's check sum is wrong)")

    def _number(self, field: bytes) -> int:
        first = field[0]
        if first in (0x80, 0xFF):  # GNU's base-256, big endian, two's complement
            value = int.from_bytes(field[1:], "big")
            return value - (1 << (8 * (len(field) - 1))) if first == 0xFF else self._sane(value)
        text = field.strip(b" \0")
        if text.translate(None, _OCTAL):
            raise self._bad("has a header with a number that is none")
        return int(text, 8) if text else 0

    def _decimal(self, text: str) -> int:
        whole, _, part = text.partition(".")
        negative = whole.startswith("-")
        digits = whole[negative:]
        if not digits.isascii() or not digits.isdigit() or len(digits) > 18:
            raise self._bad(f"has an extended header with a number that is none: `{text[:40]}`")
        value = int(digits)
        return -value - (1 if part.strip("0") else 0) if negative else value

    def _sane(self, value: int) -> int:
        if value >= 1 << 62:
            raise self._bad("has a header with a number past all bounds")
        return value

    def _bad(self, why: str) -> CregraphError:
        return CregraphError(f"{self._what}: {why}")


def _text(field: bytes) -> bytes:
    return field.partition(b"\0")[0]


def bounded(blocks: Iterable[bytes], *, compressed: Callable[[], int], what: str) -> Iterator[bytes]:
    """`blocks`, until they are more than any image holds; `compressed` gives how many bytes they came from so far."""
    total = 0
    for block in blocks:
        total += len(block)
        if total > 1 << 40:
            raise CregraphError(f"{what}: unpacks to more than 1 TiB")
        if total > 16 << 30 and total > 1100 * compressed():
            raise CregraphError(f"{what}: unpacks to more than 1100 times its size")
        yield block

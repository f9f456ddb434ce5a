"""R's own files: the objects of a lazy-load database (.rdb) by name, and the likely cause of a difference between two objects.

An object is not read as R would read it. Its texts are found by their headers, and the rest is compared as numbers.
Source: "R Internals", 1.8 "Serialization Formats", XDR, versions 2 and 3; for databases R's `makeLazyLoad.R`.
"""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import re
import struct
import zlib
from collections.abc import Iterator
from typing import Any

from cregraph.build.compare.finding import Cause, Finding, shown
from cregraph.build.compare.leaves import compare_bytes, times_in, word_cause

__all__ = ["compare_objects", "objects", "unpacked"]

_LIMIT = 256 << 20
_SORTED = 1 << 20  # bytes up to which another order is looked for
_SYMBOL, _PAIRS, _CHARS, _LOGICAL, _INTEGER, _TEXTS, _LIST, _NIL, _REFERENCE = 1, 2, 9, 10, 13, 16, 19, 254, 255
#: The header of a text (CHARSXP): flags with an encoding, then the length in bytes.
_TEXT = re.compile(rb"\0[\0-\xff]\0\x09([\0-\x0f][\0-\xff]{3})")


def unpacked(data: bytes) -> bytes:
    """Return `data` without gzip, bzip2 or xz around it. Raises ValueError if it is damaged or larger than 256 MiB."""
    try:
        if data[:2] == b"\x1f\x8b":
            with gzip.GzipFile(fileobj=io.BytesIO(data)) as file:
                plain = file.read(_LIMIT + 1)
        elif data[:3] == b"BZh":
            plain = bz2.BZ2Decompressor().decompress(data, _LIMIT + 1)
        elif data[:6] == b"\xfd7zXZ\0":
            plain = lzma.LZMADecompressor(memlimit=_LIMIT).decompress(data, _LIMIT + 1)
        else:
            return data
    except (OSError, EOFError, lzma.LZMAError, zlib.error) as error:
        raise ValueError(f"damaged: {error}") from None
    if len(plain) > _LIMIT:
        raise ValueError("too large to compare")
    return plain


def compare_objects(path: str, name: str, one: bytes, two: bytes) -> list[Finding]:
    """Return how two serialized objects differ, at most one finding per cause. `name` is the object's, empty for a whole file."""
    (texts, rest), (other_texts, other_rest) = _split(one), _split(two)
    found: dict[Cause, Finding] = {}

    def add(cause: Cause, a: object, b: object) -> None:
        found.setdefault(cause, Finding(path=path, cause=cause, inside=name, one=shown(a), two=shown(b)))

    if texts != other_texts and sorted(texts) == sorted(other_texts):
        add("order", texts, other_texts)
    elif len(texts) == len(other_texts):
        for a, b in zip(texts, other_texts, strict=True):
            if a != b:
                add(word_cause(a, b), a, b)
    if len(rest) == len(other_rest) and rest != other_rest:
        times = next(times_in(rest, other_rest, days="Date" in texts), None)
        at = next(i for i, (a, b) in enumerate(zip(rest, other_rest, strict=True)) if a != b)
        if times is not None:
            add("time", *times[1:])
        elif len(rest) <= _SORTED and sorted(rest) == sorted(other_rest):
            add("order", "numbers", "the same numbers")
        else:
            add("random", f"numbers {rest[at : at + 8].hex()}", f"numbers {other_rest[at : at + 8].hex()}")
    return list(found.values()) or compare_bytes(path, one, two, inside=name)


def _split(data: bytes) -> tuple[list[str], bytes]:
    """The texts of a serialized object, and its other bytes."""
    texts: list[str] = []
    rest = []
    at = 0
    for header in _TEXT.finditer(data):
        end = header.end() + int.from_bytes(header[1])
        if at <= header.start() and end <= len(data):
            texts.append(data[header.end() : end].decode("utf-8", "backslashreplace"))
            rest.append(data[at : header.start()])
            at = end
    return texts, b"".join([*rest, data[at:]])


# -- lazy-load databases


def objects(rdb: bytes, rdx: bytes) -> dict[str, bytes]:
    """Return the serialized objects of a lazy-load database by name, also those of its environments.

    Raises:
        ValueError: The database or its index (.rdx) is damaged, or larger than 256 MiB.
    """
    try:
        parts = _Index(unpacked(rdx)).read()
        places = {name: place for part in parts.values() if isinstance(part, dict) for name, place in part.items()}
        found: dict[str, bytes] = {}
        left = _LIMIT
        for name, (at, size) in places.items():
            found[name] = _chunk(rdb[at : at + size], left)
            left -= len(found[name])
    except (struct.error, IndexError, RecursionError, AttributeError, TypeError) as error:
        raise ValueError(f"not a lazy-load database: {error}") from None
    return found


def _chunk(data: bytes, limit: int) -> bytes:
    """Four bytes of length, then zlib; or a letter for the compressor (`2` bzip2, `Z` xz, `0` none) before the content."""
    (size,) = struct.unpack_from(">I", data)
    if size > limit:
        raise ValueError("too large to compare")
    rest = data[4:]
    try:
        if rest[:1] == b"2" and rest[1:4] == b"BZh":
            return bz2.BZ2Decompressor().decompress(rest[1:], size)
        if rest[:1] == b"Z":
            filters = [{"id": lzma.FILTER_LZMA2, "preset": 6}]
            return lzma.LZMADecompressor(lzma.FORMAT_RAW, filters=filters).decompress(rest[1:], size)
        if rest[:1] == b"0" and len(rest) == size + 1:
            return rest[1:]
        return zlib.decompressobj().decompress(rest, size)
    except (OSError, lzma.LZMAError, zlib.error) as error:
        raise ValueError(f"damaged: {error}") from None


class _Index:
    """Reads the index of a database: lists with names, integers and texts, and nothing else."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 2
        self._symbols: list[str] = []

    def read(self) -> dict[str, Any]:
        if self._data[:2] != b"X\n" or (version := self._int()) not in (2, 3):
            raise ValueError("not in R's XDR form, version 2 or 3")
        self._at += 8
        if version == 3:
            size = self._int()
            self._at += size
        found = self._item()
        if not isinstance(found, dict):
            raise ValueError("not a list with names")
        return found

    def _item(self) -> Any:
        """A list with names as a dictionary; integers and texts as lists; a symbol or text as `str`."""
        flags = self._int()
        kind = flags & 0xFF
        if kind == _NIL:
            return None
        if kind == _REFERENCE:
            return self._symbols[(flags >> 8 or self._int()) - 1]
        if kind == _SYMBOL:
            self._symbols.append(self._item())
            return self._symbols[-1]
        if kind == _CHARS:
            size = self._int()
            if not 0 <= size <= len(self._data) - self._at:
                raise ValueError("a length that its bytes cannot contain")
            self._at += size
            return self._data[self._at - size : self._at].decode("utf-8", "backslashreplace")
        if kind == _PAIRS and flags & 0x400:
            return {self._item(): self._item(), **(self._item() or {})}
        content = list(self._vector(kind))
        names = (self._item() or {}).get("names") if flags & 0x200 else None
        return dict(zip(names, content, strict=True)) if kind == _LIST and names else content

    def _vector(self, kind: int) -> Iterator[Any]:
        count = self._int()
        if kind not in (_LOGICAL, _INTEGER, _TEXTS, _LIST) or not 0 <= count <= len(self._data) - self._at:
            raise ValueError(f"type {kind} is not that of an index, or it is too long")
        read = self._int if kind in (_LOGICAL, _INTEGER) else self._item
        for _ in range(count):
            yield read()

    def _int(self) -> int:
        (number,) = struct.unpack_from(">i", self._data, self._at)
        self._at += 4
        return int(number)

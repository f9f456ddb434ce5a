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

from cregraph.build.compare.finding import Cause, Finding, shown
from cregraph.build.compare.leaves import compare_bytes, times_in, word_cause

__all__ = ["compare_objects", "objects", "unpacked"]

_LIMIT = 256 << 20
_SORTED = 1 << 20  # bytes up to which another order is looked for
#: The header of a text (CHARSXP): flags with an encoding, then the length in bytes.
_TEXT = re.compile(rb"\0[\0-\xff]\0\x09([\0-\x0f][\0-\xff]{3})")
#: The place of an object in a database: two integers (INTSXP), offset and length.
_PLACE = re.compile(rb"\0\0\0\x0d\0\0\0\x02([\0-\x7f][\0-\xff]{3}[\0-\x7f][\0-\xff]{3})")


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
    """Return the texts of a serialized object, and its other bytes."""
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
    plain = unpacked(rdx)
    places = [struct.unpack(">2i", found[1]) for found in _PLACE.finditer(plain)]
    # The symbol `names`, the names of all objects in the order of their places, and variables, references, compressed.
    names = _split(plain)[0][1:-3]
    if not places or len(names) != len(places):
        raise ValueError("not the index of a lazy-load database")
    found: dict[str, bytes] = {}
    left = _LIMIT
    for name, (at, size) in zip(names, places, strict=True):
        found[name] = _chunk(rdb[at : at + size], left)
        left -= len(found[name])
    return found


def _chunk(data: bytes, limit: int) -> bytes:
    """Return a chunk's content: after its length (4 bytes) comes zlib, or a letter (`2` bzip2, `Z` xz, `0` none) and the rest."""
    size = int.from_bytes(data[:4])
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

"""R's own files, read far enough to say which value differs: serialized objects (.rds, .rdata) and lazy-load databases (.rdb).

The form is that of "R Internals", 1.8 "Serialization Formats", XDR, versions 2 and 3. A lazy-load database is a file of
compressed serialized objects, of which the .rdx beside it says name, offset and length (R's `makeLazyLoad.R` is the reference).
"""

from __future__ import annotations

import bz2
import gzip
import lzma
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

__all__ = ["Value", "differing", "objects", "read", "unpacked"]

_LIMIT = 256 << 20
_NIL = 254
#: Types without content of their own.
_SINGLE = {254, 253, 252, 251, 250, 242, 241}
_NAMES = {249, 248, 247}
_BYTECODE, _REPDEF, _REPREF, _ATTRLANG, _ATTRLIST = 21, 244, 243, 240, 239


@dataclass(slots=True)
class Value:
    """An object of R: its type's number, its content (a list, bytes, text, other values), and its attributes by name."""

    type: int
    content: Any = None
    attributes: dict[str, Value] = field(default_factory=dict)

    @property
    def classes(self) -> tuple[str, ...]:
        """What `class()` states, if an attribute does."""
        found = self.attributes.get("class")
        return tuple(found.content) if found and isinstance(found.content, list) else ()


def unpacked(data: bytes) -> bytes:
    """`data` without gzip, bzip2 or xz around it. Raises ValueError for what is damaged or larger than 256 MiB."""
    try:
        if data[:2] == b"\x1f\x8b":
            with gzip.GzipFile(fileobj=_file(data)) as file:
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
        raise ValueError("too large to look into")
    return plain


def read(data: bytes) -> Value:
    """The object in the serialized, unpacked `data`. Raises ValueError for what is none, or not in a form that is known here."""
    try:
        return _Reader(data).top()
    except (struct.error, IndexError, RecursionError, UnicodeDecodeError, AttributeError, TypeError) as error:
        raise ValueError(f"not a serialized object: {error}") from None


def objects(rdb: bytes, rdx: bytes) -> dict[str, bytes]:
    """The serialized objects of a lazy-load database by name, those that it keeps for environments too. Raises ValueError."""
    index = read(unpacked(rdx))
    found: dict[str, bytes] = {}
    left = _LIMIT
    for part in _named(index).values():
        if part.type == 19 and part.content:
            for name, place in _named(part).items():
                if place.type == 13 and len(place.content) == 2:
                    at, size = place.content
                    found[name] = _chunk(rdb[at : at + size], left)
                    left -= len(found[name])
    return found


def _chunk(data: bytes, limit: int) -> bytes:
    """Four bytes of length, then zlib; or a letter for the compressor (`2` bzip2, `Z` xz, `0` none) before the content."""
    plain = zlib.decompressobj()
    (size,) = struct.unpack_from(">I", data)
    if size > limit:
        raise ValueError("too large to look into")
    rest = data[4:]
    try:
        if rest[:1] == b"2" and rest[1:4] == b"BZh":
            return bz2.BZ2Decompressor().decompress(rest[1:], size)
        if rest[:1] == b"Z":
            filters = [{"id": lzma.FILTER_LZMA2, "preset": 6}]
            return lzma.LZMADecompressor(lzma.FORMAT_RAW, filters=filters).decompress(rest[1:], size)
        if rest[:1] == b"0" and len(rest) == size + 1:
            return rest[1:]
        return plain.decompress(rest, size)
    except (OSError, lzma.LZMAError, zlib.error) as error:
        raise ValueError(f"damaged: {error}") from None


def differing(
    one: Value, two: Value, at: str = "", seen: set[tuple[int, int]] | None = None
) -> Iterator[tuple[str, Value, Value]]:
    """The deepest values that differ, each with where it is (`$name`, `[[3]]`, ` attr x`), in order. `seen` is for itself."""
    seen = set() if seen is None else seen
    if (id(one), id(two)) in seen:
        return
    if isinstance(one.content, list):  # functions, environments and code lead to each other, and may be shared many times over
        seen.add((id(one), id(two)))
    if one.type != two.type:
        yield at, one, two
        return
    for name in sorted(one.attributes.keys() | two.attributes.keys()):
        mine, theirs = (each.attributes.get(name, Value(_NIL)) for each in (one, two))
        yield from differing(mine, theirs, f"{at} attr {name}" if name not in ("names", "class") else at, seen)
    if isinstance(one.content, list) and isinstance(two.content, list):
        nested = any(isinstance(item, Value) for item in (*one.content, *two.content))
        if nested and len(one.content) == len(two.content):
            names = one.attributes["names"].content if "names" in one.attributes else None
            for number, (mine, theirs) in enumerate(zip(one.content, two.content, strict=True)):
                named = names[number] if isinstance(names, list) and number < len(names) and names[number] else None
                step = f"${named}" if named else f"[[{number + 1}]]" if len(one.content) > 1 else ""
                if isinstance(mine, Value) and isinstance(theirs, Value):
                    yield from differing(mine, theirs, at + step, seen)
            return
    if not _equal(one.content, two.content):
        yield at, one, two


def _equal(one: Any, two: Any) -> bool:
    """Equal as bytes: NaN is what it is."""
    if isinstance(one, list) and isinstance(two, list) and one and isinstance(one[0], float):
        return len(one) == len(two) and struct.pack(f">{len(one)}d", *one) == struct.pack(f">{len(two)}d", *two)
    return bool(one == two)


def _named(value: Value) -> dict[str, Value]:
    names = value.attributes.get("names")
    if value.type != 19 or names is None:
        raise ValueError("not a list with names")
    return {str(name): item for name, item in zip(names.content, value.content, strict=True)}


class _Reader:
    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0
        self._references: list[Value] = []
        self._code: list[Value] = []

    def top(self) -> Value:
        if self._data[:2] != b"X\n":
            raise ValueError("not in R's XDR form")
        self._at = 2
        version = self._int()
        self._at += 8
        if version == 3:
            size = self._int()
            self._at += size
        elif version != 2:
            raise ValueError(f"version {version} is not known here")
        return self.item()

    def item(self) -> Value:
        flags = self._int()
        kind, attributes, tagged = flags & 0xFF, bool(flags & 0x200), bool(flags & 0x400)
        if kind == 255:
            return self._references[(flags >> 8 or self._int()) - 1]
        if kind in _SINGLE:
            return Value(kind)
        if kind in _NAMES:
            self._int()
            return self._keep(Value(kind, [self.item().content for _ in range(self._count())]))
        if kind == 1:
            return self._keep(Value(kind, self.item().content))
        if kind == 4:
            return self._environment()
        if kind in (2, 3, 5, 6, 17, _ATTRLANG, _ATTRLIST):
            return self._pairs(kind, attributes, tagged)
        if kind == 22:
            value = self._keep(Value(kind))
            value.content = [self.item(), self.item()]
        elif kind == 23:
            value = self._keep(Value(kind))
        elif kind in (7, 8):
            return Value(kind, self._text(self._int()))
        elif kind == 238:
            value = Value(kind, [self.item(), self.item()])
            value.attributes = _attributes(self.item())
            return value
        elif kind == _BYTECODE:
            around, self._code = self._code, [Value(_NIL)] * self._count()
            value = self._bytecode()
            self._code = around
        else:
            value = Value(kind, self._vector(kind))
        if attributes:
            value.attributes = _attributes(self.item())
        return value

    def _vector(self, kind: int) -> Any:
        if kind == 9:
            size = self._int()
            return None if size == -1 else self._text(size)
        if kind == 25:
            return None
        count = self._count()
        if kind in (10, 13):
            return list(self._unpack(f">{count}i", 4 * count))
        if kind in (14, 15):
            count *= 2 if kind == 15 else 1
            return list(self._unpack(f">{count}d", 8 * count))
        if kind == 16:
            return [self.item().content for _ in range(count)]
        if kind in (19, 20):
            return [self.item() for _ in range(count)]
        if kind == 24:
            self._at += count
            return self._data[self._at - count : self._at]
        raise ValueError(f"type {kind} is not known here")

    def _pairs(self, kind: int, attributes: bool, tagged: bool) -> Value:
        """A pairlist, call or function: `content` is its values, their tags the attribute `names`."""
        value = Value(kind, [])
        names: list[str] = []
        if attributes:
            value.attributes = _attributes(self.item())
        if kind in (3, 5):  # a function or promise: its environment stands where a tag would
            where = [self.item()] if tagged else []
            value.content = [*where, self.item(), self.item()]
            return value
        while True:
            names.append(str(self.item().content) if tagged else "")
            value.content.append(self.item())
            flags = self._int()
            if flags & 0xFF != 2 or flags & 0x200:
                self._at -= 4
                rest = self.item()
                if rest.type != _NIL:
                    value.content.append(rest)
                    names.append("")
                break
            tagged = bool(flags & 0x400)
        if any(names):
            value.attributes = {**value.attributes, "names": Value(16, names)}
        return value

    def _environment(self) -> Value:
        self._int()
        value = self._keep(Value(4))
        enclosing, frame, table, attributes = (self.item() for _ in range(4))
        value.content = [frame, table] if enclosing.type != _NIL else []
        value.attributes = _attributes(attributes)
        return value

    def _bytecode(self) -> Value:
        code = self.item()
        constants = []
        for _ in range(self._count()):
            kind = self._int()
            if kind == _BYTECODE:
                constants.append(self._bytecode())
            elif kind in (2, 6, _REPDEF, _REPREF, _ATTRLANG, _ATTRLIST):
                constants.append(self._language(kind))
            else:
                constants.append(self.item())
        return Value(_BYTECODE, [code, *constants])

    def _language(self, kind: int) -> Value:
        if kind == _REPREF:
            return self._code[self._int()]
        if kind not in (_REPDEF, 2, 6, _ATTRLANG, _ATTRLIST):
            return self.item()
        place = -1
        if kind == _REPDEF:
            place = self._int()
            kind = self._int()
        value = Value({_ATTRLANG: 6, _ATTRLIST: 2}.get(kind, kind), [])
        if place >= 0:
            self._code[place] = value
        if kind in (_ATTRLANG, _ATTRLIST):
            value.attributes = _attributes(self.item())
        tag = self.item()
        value.content = [tag, self._language(self._int()), self._language(self._int())]
        return value

    def _keep(self, value: Value) -> Value:
        self._references.append(value)
        return value

    def _int(self) -> int:
        (number,) = struct.unpack_from(">i", self._data, self._at)
        self._at += 4
        return int(number)

    def _count(self) -> int:
        count = self._int()
        if not 0 <= count <= len(self._data) - self._at + 1:
            raise ValueError("a length that its bytes cannot hold")
        return count

    def _text(self, size: int) -> str:
        if not 0 <= size <= len(self._data) - self._at:
            raise ValueError("a length that its bytes cannot hold")
        self._at += size
        return self._data[self._at - size : self._at].decode("utf-8", "backslashreplace")

    def _unpack(self, form: str, size: int) -> tuple[Any, ...]:
        values = struct.unpack_from(form, self._data, self._at)
        self._at += size
        return values


def _attributes(value: Value) -> dict[str, Value]:
    names = value.attributes.get("names")
    if value.type != 2 or names is None:
        return {}
    return {str(name): item for name, item in zip(names.content, value.content, strict=False)}


def _file(data: bytes) -> Any:
    import io

    return io.BytesIO(data)

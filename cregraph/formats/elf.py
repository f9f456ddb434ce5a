"""Reader for little-endian ELF64 files: the system libraries that a shared library needs, and sections to compare.

`library` reads the program headers and the dynamic section, as the dynamic loader does. Section headers may be stripped.
Source: System V ABI, "Object Files" and "Dynamic Linking"; for symbol versions Linux Standard Base, 10.7.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass

__all__ = ["MAGIC", "Library", "library", "sections"]

MAGIC = b"\x7fELF"
_X86_64 = 62
_LOAD, _DYNAMIC = 1, 2
_NO_BYTES = 8  # type of a section that has no bytes in the file (.bss)
_NEEDED, _STRTAB, _STRSZ, _VERNEED, _VERNEEDNUM = 1, 5, 10, 0x6FFFFFFE, 0x6FFFFFFF
_MOST = 4096  # limit of table entries and of bytes in a name
_GLIBC = re.compile(r"GLIBC_(\d+(?:\.\d+)*)")


@dataclass(frozen=True, kw_only=True, slots=True)
class Library:
    """Needs of an ELF file: `needed` are sonames, `glibc` the highest symbol version of glibc (None without one)."""

    x86_64: bool
    needed: tuple[str, ...]
    glibc: str | None


def library(data: bytes) -> Library:
    """Return the needs of the ELF file `data`; none without a dynamic section. Raises ValueError if it is not ELF."""
    if data[:4] != MAGIC or len(data) < 64:
        raise ValueError("no ELF file")
    if data[4] != 2 or data[5] != 1:
        return Library(x86_64=False, needed=(), glibc=None)
    try:
        return _read(data)
    except (struct.error, IndexError, OverflowError) as error:
        raise ValueError(f"a damaged ELF file: {error}") from None


def sections(data: bytes) -> dict[str, bytes]:
    """Return the sections of a little-endian ELF64 file by name. A repeated name gets a `'`. Raises ValueError."""
    if data[4:6] != b"\2\1":
        raise ValueError("not ELF64, little-endian")
    (at,) = struct.unpack_from("<Q", data, 40)
    size, count, names = struct.unpack_from("<HHH", data, 58)
    headers = [struct.unpack_from("<IIQQQQIIQQ", data, at + size * number) for number in range(min(count, _MOST))]
    if names >= len(headers):
        raise ValueError("no names of sections")
    table = data[headers[names][4] : headers[names][4] + headers[names][5]]
    found: dict[str, bytes] = {}
    for header in headers:
        name = table[header[0] : table.find(b"\0", header[0])].decode("ascii", "replace")
        while name in found:
            name += "'"
        found[name] = b"" if header[1] == _NO_BYTES else data[header[4] : header[4] + header[5]]
    return found


def _read(data: bytes) -> Library:
    (machine,) = struct.unpack_from("<H", data, 18)
    loads, dynamic = _segments(data)
    if machine != _X86_64 or dynamic is None:
        return Library(x86_64=machine == _X86_64, needed=(), glibc=None)
    wanted, found = _dynamic(data, *dynamic)
    if _STRTAB not in found:
        return Library(x86_64=True, needed=(), glibc=None)
    begin = _offset(loads, found[_STRTAB])
    strings = data[begin : begin + found.get(_STRSZ, 0)]
    versions: list[str] = []
    if _VERNEED in found:
        asked = _versions(data, _offset(loads, found[_VERNEED]), found.get(_VERNEEDNUM, 0))
        versions = [match[1] for at in asked if (match := _GLIBC.fullmatch(_text(strings, at)))]
    highest = max(versions, key=lambda v: [int(part) for part in v.split(".")], default=None)
    return Library(x86_64=True, needed=tuple(dict.fromkeys(_text(strings, at) for at in wanted)), glibc=highest)


def _segments(data: bytes) -> tuple[list[tuple[int, int, int]], tuple[int, int] | None]:
    """Return the loaded segments (address, offset, size), and offset and size of the dynamic section."""
    (at,) = struct.unpack_from("<Q", data, 32)
    size, count = struct.unpack_from("<HH", data, 54)
    loads: list[tuple[int, int, int]] = []
    dynamic: tuple[int, int] | None = None
    for number in range(min(count, _MOST)):
        segment, _, offset, address, _, held = struct.unpack_from("<IIQQQQ", data, at + number * size)
        if segment == _LOAD:
            loads.append((address, offset, held))
        elif segment == _DYNAMIC:
            dynamic = (offset, held)
    return loads, dynamic


def _dynamic(data: bytes, at: int, size: int) -> tuple[list[int], dict[int, int]]:
    """Return the string offsets of needed libraries, and the other entries by tag."""
    wanted: list[int] = []
    found: dict[int, int] = {}
    for number in range(min(size // 16, _MOST)):
        tag, value = struct.unpack_from("<QQ", data, at + number * 16)
        if tag == 0:
            break
        if tag == _NEEDED:
            wanted.append(value)
        else:
            found[tag] = value
    return wanted, found


def _offset(loads: list[tuple[int, int, int]], address: int) -> int:
    for start, offset, held in loads:
        if start <= address < start + held:
            return offset + address - start
    raise ValueError("a damaged ELF file: an address outside of the loaded segments")


def _versions(data: bytes, here: int, count: int) -> Iterator[int]:
    """Yield the string offsets of needed symbol versions."""
    left = _MOST
    for _ in range(min(count, _MOST)):
        _, auxiliaries, _, aux, following = struct.unpack_from("<HHIII", data, here)
        there = here + aux
        for _ in range(min(auxiliaries, _MOST)):
            left -= 1
            if left < 0:
                raise ValueError("a damaged ELF file: too many versions of symbols")
            _, _, _, name, next_aux = struct.unpack_from("<IHHII", data, there)
            yield name
            if next_aux == 0:
                break
            there += next_aux
        if following == 0:
            break
        here += following


def _text(strings: bytes, at: int) -> str:
    end = strings.find(b"\0", at, at + _MOST)
    if at >= len(strings) or end < 0:
        raise ValueError("a damaged ELF file: a name outside of its table of names")
    return strings[at:end].decode("utf-8", "replace")

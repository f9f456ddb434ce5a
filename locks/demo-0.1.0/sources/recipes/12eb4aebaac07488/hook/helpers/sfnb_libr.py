"""Loading libR.so into a process that was not started for R.

The loader reads LD_LIBRARY_PATH once, when a process starts. A kernel is started for Python, so setting the variable
later finds no library, and setting it in the image would put R's libraries in front of those of every process there.

R from conda-forge needs neither: its objects carry a search path of their own (DT_RPATH or DT_RUNPATH), and loading
libR.so is all there is to do. Other builds of R carry none. For these `load` makes an object that has no code, only a
search path and a list of needs: libR.so, and whatever R's modules and packages will ask for and R's folders hold. The
loader does the rest: order, needs of needs, and it never loads what the process already has under the same name.

Linux, 64 bit, little endian. Structures are those of the System V gABI; the tags' meaning is in ld.so(8).
"""

from __future__ import annotations

import ctypes
import os
import struct
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import BinaryIO, NamedTuple

_PT_LOAD, _PT_DYNAMIC, _PT_GNU_STACK = 1, 2, 0x6474E551
_DT_NULL, _DT_NEEDED, _DT_HASH, _DT_STRTAB, _DT_SYMTAB = 0, 1, 4, 5, 6
_DT_STRSZ, _DT_SYMENT, _DT_SONAME, _DT_RPATH, _DT_RUNPATH = 10, 11, 14, 15, 29
_READ_WRITE = 6
_MOST = 1 << 20  # no dynamic section or string table that we read is larger than this

_loaded: ctypes.CDLL | None = None
_descriptor: int | None = None  # stays open: the loader knows the object by its number, which must not be reused


class Needs(NamedTuple):
    """What an ELF object says of itself: the libraries it needs, and whether it says where to look for them."""

    machine: int
    names: tuple[str, ...]
    has_path: bool


def load(prefix: Path) -> None:
    """Load <prefix>/lib/R/lib/libR.so with all it needs. Loading twice is harmless.

    Symbols stay local: R's BLAS must not answer for the one that a Python package brought.
    Raises OSError with the loader's words when a library is missing or does not fit what the process already has.
    """
    global _loaded
    if _loaded is not None:
        return
    home = prefix / "lib" / "R"
    libr = home / "lib" / "libR.so"
    needs = read_needs(libr)
    if needs.has_path:
        _loaded = ctypes.CDLL(str(libr))
        return
    folders = [home / "lib", prefix / "lib"]
    names = [libr.name, *_needs_of_packages(home, folders)]
    _loaded = ctypes.CDLL(_as_file(carrier(needs.machine, names, folders)))


def _needs_of_packages(home: Path, folders: Iterable[Path]) -> list[str]:
    """The libraries in `folders` that R's modules and packages need but say not where to find, sorted."""
    found: set[str] = set()
    for path in [*home.glob("modules/*.so"), *home.glob("library/*/libs/*.so")]:
        try:
            needs = read_needs(path)
        except OSError:
            continue  # what is not ELF fails when R loads it, with R's own message
        if not needs.has_path:
            found.update(needs.names)
    return sorted(name for name in found if any((folder / name).exists() for folder in folders))


def read_needs(path: Path) -> Needs:
    """Read the dynamic section of an ELF object. Raises OSError if the file is not one that can be read here."""
    try:
        with path.open("rb") as file:
            return _read_needs(file)
    except (struct.error, ValueError, OverflowError) as error:
        raise OSError(f"{path}: not a shared object of this platform") from error


def _read_needs(file: BinaryIO) -> Needs:
    header = file.read(64)
    if header[:6] != b"\x7fELF\x02\x01":
        raise ValueError("not a 64-bit little-endian ELF file")
    (machine,) = struct.unpack_from("<H", header, 18)
    (programs_at,) = struct.unpack_from("<Q", header, 32)
    size, count = struct.unpack_from("<HH", header, 54)
    segments = [struct.unpack_from("<IIQQQQQQ", _at(file, programs_at + size * n, 56)) for n in range(count)]
    dynamic = next(_at(file, s[2], s[5]) for s in [*segments, (_PT_DYNAMIC, 0, 0, 0, 0, 0)] if s[0] == _PT_DYNAMIC)
    entries: list[tuple[int, int]] = []
    for tag, value in struct.iter_unpack("<QQ", dynamic):
        if tag == _DT_NULL:
            break
        entries.append((tag, value))
    tags = dict(entries)
    table = tags.get(_DT_STRTAB, 0)
    offset = next((s[2] + table - s[3] for s in segments if s[0] == _PT_LOAD and s[3] <= table < s[3] + s[5]), 0)
    strings = _at(file, offset, tags.get(_DT_STRSZ, 0))
    names = tuple(strings[v : strings.index(b"\0", v)].decode() for tag, v in entries if tag == _DT_NEEDED)
    return Needs(machine, names, _DT_RPATH in tags or _DT_RUNPATH in tags)


def _at(file: BinaryIO, offset: int, size: int) -> bytes:
    if size > _MOST:
        raise ValueError("too large")
    file.seek(offset)
    return file.read(size)


def carrier(machine: int, names: Iterable[str], folders: Iterable[Path]) -> bytes:
    """A shared object without code or symbols that needs `names` and says to look for them in `folders`.

    The path is a DT_RPATH, not a DT_RUNPATH: only the former also holds for the needs of the needs.
    """
    strings = bytearray(b"\0")

    def string(text: str) -> int:
        at = len(strings)
        strings.extend(os.fsencode(text) + b"\0")
        return at

    entries = [(_DT_NEEDED, string(name)) for name in names]
    entries += [(_DT_SONAME, string("libsfnb-r.so")), (_DT_RPATH, string(":".join(map(str, folders))))]

    dynamic_at = 64 + 3 * 56  # after the header and three program headers
    dynamic_size = 16 * (len(entries) + 6)
    symbols_at = dynamic_at + dynamic_size
    hash_at = symbols_at + 24  # after the one symbol that a table must have
    strings_at = hash_at + 16
    size = strings_at + len(strings)
    entries += [(_DT_HASH, hash_at), (_DT_STRTAB, strings_at), (_DT_SYMTAB, symbols_at)]
    entries += [(_DT_STRSZ, len(strings)), (_DT_SYMENT, 24), (_DT_NULL, 0)]

    def segment(kind: int, at: int, length: int, align: int) -> bytes:
        return struct.pack("<IIQQQQQQ", kind, _READ_WRITE, at, at, at, length, length, align)

    return b"".join(
        [
            b"\x7fELF\x02\x01\x01" + bytes(9),
            struct.pack("<HHIQQQIHHHHHH", 3, machine, 1, 0, 64, 0, 0, 64, 56, 3, 0, 0, 0),
            segment(_PT_LOAD, 0, size, 0x1000),  # writable: older loaders relocate the dynamic section in place
            segment(_PT_DYNAMIC, dynamic_at, dynamic_size, 8),
            segment(_PT_GNU_STACK, 0, 0, 16),  # without it the loader wants an executable stack, and may be refused
            *(struct.pack("<QQ", tag, value) for tag, value in entries),
            bytes(24),
            struct.pack("<IIII", 1, 1, 0, 0),
            bytes(strings),
        ]
    )


def _as_file(content: bytes) -> str:
    """A path under which the loader can open these bytes: in memory where that is allowed, else a temporary file."""
    global _descriptor
    try:
        _descriptor = os.memfd_create("sfnb-r")
        name = f"/proc/self/fd/{_descriptor}"
    except OSError:
        _descriptor, name = tempfile.mkstemp(prefix="sfnb-r-", suffix=".so")
    with open(_descriptor, "wb", closefd=False) as file:
        file.write(content)
    return name

"""Comparison of two contents of one file by its format: R's objects, programs, archives, bytecode, text."""

from __future__ import annotations

import contextlib
import functools
import io
import struct
import tarfile
import zipfile
from collections.abc import Callable, Iterator, Sequence

from cregraph.build.compare import rdata
from cregraph.build.compare.finding import Finding, shown
from cregraph.build.compare.leaves import compare_bytes, compare_texts, moment
from cregraph.formats.elf import sections
from cregraph.lock.diff import differing

__all__ = ["Sibling", "compare_file"]

#: Returns both contents of another file of the two results, None where there is no such file.
Sibling = Callable[[str], tuple[bytes | None, bytes | None]]

_DEEP = 4  # archives in archives
_MEMBERS = 10_000
_LARGE = 64 << 20  # bytes from which a member of a zip is left out
_SHOWN = 6  # findings of one file


def compare_file(path: str, one: bytes, two: bytes, sibling: Sibling, *, depth: int = 0) -> list[Finding]:
    """Return how two contents of the file `path` differ: a few findings, specific causes first. Equal contents have none.

    `sibling` returns other files of the same two results. Contents that only look like a format are compared as bytes.
    """
    if one == two:
        return []
    found: list[Finding] = []
    with contextlib.suppress(Exception):  # readers of many formats raise many errors for hostile bytes
        found = _opened(path, one, two, sibling, depth)
    found = found or _plain(path, one, two)
    found.sort(key=lambda each: each.cause in ("unknown", "build id", "compiled"))
    return found[:_SHOWN]


def _opened(path: str, one: bytes, two: bytes, sibling: Sibling, depth: int) -> list[Finding]:
    if depth < _DEEP:
        for is_form, compare in _FORMS:
            if is_form(path, one) and is_form(path, two):
                return compare(path, one, two, sibling, depth)
    return []


def _plain(path: str, one: bytes, two: bytes) -> list[Finding]:
    if b"\0" not in one and b"\0" not in two:
        with contextlib.suppress(UnicodeDecodeError):
            return compare_texts(path, one.decode(), two.decode())
    return compare_bytes(path, one, two)


# -- R


def _database(path: str, one: bytes, two: bytes, sibling: Sibling, depth: int) -> list[Finding]:
    index = sibling(path[:-1] + "x")
    if index[0] is None or index[1] is None:
        return []
    first, second = rdata.objects(one, index[0]), rdata.objects(two, index[1])
    found = []
    for name, mine, theirs in differing(first, second):
        if mine is None or theirs is None:
            found.append(Finding(path=path, cause="listing", inside=name, one=_there(mine), two=_there(theirs)))
        else:
            found += rdata.compare_objects(path, name, mine, theirs)
    if not found and list(first) != list(second):
        found.append(Finding(path=path, cause="order", inside="its objects", one=shown(list(first)), two=shown(list(second))))
    return found


def _object(path: str, one: bytes, two: bytes, sibling: Sibling, depth: int) -> list[Finding]:
    return rdata.compare_objects(path, "", rdata.unpacked(one), rdata.unpacked(two))


# -- programs


def _elf(path: str, one: bytes, two: bytes, sibling: Sibling, depth: int) -> list[Finding]:
    first, second = sections(one), sections(two)
    found: list[Finding] = []
    code = False
    for name, mine, theirs in differing(first, second):
        if mine is None or theirs is None:
            found.append(Finding(path=path, cause="listing", inside=f"section {name}", one=_there(mine), two=_there(theirs)))
        elif name == ".note.gnu.build-id":
            found.append(Finding(path=path, cause="build id", inside=name, one=mine[16:].hex()[:40], two=theirs[16:].hex()[:40]))
        elif name.startswith((".rodata", ".data", ".debug_str", ".debug_line", ".comment", ".strtab", ".dynstr")):
            found += compare_bytes(path, mine, theirs, inside=f"section {name}")
        else:
            code = True
    telling = [each for each in found if each.cause not in ("unknown", "build id")]
    if code and not telling:
        found.append(Finding(path=path, cause="compiled", inside="its code"))
    return telling or found


def _bytecode(path: str, one: bytes, two: bytes, sibling: Sibling, depth: int) -> list[Finding]:
    """Compare bytecode. Source: PEP 552: magic, flags, then time and size of the source, or its hash."""
    if one[:4] != two[:4]:
        return []
    (flags,) = struct.unpack_from("<I", one, 4)
    if one[16:] == two[16:] and not flags & 1:
        a, b = (struct.unpack_from("<I", each, 8)[0] for each in (one, two))
        return [Finding(path=path, cause="bytecode", inside="its header", one=moment(a), two=moment(b))]
    return []


# -- archives


def _packed(path: str, one: bytes, two: bytes, sibling: Sibling, depth: int) -> list[Finding]:
    return compare_file(path, rdata.unpacked(one), rdata.unpacked(two), sibling, depth=depth + 1)


def _gzip(path: str, one: bytes, two: bytes, sibling: Sibling, depth: int) -> list[Finding]:
    """Compare gzip files. Source: RFC 1952: bytes 4 to 7 are the time of the content."""
    plain = rdata.unpacked(one), rdata.unpacked(two)
    if plain[0] != plain[1]:
        return compare_file(path, *plain, sibling, depth=depth + 1)
    a, b = (struct.unpack_from("<I", each, 4)[0] for each in (one, two))
    if a != b:
        return [Finding(path=path, cause="archive", inside="gzip's header", one=moment(a), two=moment(b))]
    return [Finding(path=path, cause="unknown", inside="compressed otherwise, the same content")]


#: The members of an archive: name, what the header says next to the name, and what returns the content.
_Members = Iterator[tuple[str, tuple[str, ...], Callable[[], bytes]]]


def _archive(
    members: Callable[[bytes], _Members], path: str, one: bytes, two: bytes, sibling: Sibling, depth: int
) -> list[Finding]:
    first, second = ({name: (head, read) for name, head, read in members(each)} for each in (one, two))
    found = _names(path, list(first), list(second))
    for name in sorted(first.keys() & second.keys()):
        (head, read), (other_head, other_read) = first[name], second[name]
        mine, theirs = read(), other_read()
        if mine != theirs:
            found += [each.within(path) for each in compare_file(name, mine, theirs, sibling, depth=depth + 1)]
        elif head != other_head:
            a, b = next((a, b) for a, b in zip(head, other_head, strict=True) if a != b)
            found.append(Finding(path=path, cause="archive", inside=name, one=shown(a), two=shown(b)))
    return found


def _zip(data: bytes) -> _Members:
    archive = zipfile.ZipFile(io.BytesIO(data))
    for info in archive.infolist()[:_MEMBERS]:
        if info.file_size <= _LARGE:
            yield info.filename, (str(info.date_time),), functools.partial(_member, archive, info)


def _member(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> bytes:
    """Return a member's content, cut at its stated size. Raises ValueError for a compressor that cannot be bounded."""
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise ValueError("compressed in an unsupported way")
    with archive.open(info) as file:
        return file.read(info.file_size)


def _tar(data: bytes) -> _Members:
    archive = tarfile.TarFile(fileobj=io.BytesIO(data))
    for entry in archive:
        head = (moment(entry.mtime), f"{entry.uid}:{entry.gid} {entry.uname}")
        yield entry.name, head, functools.partial(_entry, archive, entry)


def _entry(archive: tarfile.TarFile, entry: tarfile.TarInfo) -> bytes:
    file = archive.extractfile(entry) if entry.isfile() else None
    return file.read() if file else b""


def _ar(data: bytes) -> _Members:
    """Yield the members. Source: ar(5): before each is a header of 60 bytes: name, time, owner, group, mode, size."""
    at = 8
    while at + 60 <= len(data):
        head = data[at : at + 60].decode("ascii", "replace")
        size = int(head[48:58])
        content = data[at + 60 : at + 60 + size]
        yield head[:16].strip(), (" ".join(head[16:48].split()),), lambda content=content: content  # type: ignore[misc]
        at += 60 + size + size % 2


def _names(path: str, one: list[str], two: list[str]) -> list[Finding]:
    if one == two:
        return []
    if sorted(one) == sorted(two):
        return [Finding(path=path, cause="order", inside="its members", one=shown(one), two=shown(two))]
    mine, theirs = sorted(set(one) - set(two)), sorted(set(two) - set(one))
    return [Finding(path=path, cause="listing", inside="its members", one=shown(mine), two=shown(theirs))]


def _there(data: bytes | None) -> str:
    return "is missing" if data is None else f"{len(data)} bytes"


def _starts(*marks: bytes) -> Callable[[str, bytes], bool]:
    return lambda _path, data: data.startswith(marks)


def _ends(suffix: str) -> Callable[[str, bytes], bool]:
    return lambda path, _data: path.endswith(suffix)


#: Which comparison opens a file, the first whose form both contents have.
_FORMS: Sequence[tuple[Callable[[str, bytes], bool], Callable[[str, bytes, bytes, Sibling, int], list[Finding]]]] = (
    (_ends(".rdb"), _database),
    (_ends(".rdx"), _object),
    (_starts(b"\x1f\x8b"), _gzip),
    (_starts(b"\x7fELF"), _elf),
    (_starts(b"X\n", b"RDX2\n", b"RDX3\n"), _object),
    (_starts(b"!<arch>\n"), functools.partial(_archive, _ar)),
    (_starts(b"PK\x03\x04"), functools.partial(_archive, _zip)),
    (_ends(".pyc"), _bytecode),
    (lambda _path, data: data[257:262] == b"ustar", functools.partial(_archive, _tar)),
    (_starts(b"BZh", b"\xfd7zXZ\0"), _packed),
)

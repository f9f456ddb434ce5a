"""Compare two contents of one file by its format: R's objects, programs, archives, bytecode, text."""

from __future__ import annotations

import io
import struct
import tarfile
import zipfile
from collections.abc import Callable, Sequence

from cregraph.build.compare import rdata
from cregraph.build.compare.finding import Finding, shown
from cregraph.build.compare.leaves import compare_bytes, compare_texts, moment
from cregraph.formats.elf import sections

__all__ = ["Sibling", "compare_file"]

#: Returns both contents of another file of the two results, None where there is no such file.
Sibling = Callable[[str], tuple[bytes | None, bytes | None]]

_DEEP = 4  # archives in archives
_MEMBERS = 10_000
_SHOWN = 6  # findings of one file


def compare_file(path: str, one: bytes, two: bytes, sibling: Sibling, *, depth: int = 0) -> list[Finding]:
    """Return how two contents of the file `path` differ: a few findings, specific causes first. Equal contents have none.

    `sibling` returns other files of the same two results. Contents that only look like a format are compared as bytes.
    """
    if one == two:
        return []
    found: list[Finding] = []
    try:
        found = _opened(path, one, two, sibling, depth)
    except Exception:  # readers of many formats raise many errors for hostile bytes
        found = []
    if not found:
        found = _plain(path, one, two)
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
        try:
            return compare_texts(path, one.decode(), two.decode())
        except UnicodeDecodeError:
            pass
    return compare_bytes(path, one, two)


# -- R


def _database(path: str, one: bytes, two: bytes, sibling: Sibling, depth: int) -> list[Finding]:
    index = sibling(path[:-1] + "x")
    if index[0] is None or index[1] is None:
        return []
    first, second = rdata.objects(one, index[0]), rdata.objects(two, index[1])
    found = []
    for name in sorted(first.keys() | second.keys()):
        mine, theirs = first.get(name), second.get(name)
        if mine is None or theirs is None:
            found.append(Finding(path=path, cause="listing", inside=name, one=_there(mine), two=_there(theirs)))
        elif mine != theirs:
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
    for name in sorted(first.keys() | second.keys()):
        mine, theirs = first.get(name), second.get(name)
        if mine == theirs:
            continue
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
    """PEP 552: magic, flags, then time and size of the source, or its hash."""
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
    """RFC 1952: bytes 4 to 7 are the time of the content."""
    plain = rdata.unpacked(one), rdata.unpacked(two)
    if plain[0] != plain[1]:
        return compare_file(path, *plain, sibling, depth=depth + 1)
    a, b = (struct.unpack_from("<I", each, 4)[0] for each in (one, two))
    if a != b:
        return [Finding(path=path, cause="archive", inside="gzip's header", one=moment(a), two=moment(b))]
    return [Finding(path=path, cause="unknown", inside="compressed otherwise, the same content")]


def _zip(path: str, one: bytes, two: bytes, sibling: Sibling, depth: int) -> list[Finding]:
    with zipfile.ZipFile(io.BytesIO(one)) as first, zipfile.ZipFile(io.BytesIO(two)) as second:
        listed = [{info.filename: info for info in each.infolist()[:_MEMBERS]} for each in (first, second)]
        found = _names(path, list(listed[0]), list(listed[1]))
        for name in sorted(listed[0].keys() & listed[1].keys()):
            mine, theirs = listed[0][name], listed[1][name]
            if max(mine.file_size, theirs.file_size) > 64 << 20:
                continue
            if mine.CRC != theirs.CRC:
                inner = compare_file(name, _member(first, mine), _member(second, theirs), sibling, depth=depth + 1)
                found += [each.within(path) for each in inner]
            elif mine.date_time != theirs.date_time:
                found.append(Finding(path=path, cause="archive", inside=name, one=str(mine.date_time), two=str(theirs.date_time)))
    return found


def _member(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> bytes:
    """The content of a member, no more than it claims to be. Raises ValueError for a compressor that cannot be held to that."""
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise ValueError("compressed in a way that is not looked into")
    with archive.open(info) as file:
        return file.read(info.file_size)


def _tar(path: str, one: bytes, two: bytes, sibling: Sibling, depth: int) -> list[Finding]:
    with tarfile.open(fileobj=io.BytesIO(one)) as first, tarfile.open(fileobj=io.BytesIO(two)) as second:
        listed = [{member.name: member for member in each} for each in (first, second)]
        found = _names(path, list(listed[0]), list(listed[1]))
        for name in sorted(listed[0].keys() & listed[1].keys()):
            mine, theirs = listed[0][name], listed[1][name]
            contents = [
                reader.read() if (reader := archive.extractfile(member)) else b""
                for archive, member in ((first, mine), (second, theirs))
                if member.isfile()
            ]
            if len(contents) == 2 and contents[0] != contents[1]:
                found += [each.within(path) for each in compare_file(name, contents[0], contents[1], sibling, depth=depth + 1)]
            elif mine.mtime != theirs.mtime:
                a, b = moment(mine.mtime), moment(theirs.mtime)
                found.append(Finding(path=path, cause="archive", inside=name, one=a, two=b))
            elif (mine.uid, mine.gid, mine.uname) != (theirs.uid, theirs.gid, theirs.uname):
                a, b = (f"{m.uid}:{m.gid} {m.uname}" for m in (mine, theirs))
                found.append(Finding(path=path, cause="archive", inside=name, one=a, two=b))
    return found


def _ar(path: str, one: bytes, two: bytes, sibling: Sibling, depth: int) -> list[Finding]:
    """ar(5): a header of 60 bytes before each member: name, time, owner, group, mode, size."""
    first, second = _members(one), _members(two)
    found = _names(path, [name for name, *_ in first], [name for name, *_ in second])
    for (name, head, mine), (other, theirs_head, theirs) in zip(first, second, strict=False):
        if name == other and mine != theirs:
            found += [each.within(path) for each in compare_file(name, mine, theirs, sibling, depth=depth + 1)]
        elif name == other and head != theirs_head:
            a, b = (shown(" ".join(each.decode("ascii", "replace").split())) for each in (head, theirs_head))
            found.append(Finding(path=path, cause="archive", inside=name, one=a, two=b))
    return found


def _members(data: bytes) -> list[tuple[str, bytes, bytes]]:
    found: list[tuple[str, bytes, bytes]] = []
    at = 8
    while at + 60 <= len(data) and len(found) < _MEMBERS:
        head = data[at : at + 60]
        size = int(head[48:58])
        name = head[:16].decode("ascii", "replace").strip()
        found.append((name, head[16:48], data[at + 60 : at + 60 + size]))
        at += 60 + size + size % 2
    return found


def _names(path: str, one: list[str], two: list[str]) -> list[Finding]:
    if one == two:
        return []
    if sorted(one) == sorted(two):
        return [Finding(path=path, cause="order", inside="its members", one=shown(one), two=shown(two))]
    mine, theirs = sorted(set(one) - set(two)), sorted(set(two) - set(one))
    return [Finding(path=path, cause="listing", inside="its members", one=shown(mine), two=shown(theirs))]


def _there(data: bytes | None) -> str:
    return "is not there" if data is None else f"{len(data)} bytes"


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
    (_starts(b"!<arch>\n"), _ar),
    (_starts(b"PK\x03\x04"), _zip),
    (_ends(".pyc"), _bytecode),
    (lambda _path, data: data[257:262] == b"ustar", _tar),
    (_starts(b"BZh", b"\xfd7zXZ\0"), _packed),
)

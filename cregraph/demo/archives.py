"""Archives with equal bytes on every machine: sorted, one mtime, no owner names, no compressor that may change.

Zstandard frames hold raw blocks (RFC 8878, 3.1.1.2), and zips store. The compressor of layers writes gzip.
"""

from __future__ import annotations

import io
import struct
import tarfile
import zipfile
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

__all__ = ["TIME", "Item", "folder", "gz", "link", "tar", "text", "zipped", "zst"]

#: The mtime of every file, in seconds since the epoch: 2024-01-01 in UTC.
TIME = 1_704_067_200
_BLOCK = 128 << 10


@dataclass(frozen=True, kw_only=True, slots=True)
class Item:
    """A path in an archive, without a leading slash. `link` is the text of a symbolic link."""

    path: str
    type: Literal["file", "folder", "link"] = "file"
    data: bytes = b""
    link: str = ""
    mode: int = 0o644
    uid: int = 0
    gid: int = 0


def text(path: str, content: str, *, mode: int = 0o644, uid: int = 0, gid: int = 0) -> Item:
    return Item(path=path, data=content.encode(), mode=mode, uid=uid, gid=gid)


def folder(path: str, *, mode: int = 0o755, uid: int = 0, gid: int = 0) -> Item:
    return Item(path=path, type="folder", mode=mode, uid=uid, gid=gid)


def link(path: str, to: str) -> Item:
    return Item(path=path, type="link", link=to, mode=0o777)


def tar(items: Iterable[Item]) -> bytes:
    """Return a tar of `items`, sorted by path (POSIX.1-1988 ustar: no header depends on a locale)."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        for item in sorted(items, key=lambda i: i.path.encode()):
            entry = tarfile.TarInfo(item.path)
            entry.mode, entry.uid, entry.gid, entry.mtime = item.mode, item.uid, item.gid, TIME
            if item.type == "folder":
                entry.type = tarfile.DIRTYPE
            elif item.type == "link":
                entry.type, entry.linkname = tarfile.SYMTYPE, item.link
            else:
                entry.size = len(item.data)
            archive.addfile(entry, io.BytesIO(item.data) if item.type == "file" else None)
    return out.getvalue()


def gz(data: bytes) -> bytes:
    """Return `data` as one gzip member, without name or time."""
    import deflate

    return bytes(deflate.gzip_compress(data, 6))


def zst(data: bytes) -> bytes:
    """Return `data` as a Zstandard frame of raw blocks. Its bytes do not depend on the library's version."""
    out = [struct.pack("<IBQ", 0xFD2FB528, 0b1110_0000, len(data))]  # one segment; its size in eight bytes; no checksum
    for at in range(0, max(len(data), 1), _BLOCK):
        block = data[at : at + _BLOCK]
        last = at + _BLOCK >= len(data)
        out += [struct.pack("<I", len(block) << 3 | last)[:3], block]
    return b"".join(out)


def zipped(members: Iterable[tuple[str, bytes]]) -> bytes:
    """Return a zip that stores `members` in the given order."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_STORED) as archive:
        for name, data in members:
            info = zipfile.ZipInfo(name, (2024, 1, 1, 0, 0, 0))
            info.create_system = 3  # Unix, on every system
            info.external_attr = 0o100644 << 16
            archive.writestr(info, data)
    return out.getvalue()

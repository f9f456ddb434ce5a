"""The tar form of assembly 1: equal entries give equal bytes on every machine.

POSIX.1-2001 (pax): ustar headers; one whose values do not fit is preceded by an extended header (`x`) with the records
`path`, `linkpath`, `size`, `uid`, `gid`, `mtime` that it needs, in that order. A path or link needs a record when it is
longer than 100 bytes or not ASCII; the ustar prefix field is never used. User and group names are empty. The time is MTIME
unless given. Changing any byte of this is a new assembly.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from cregraph.formats.inflate import blocks_of

__all__ = ["BLOCK", "END", "MTIME", "Kind", "file", "header", "padding"]

BLOCK = 512

#: 1980-01-01T00:00:00Z, in seconds. Not 0: zip, and with it parts of Python's and R's tooling, cannot hold earlier times.
MTIME = 315532800

#: The end of an archive: two blocks of zeros.
END = bytes(2 * BLOCK)

Kind = Literal["file", "symlink", "hardlink", "directory"]

_FLAGS: dict[Kind, bytes] = {"file": b"0", "hardlink": b"1", "symlink": b"2", "directory": b"5"}
_NAME = 100
_OCTAL_7 = 0o7777777
_OCTAL_11 = 0o77777777777


def header(
    *,
    path: str,
    type: Kind = "file",
    mode: int = 0o644,
    uid: int = 0,
    gid: int = 0,
    size: int = 0,
    link: str = "",
    mtime: int = MTIME,
) -> bytes:
    """Return the header blocks of one entry; for a file, `size` bytes of content and `padding(size)` follow.

    A directory's path gets its closing slash here. Links and directories have no content: their `size` is ignored. The mode of
    a symbolic link is always 0777, as Linux shows it. Raises ValueError for a number or text that no header can hold.
    """
    if not 0 <= mode <= 0o7777 or uid < 0 or gid < 0 or size < 0:
        raise ValueError(f"no tar header can hold mode {mode:o}, uid {uid}, gid {gid}, size {size} of {path!r}")
    if not path or "\0" in path or "\0" in link:
        raise ValueError(f"no tar header can hold the path {path!r} or the link {link!r}")
    if type == "directory":
        path += "/"
    if type != "file":
        size = 0
    if type == "symlink":
        mode = 0o777
    records = b""
    name, more = _text("path", path)
    records += more
    target, more = _text("linkpath", link)
    records += more
    for key, value, limit in (
        ("size", size, _OCTAL_11),
        ("uid", uid, _OCTAL_7),
        ("gid", gid, _OCTAL_7),
        ("mtime", mtime, _OCTAL_11),
    ):
        if not 0 <= value <= limit:
            records += _record(key, str(value).encode())
    main = _ustar(name, _FLAGS[type], mode, uid, gid, size, mtime, target)
    if not records:
        return main
    extended = _ustar(b"././@PaxHeader", b"x", 0o644, 0, 0, len(records), MTIME, b"")
    return extended + records + padding(len(records)) + main


def padding(size: int) -> bytes:
    """Return the zeros after `size` bytes of content, up to the next block."""
    return bytes(-size % BLOCK)


def file(path: str, source: bytes | Path, *, mode: int = 0o644, mtime: int = MTIME) -> Iterator[bytes]:
    """Yield a file's entry, its content and the padding. `source` is the content, or a file on disk that holds it."""
    if isinstance(source, bytes):
        yield header(path=path, mode=mode, size=len(source), mtime=mtime) + source + padding(len(source))
        return
    size = source.stat().st_size
    yield header(path=path, mode=mode, size=size, mtime=mtime)
    yield from blocks_of(source)
    yield padding(size)


def _text(key: str, text: str) -> tuple[bytes, bytes]:
    """Return the header's field for `text` (cut for old readers if it does not fit), and the record if it needs one."""
    data = text.encode()  # a lone surrogate (a name that is not UTF-8) raises UnicodeEncodeError, a ValueError
    if len(data) <= _NAME and data.isascii():
        return data, b""
    return text.encode("ascii", "replace")[:_NAME], _record(key, data)


def _record(key: str, value: bytes) -> bytes:
    """Return the record `<length> <key>=<value>` and a newline. The length counts itself."""
    rest = b" " + key.encode() + b"=" + value + b"\n"
    length = len(rest)
    while len(str(length)) + len(rest) != length:
        length = len(str(length)) + len(rest)
    return str(length).encode() + rest


def _ustar(name: bytes, flag: bytes, mode: int, uid: int, gid: int, size: int, mtime: int, link: bytes) -> bytes:
    block = b"".join(
        (
            name.ljust(_NAME, b"\0"),
            b"%07o\0" % mode,
            b"%07o\0" % _within(uid, _OCTAL_7),
            b"%07o\0" % _within(gid, _OCTAL_7),
            b"%011o\0" % _within(size, _OCTAL_11),
            b"%011o\0" % _within(mtime, _OCTAL_11),
            b"        ",  # the checksum is taken with blanks in its own place
            flag,
            link.ljust(_NAME, b"\0"),
            b"ustar\00000",
            bytes(32 + 32),  # names of user and group
            b"%07o\0" % 0,
            b"%07o\0" % 0,
            bytes(155 + 12),  # prefix, and the rest of the block
        )
    )
    return block[:148] + b"%06o\0 " % sum(block) + block[156:]


def _within(value: int, limit: int) -> int:
    return value if 0 <= value <= limit else 0

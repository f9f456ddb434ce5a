"""The files of a segment: read, checked, and unpacked to disk for sandboxes."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO

from cregraph.errors import CregraphError
from cregraph.formats.inflate import blocks_as_file
from cregraph.image.model import tar_writer as tar
from cregraph.image.model.segment import Row, SegmentRecord, directories, index, members_of, read
from cregraph.store import Store
from cregraph.store.atomic_file import file_digest

__all__ = ["NotTheIndex", "check_rows", "contents", "stored", "unpack"]

_PIECE = 1 << 20


def stored(store: Store, key: str, name: str) -> SegmentRecord:
    """Return the record of a segment that must be in the store. Raise CregraphError, naming the segment `name`, if it is not."""
    record = read(store, key)
    if record is None:
        raise CregraphError(f"segment {name} was removed from the store during its use", hint="run the command again")
    return record


def unpack(store: Store, record: SegmentRecord, folder: Path) -> None:
    """Write the files and links of a segment below `folder`. Several segments can be written into one folder, one by one.

    Modes and hard links are kept, every time is the image's (1980), owners are left to the caller. Missing directories get mode
    0755. Nothing is written through a symbolic link. Nobody else may write to `folder` at the same time.

    Raises CregraphError if a directory on the way is a link or a file, a path exists with another content or mode, or the bytes
    do not match the index. `folder` must not be used then.
    """
    rows = index(store, record)
    title = f"segment {record.key[:12]}"
    folders = sorted(directories(rows))  # a parent sorts before what is in it
    folder.mkdir(parents=True, exist_ok=True)
    for name in folders:
        _directory(folder / name, name, title)
    for row, content in contents(store, record, rows):
        path = folder / row.path
        if row.type == "file":
            _file(path, row, content, title)
        elif row.type == "symlink":
            _symlink(path, row, title)
        else:
            _hard_link(path, folder / row.what, row, title)
    for name in reversed(folders):
        os.utime(folder / name, (tar.MTIME, tar.MTIME))


def check_rows(rows: Iterable[Row], store: Store, record: SegmentRecord) -> None:
    """Raise NotTheIndex unless the bytes of a segment are those of `rows`, and CregraphError if they are damaged."""
    for _, content in contents(store, record, rows):
        for _piece in content:
            pass


class NotTheIndex(CregraphError):
    """Error: the bytes of a segment differ from its index, at `row`, or after the last row if `row` is None."""

    def __init__(self, title: str, row: Row | None) -> None:
        super().__init__(
            f"{title} in the store does not contain `{row.path}` as its index lists it"
            if row
            else f"{title} in the store contains more than its index lists",
            hint="delete the store and run the command again to make it again",
        )
        self.row = row


def contents(store: Store, record: SegmentRecord, rows: Iterable[Row] | None = None) -> Iterator[tuple[Row, Iterator[bytes]]]:
    """Yield each row of a segment (of its index, or of `rows`) with the content of its file, to be read before the next row.

    Bytes are checked as in `unpack`; a caller may keep nothing that it made from them before this is exhausted.
    """
    title = f"segment {record.key[:12]}"
    stream = blocks_as_file(content for _, content in members_of(store, record))
    for row in index(store, record) if rows is None else rows:
        expected = row.header()
        if stream.read(len(expected)) != expected:
            raise NotTheIndex(title, row)
        yield row, _content(row, stream, title) if row.type == "file" else iter(())
    if stream.read(1):  # at the end the bytes turn out to be the recorded ones
        raise NotTheIndex(title, None)


def _content(row: Row, stream: IO[bytes], title: str) -> Iterator[bytes]:
    hasher = hashlib.sha256()
    left = row.size
    while left and (piece := stream.read(min(left, _PIECE))):
        hasher.update(piece)
        left -= len(piece)
        yield piece
    padding = tar.padding(row.size)
    if left or hasher.hexdigest() != row.what or stream.read(len(padding)) != padding:
        raise NotTheIndex(title, row)


def _directory(path: Path, name: str, title: str) -> None:
    """Make a directory, or check that it is one. Its parent was checked before."""
    try:
        path.mkdir()
        path.chmod(0o755)  # independent of the umask
    except FileExistsError:
        if not stat.S_ISDIR(path.lstat().st_mode):
            raise CregraphError(
                f"{title} writes below `{name}`, which exists and is not a directory",
                hint="use the real destination: a path must not run through a symbolic link",
            ) from None


def _file(path: Path, row: Row, content: Iterator[bytes], title: str) -> None:
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    except FileExistsError:
        if not _holds(path, row):
            raise _taken(title, row) from None
        descriptor = os.open(os.devnull, os.O_WRONLY | os.O_CLOEXEC)
        path = Path(os.devnull)
    with os.fdopen(descriptor, "wb", buffering=0) as file:
        for piece in content:
            file.write(piece)
        if path != Path(os.devnull):
            os.fchmod(file.fileno(), row.mode)
            os.utime(file.fileno(), (tar.MTIME, tar.MTIME))


def _symlink(path: Path, row: Row, title: str) -> None:
    try:
        path.symlink_to(row.what)
    except FileExistsError:
        if not (path.is_symlink() and os.readlink(path) == row.what):  # noqa: PTH115
            raise _taken(title, row) from None
    os.utime(path, (tar.MTIME, tar.MTIME), follow_symlinks=False)


def _hard_link(path: Path, first: Path, row: Row, title: str) -> None:
    try:
        os.link(first, path, follow_symlinks=False)
    except FileExistsError:
        if path.lstat().st_ino != first.lstat().st_ino:
            raise _taken(title, row) from None


def _holds(path: Path, row: Row) -> bool:
    info = path.lstat()
    if not stat.S_ISREG(info.st_mode) or info.st_size != row.size or stat.S_IMODE(info.st_mode) != row.mode:
        return False
    return file_digest(path) == row.what


def _taken(title: str, row: Row) -> CregraphError:
    return CregraphError(
        f"{title} writes `{row.path}`, which exists with other contents",
        hint="remove one of the two packages: both own the path",
    )

"""What a command left: its output as a normalised tar, and what it wrote elsewhere.

The normalised tar is a function of names, contents, the executable bit and links' texts alone: the form of
`image.model.tar_writer`, paths relative to the output folder, sorted by their bytes, each folder listed, owner 0:0, one time,
modes 0755 and 0644. Hard links become files of their own, since whether they survive depends on the file system.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import os
import stat
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from cregraph.engines.contract import TaskFailed, Write
from cregraph.formats.inflate import part
from cregraph.formats.untrusted_tar import IMAGE, Reader
from cregraph.image.model import tar_writer as tar

__all__ = ["Undeclared", "capture", "capture_tar", "no_content", "undeclared"]

_PIECE = 1 << 20
_NAMED = 10  # how many paths a message lists


class Undeclared(TaskFailed):
    """The command wrote or deleted what it did not declare. `changes` are the texts `wrote /path` and `deleted /path`, sorted."""

    def __init__(self, changes: Sequence[str], output: str) -> None:
        self.changes = tuple(changes)
        more = len(changes) - _NAMED
        listed = "".join(f"\n  {change}" for change in changes[:_NAMED]) + (f"\n  and {more} more" if more > 0 else "")
        super().__init__(
            f"it changed what it did not declare:{listed}",
            hint=f"let the command write in {output} only, or remove its other files",
        )


def capture(folder: Path, write: Write, *, at: str, limit: int) -> None:
    """Write `folder`, which the command saw as the folder `at`, as a normalised tar.

    `folder` may be changed in its modes only, to be read. Raises TaskFailed, naming the path, for what no image should get from a
    build: devices, sockets and FIFOs, set-id files, absolute links that leave `at`, names that are not UTF-8; and for more
    than `limit` bytes. A folder with nothing in it is no result.
    """
    base = os.fsencode(folder)

    def found() -> Iterator[tuple[bytes, _Entry]]:
        for path, info in _walk(base):
            full = base + b"/" + path
            link = os.readlink(full) if stat.S_ISLNK(info.st_mode) else b""  # noqa: PTH115
            content = functools.partial(_content, full, info.st_size)
            yield path, _Entry(mode=info.st_mode, size=info.st_size, link=link, content=content)

    _normalised(found(), write, at=at, limit=limit)


def capture_tar(
    stream: IO[bytes],
    write: Write,
    *,
    at: str,
    limit: int,
    scratch: Callable[[], IO[bytes]],
    below: str = "",
) -> None:
    """As `capture`, from the tar `stream`, of which the members below the folder `below` are what the command left in `at`.

    All else is ignored. Contents wait in a file of `scratch`. Also raises TaskFailed if that folder is missing, and
    CregraphError if the stream is not a tar.
    """
    prefix = f"{below}/" if below else ""
    found: dict[bytes, _Entry] = {}
    folder = not below
    spool = scratch()
    with contextlib.closing(spool):
        end = 0
        contents = Reader(stream, what=f"the engine's output for {at}", policy=IMAGE)
        for member in contents:
            if member.path == below:
                folder = member.type == "directory"
            if member.path == below or not member.path.startswith(prefix):
                continue
            if member.type == "file":
                end += member.size
                if end > limit:
                    raise _too_large(limit)
                for block in contents.blocks():
                    spool.write(block)
            path = _bytes(member.path.removeprefix(prefix))
            if member.type == "hardlink":
                target = found.get(_bytes(member.link.removeprefix(prefix)))
                if target is None:
                    raise TaskFailed(
                        f"its output holds the hard link `{member.path}` to `{member.link}`, outside the output folder"
                    )
                found[path] = target
                continue
            content = functools.partial(part, spool, end - member.size, member.size)
            found[path] = _Entry(
                mode=member.mode | _TYPES[member.type], size=member.size, link=_bytes(member.link), content=content
            )
        if not folder:
            raise TaskFailed(f"it removed its output folder {at}")
        _normalised(sorted(found.items()), write, at=at, limit=limit)


@dataclass(frozen=True, kw_only=True, slots=True)
class _Entry:
    """One thing that a command left. `mode` has its type in it, as stat(2) gives it."""

    mode: int
    size: int
    link: bytes
    content: Callable[[], Iterator[bytes]]


_TYPES = {"file": stat.S_IFREG, "directory": stat.S_IFDIR, "symlink": stat.S_IFLNK, "other": stat.S_IFCHR}


def _normalised(found: Iterable[tuple[bytes, _Entry]], write: Write, *, at: str, limit: int) -> None:
    """The one form of a result; `found` is sorted by its paths' bytes."""
    total = 0
    empty = True
    for path, entry in found:
        empty = False
        name = _name(path)
        if stat.S_ISDIR(entry.mode):
            write(tar.header(path=name, type="directory", mode=0o755))
        elif stat.S_ISLNK(entry.mode):
            link = _name(entry.link)
            if link.startswith("/") and not f"{os.path.normpath(link)}/".startswith(f"{at}/"):
                raise TaskFailed(
                    f"its output holds the link `{name}` to `{link}`, outside the output folder",
                    hint="make it a relative link, or copy the file",
                )
            write(tar.header(path=name, type="symlink", link=link))
        elif stat.S_ISREG(entry.mode):
            if entry.mode & (stat.S_ISUID | stat.S_ISGID):
                raise TaskFailed(f"its output holds `{name}`, which is set to run as another user (mode {entry.mode & 0o7777:o})")
            total += entry.size
            if total > limit:
                raise _too_large(limit)
            mode = 0o755 if entry.mode & stat.S_IXUSR else 0o644
            write(tar.header(path=name, mode=mode, size=entry.size))
            for piece in entry.content():
                write(piece)
            write(tar.padding(entry.size))
        else:
            kind = "a FIFO" if stat.S_ISFIFO(entry.mode) else "a socket" if stat.S_ISSOCK(entry.mode) else "a device"
            raise no_content(name, kind)
    if empty:
        raise TaskFailed(f"it left its output folder {at} empty")
    write(tar.END)


def no_content(name: str, kind: str) -> TaskFailed:
    """The error for something in an output that no image can hold; `kind` says what, with its article."""
    return TaskFailed(f"its output holds `{name}`, which is not a file, folder or link but {kind}")


def _too_large(limit: int) -> TaskFailed:
    return TaskFailed(f"its output is larger than {limit >> 20} MiB")


def undeclared(upper: Path, *, allowed: Iterable[str], lowers: Sequence[Path]) -> list[str]:
    """What the overlay's layer `upper` changes outside the `allowed` absolute paths: `wrote /path`, `deleted /path`, sorted.

    A folder that is the same as below (one that was copied up because something in it came and went) is no change.
    """
    places = [os.fsencode(path.strip("/")) for path in allowed]
    trees = [os.fsencode(lower) for lower in lowers]
    found: list[str] = []

    def look(here: bytes, *, cut: bool) -> None:
        """`cut`: the folder was made again, so nothing of what lies below shows through."""
        is_there = {entry.name: entry for entry in os.scandir(os.fsencode(upper) + b"/" + here)}
        below = [tree + b"/" + here for tree in trees if cut and _is_folder(tree + b"/" + here)]
        was_there = {entry.name for folder in below for entry in os.scandir(folder)}
        for name in is_there.keys() | was_there:
            path = here + b"/" + name if here else name
            if path in places:
                continue
            entry = is_there.get(name)
            info = entry.stat(follow_symlinks=False) if entry else None
            if entry is None or info is None or (stat.S_ISCHR(info.st_mode) and info.st_rdev == 0):  # overlayfs: a whiteout
                found.append(f"deleted {_shown(path)}")
            elif not stat.S_ISDIR(info.st_mode):
                found.append(f"wrote {_shown(path)}")
            elif any(place.startswith(path + b"/") for place in places) or any(_is_folder(tree + b"/" + path) for tree in trees):
                _readable(entry.path, info)
                look(path, cut=cut or _opaque(entry.path))
            else:
                found.append(f"wrote {_shown(path)}/")

    look(b"", cut=False)
    return sorted(found, key=lambda text: text.partition(" ")[2])


def _walk(base: bytes) -> Iterator[tuple[bytes, os.stat_result]]:
    """All below `base`, sorted by the bytes of the paths."""
    found: list[tuple[bytes, os.stat_result]] = []
    todo = [b""]
    while todo:
        here = todo.pop()
        folder = base + b"/" + here if here else base
        _readable(folder, os.lstat(folder))
        for entry in os.scandir(folder):
            path = here + b"/" + entry.name if here else entry.name
            info = entry.stat(follow_symlinks=False)
            found.append((path, info))
            if stat.S_ISDIR(info.st_mode):
                todo.append(path)
    found.sort(key=lambda pair: pair[0])
    yield from found


def _content(path: bytes, size: int) -> Iterator[bytes]:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except PermissionError:
        os.chmod(path, 0o600)  # noqa: PTH101
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    with os.fdopen(descriptor, "rb", buffering=0) as file:
        while size:
            piece = file.read(min(size, _PIECE))
            if not piece:
                raise OSError(errno.EIO, "a file shrank while it was captured", os.fsdecode(path))
            size -= len(piece)
            yield piece


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")


def _readable(folder: bytes, info: os.stat_result) -> None:
    if info.st_mode & 0o500 != 0o500:
        os.chmod(folder, 0o700)  # noqa: PTH101


def _name(path: bytes) -> str:
    try:
        return path.decode()
    except UnicodeDecodeError:
        raise TaskFailed(f"its output holds {path!r}, which is not UTF-8") from None


def _shown(path: bytes) -> str:
    return "/" + path.decode(errors="backslashreplace")


def _opaque(path: bytes) -> bool:
    for name in ("trusted.overlay.opaque", "user.overlay.opaque"):
        try:
            if os.getxattr(path, name, follow_symlinks=False) == b"y":
                return True
        except OSError:
            continue
    return False


def _is_folder(path: bytes) -> bool:
    try:
        return stat.S_ISDIR(os.lstat(path).st_mode)
    except OSError:
        return False

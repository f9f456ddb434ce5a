"""Files that appear or are replaced in one step, their digests, and removal of files that a killed process left.

A file that is being written is held by an advisory lock of its writer. The kernel frees that lock with the process, so a
temporary file without a holder is left over.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import re
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO

from cregraph.errors import CregraphError
from cregraph.formats.inflate import blocks_of

__all__ = [
    *("check_writable", "file_digest", "hold", "holds", "is_new_folder", "listed", "place_file", "remove_left"),
    *("remove_tree", "replace_file", "write_file", "writing"),
]


def write_file(path: Path, data: bytes) -> None:
    """Replace `path` by `data` in one step, and flush it to the disk. On a failure the old file stays.

    Removes temporary files of `path` that a killed process left next to it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    stem = f".{path.name[:80]}."
    for left in listed(path.parent):
        if re.fullmatch(re.escape(stem) + r"[0-9]+\.[0-9a-f]{8}\.tmp", left.name):
            remove_left(left, older=1)
    replace_file(path, path.parent / f"{stem}{os.getpid()}.{os.urandom(4).hex()}.tmp", data, durable=True)


@contextlib.contextmanager
def writing(folder: Path, hint: str, *, names_file: bool = False) -> Iterator[None]:
    """Turn an OSError of the context into a CregraphError that names `folder`, or the file of the error with `names_file`."""
    try:
        yield
    except OSError as error:
        path = error.filename if names_file and error.filename else folder
        raise CregraphError(f"`{path}` cannot be written: {error.strerror or error}", hint=hint) from error


def is_new_folder(folder: Path, *, ours: Callable[[Path], bool], foreign: str, option: str, partial: str = "") -> bool:
    """Return whether `folder` is absent, or empty except for the entry `partial`.

    Raises CregraphError if it cannot be written, or if it has content and is not `ours`. `foreign` is that reason in words;
    `option` is how the user names another folder.
    """
    with writing(folder, f"use a folder with free space that you may write to: {option}"):
        check_writable(folder if folder.is_dir() else folder.parent)
        is_new = not folder.exists() or (folder.is_dir() and all(path.name == partial for path in folder.iterdir()))
        if not is_new and not ours(folder):
            raise CregraphError(f"`{folder}` exists and {foreign}; it is unchanged", hint=f"use a new or empty folder: {option}")
        return is_new


def check_writable(folder: Path) -> None:
    """Raise OSError unless files can be created in `folder`, or in its nearest parent that exists."""
    while not folder.exists():
        folder = folder.absolute().parent
    probe = folder / f".{os.urandom(4).hex()}.tmp"
    probe.mkdir()
    probe.rmdir()


def file_digest(path: Path, name: str = "sha256") -> str:
    """Return the digest of the bytes of a file, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.new(name, usedforsecurity=False)).hexdigest()


def holds(path: Path, sha256: str, size: int) -> bool:
    """Return whether `path` is a readable file of `size` bytes with that digest."""
    with contextlib.suppress(OSError):
        return path.stat().st_size == size and file_digest(path) == sha256
    return False


def place_file(source: Path, path: Path, sha256: str) -> None:
    """Make `path` a hard link to `source` if that is read-only and on one file system, else a read-only copy, in one step.

    Raises CregraphError if the copy does not have this sha256.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.exists() and path.samefile(source):
        return
    temporary = path.with_name(f".{path.name[:80]}.{sha256[:12]}.partial")
    temporary.unlink(missing_ok=True)
    try:
        if not _linked(source, temporary):
            with temporary.open("xb") as file:
                file.writelines(blocks_of(source))
                file.flush()
                os.fsync(file.fileno())
            if (found := file_digest(temporary)) != sha256:
                raise CregraphError(f"the copy of `{source}` has sha256:{found} (expected sha256:{sha256})", "check the disk")
            temporary.chmod(0o444)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def _linked(source: Path, path: Path) -> bool:
    if source.stat().st_mode & 0o222:
        return False
    try:
        path.hardlink_to(source)
    except OSError:  # another file system, or one without hard links
        return False
    return True


def replace_file(path: Path, temporary: Path, data: bytes, *, durable: bool) -> None:
    """Write `data` to the new file `temporary`, then rename it to `path`. Both are on one file system."""
    try:
        with temporary.open("xb") as file:
            hold(file)
            file.write(data)
            file.flush()
            if durable:
                os.fsync(file.fileno())
            temporary.chmod(0o644)
            temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def hold(file: IO[bytes] | int) -> None:
    """Mark an open file or folder as in use until it is closed. Does nothing on a file system without locks."""
    with contextlib.suppress(OSError):
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


def listed(folder: Path) -> list[Path]:
    """Return the sorted content of `folder`; an empty list if it cannot be read."""
    try:
        return sorted(folder.iterdir())
    except OSError:
        return []


def remove_left(left: Path, *, older: float) -> None:
    """Remove a temporary file or folder that no process holds and that is at least `older` seconds old."""
    try:
        if time.time() - left.lstat().st_mtime < older:
            return
        holder = os.open(left, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:
        return
    try:
        fcntl.flock(holder, fcntl.LOCK_EX | fcntl.LOCK_NB)
        remove_tree(left)
    except OSError:
        return  # held, or not ours to remove
    finally:
        os.close(holder)


def remove_tree(folder: Path) -> None:
    """Remove `folder` with its content, also below read-only directories. Does nothing if it is absent."""

    def open_up(function: Callable[..., object], path: str, _error: object) -> None:
        with contextlib.suppress(OSError):
            Path(path).parent.chmod(0o700)
            if Path(path).is_dir() and not Path(path).is_symlink():
                Path(path).chmod(0o700)
                shutil.rmtree(path, onerror=lambda *_: None)
            else:
                function(path)

    if folder.is_symlink() or folder.is_file():
        folder.unlink()
    elif folder.exists():
        shutil.rmtree(folder, onerror=open_up)

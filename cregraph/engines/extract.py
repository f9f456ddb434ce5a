"""Plain tars on disk, for sandboxes: flattened roots and captured results, written below one folder and nowhere else.

Everything belongs to whoever unpacks, has no set-id bits, and nothing is ever written or linked through a symbolic link.
Paths are bytes: what the caller's locale calls a name must not matter.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import IO

from cregraph.engines.contract import EPOCH
from cregraph.errors import CregraphError
from cregraph.formats.untrusted_tar import IMAGE, Reader
from cregraph.text import printable

__all__ = ["extract"]


def extract(stream: IO[bytes], folder: Path, *, title: str, at: str = "") -> None:
    """Write the uncompressed tar `stream` below the folder `at` of the empty `folder`, which no one else writes to meanwhile.

    `title` names the source in errors. Devices, FIFOs and sockets are left out.

    Raises:
        CregraphError: `cregraph.formats.untrusted_tar` refuses the tar, or a path stands in it twice or below something that is
            no folder. Then `folder` is not to be used.
    """
    base = os.fsencode(folder)
    prefix = _bytes(at).strip(b"/")
    made: dict[bytes, tuple[int, int]] = {}  # modes and times of folders, set last: a read-only folder could not be filled

    def make(path: bytes) -> None:
        """Make a folder, and those above it. Nothing is removed, so a folder that was made stays one."""
        if path and path not in made:
            make(path.rpartition(b"/")[0])
            os.mkdir(base + b"/" + path, 0o700)  # noqa: PTH102
            made[path] = (0o755, EPOCH)

    make(prefix)
    tar = Reader(stream, what=title, policy=IMAGE)
    for member in tar:
        mtime = min(max(member.mtime, 0), 1 << 40)
        try:
            path = b"/".join(filter(None, (prefix, _bytes(member.path))))
            full = base + b"/" + path
            make(path if member.type == "directory" else path.rpartition(b"/")[0])
            if member.type == "directory":
                made[path] = (member.mode & 0o1777 | 0o500, mtime)
            elif member.type == "hardlink":
                target = b"/".join(filter(None, (prefix, _bytes(member.link))))
                make(target.rpartition(b"/")[0])  # raises if a link is on the way
                os.link(base + b"/" + target, full, follow_symlinks=False)
            elif member.type == "symlink":
                os.symlink(_bytes(member.link), full)  # noqa: PTH211
                os.utime(full, (mtime, mtime), follow_symlinks=False)
            elif member.type == "file":
                descriptor = os.open(full, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
                with os.fdopen(descriptor, "wb", buffering=0) as out:
                    for block in tar.blocks():
                        out.write(block)
                    os.fchmod(descriptor, member.mode & 0o777)
                    os.utime(descriptor, (mtime, mtime))
        except (FileExistsError, FileNotFoundError, PermissionError, ValueError) as error:
            why = getattr(error, "strerror", None) or error
            raise CregraphError(f"{title} cannot be unpacked: `{printable(member.name, 200)}`: {why}") from error
    for path in sorted(made, key=lambda p: p.count(b"/"), reverse=True):
        mode, mtime = made[path]
        os.chmod(base + b"/" + path, mode)  # noqa: PTH101
        os.utime(base + b"/" + path, (mtime, mtime))


def _bytes(name: str) -> bytes:
    return name.encode("utf-8", "surrogateescape")

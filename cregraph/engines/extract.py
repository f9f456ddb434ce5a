"""Layers and captured results on disk, for sandboxes: tars from outside, written below one folder and nowhere else.

Everything belongs to whoever unpacks, has no set-id bits, and nothing is ever written or linked through a symbolic link.
Paths are bytes: what the caller's locale calls a name must not matter.
"""

from __future__ import annotations

import os
import shutil
import stat
from pathlib import Path
from typing import IO

from cregraph.engines.contract import EPOCH
from cregraph.errors import CregraphError
from cregraph.formats.untrusted_tar import IMAGE, Member, Reader
from cregraph.formats.whiteouts import OPAQUE, whiteout

__all__ = ["Extraction"]


class Extraction:
    """Writes tars, one after the other, below `folder`, which no one else writes to meanwhile. `finish` ends it.

    `title` names the source in errors. A tar that `cregraph.formats.untrusted_tar` refuses raises CregraphError; then `folder` is
    not to be used. Devices, FIFOs and sockets are left out.
    """

    def __init__(self, folder: Path, title: str) -> None:
        self._base = os.fsencode(folder)
        self._title = title
        self._folders: dict[bytes, tuple[int, int]] = {}  # modes and times, set last: a read-only folder could not be filled
        self._known: set[bytes] = {b""}

    def add(self, stream: IO[bytes], *, at: str = "", whiteouts: bool = True) -> None:
        """Write the uncompressed tar `stream` below the folder `at`.

        With `whiteouts` it is an OCI layer (image-spec, layer.md): `.wh.` names delete what earlier tars gave, and later entries
        replace earlier ones.
        """
        prefix = _bytes(at).strip(b"/")
        added: set[bytes] = set()
        self._parents(prefix + b"/" if prefix else b"")
        try:
            tar = Reader(stream, what=self._title, policy=IMAGE)
            for member in tar:
                path = b"/".join(filter(None, (prefix, _bytes(member.path))))
                if whiteouts and self._whiteout(path, added):
                    continue
                self._write(path, member, tar, prefix)
                while path and path not in added:
                    added.add(path)
                    path = path.rpartition(b"/")[0]
        except (UnicodeError, ValueError) as error:
            raise CregraphError(f"{self._title} cannot be unpacked: {error}") from error

    def finish(self) -> None:
        """Give the folders their modes and times."""
        for path in sorted(self._folders, key=lambda p: p.count(b"/"), reverse=True):
            mode, mtime = self._folders[path]
            full = self._full(path)
            if path in self._known:
                os.chmod(full, mode)  # noqa: PTH101
                os.utime(full, (mtime, mtime))

    def _full(self, path: bytes) -> bytes:
        return self._base + b"/" + path if path else self._base

    def _whiteout(self, path: bytes, added: set[bytes]) -> bool:
        folder, _, name = path.rpartition(b"/")
        gone = whiteout(name.decode("utf-8", "surrogateescape"))
        if gone and self._is_folder(folder):
            target = b"/".join(filter(None, (folder, _bytes(gone))))
            if gone == OPAQUE:
                self._empty(folder, added)
            elif target not in added:
                self._remove(target)
        return gone is not None

    def _empty(self, folder: bytes, added: set[bytes]) -> None:
        """Remove what is in `folder`, but for what this same layer added."""
        for name in os.listdir(self._full(folder)):  # noqa: PTH208
            child = b"/".join(filter(None, (folder, name)))
            if child not in added:
                self._remove(child)
            elif self._is_folder(child):
                self._empty(child, added)

    def _write(self, path: bytes, member: Member, tar: Reader, prefix: bytes) -> None:
        mtime = min(max(member.mtime, 0), 1 << 40)
        if member.type == "directory":
            self._parents(path + b"/")
            self._folders[path] = (member.mode & 0o1777 | 0o500, mtime)
            return
        if member.type == "other":
            return
        if not path:
            raise CregraphError(f"{self._title} holds a file where its root should be")
        self._parents(path)
        full = self._full(path)
        if member.type == "hardlink":
            target = b"/".join(filter(None, (prefix, _bytes(member.link))))
            if target == path:
                return
            if (
                not self._is_folder(target.rpartition(b"/")[0])
                or not os.path.lexists(self._full(target))
                or self._is_folder(target)
            ):
                raise CregraphError(
                    f"{self._title} holds the hard link `{member.name}` to `{member.link}`, which it does not hold"
                )
            self._remove(path)
            os.link(self._full(target), full, follow_symlinks=False)
            return
        self._remove(path)
        if member.type == "symlink":
            os.symlink(_bytes(member.link), full)  # noqa: PTH211
            os.utime(full, (mtime, mtime), follow_symlinks=False)
            return
        descriptor = os.open(full, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "wb", buffering=0) as out:
            for block in tar.blocks():
                out.write(block)
            os.fchmod(descriptor, member.mode & 0o777)
            os.utime(descriptor, (mtime, mtime))

    def _parents(self, path: bytes) -> None:
        """Make the folders above `path`. Whatever else is in their place, a link too, gives way to a folder."""
        parent = path.rpartition(b"/")[0]
        if parent in self._known:
            return
        self._parents(parent)
        if not self._is_folder(parent):
            self._remove(parent)
            os.mkdir(self._full(parent), 0o700)  # noqa: PTH102
            self._folders.setdefault(parent, (0o755, EPOCH))
        self._known.add(parent)

    def _is_folder(self, path: bytes) -> bool:
        """Whether `path` is a folder, reached through folders only."""
        if path in self._known:
            return True
        if not self._is_folder(path.rpartition(b"/")[0]):
            return False
        try:
            return stat.S_ISDIR(os.lstat(self._full(path)).st_mode)
        except OSError:
            return False

    def _remove(self, path: bytes) -> None:
        full = self._full(path)
        if self._is_folder(path):
            shutil.rmtree(full)
            gone = [p for p in self._known if p == path or p.startswith(path + b"/")]
            self._known.difference_update(gone)
            for known in [p for p in self._folders if p == path or p.startswith(path + b"/")]:
                del self._folders[known]
        elif os.path.lexists(full):
            os.unlink(full)  # noqa: PTH108


def _bytes(name: str) -> bytes:
    return name.encode("utf-8", "surrogateescape")

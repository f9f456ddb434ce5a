"""The folder of a store: temporary files, advisory locks and the errors of its disk."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import os
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from cregraph.digest import is_sha256
from cregraph.errors import CregraphError
from cregraph.store.atomic_file import hold, listed, remove_left, remove_tree

__all__ = ["NAME", "StoreFolder"]

#: What a section, a key or a lock may be called.
NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._+-]{0,180}")
#: A name that `temporary` returns. `sweep` removes nothing else, because a store may lie in a folder that had a tmp/ before.
_TEMPORARY = re.compile(r"[0-9]+-[0-9a-f]{16}")
#: Age in seconds from which `sweep` removes temporary files without a holder: longer than creating and holding a file takes.
_LEFT = 60
#: Seconds for which an interrupted download is kept.
_PARTIAL = 14 * 86400
#: ENOENT too: folders of the kernel, such as /proc, answer it when a file cannot be created there.
_REFUSED = (
    *(errno.EACCES, errno.EPERM, errno.EROFS, errno.EIO),
    *(errno.ENOENT, errno.ENOTDIR, errno.EEXIST, errno.EISDIR, errno.ELOOP, errno.ENAMETOOLONG),
)


class StoreFolder:
    """The folder `root`, which the first write creates. Threads and processes may use it at the same time."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def scratch_file(self) -> IO[bytes]:
        """Open an unnamed temporary file on the store's file system. Closing removes it."""
        import tempfile

        with self.explained():
            return tempfile.TemporaryFile(dir=self.temporary().parent)

    @contextlib.contextmanager
    def scratch_folder(self) -> Iterator[Path]:
        """Create a temporary folder on the store's file system for this user alone. The end of the context removes it."""
        with self.explained():
            folder = self.temporary()
            folder.mkdir(mode=0o700)
        holder = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            hold(holder)
            yield folder
        finally:
            remove_tree(folder)
            os.close(holder)

    @contextlib.contextmanager
    def lock(self, name: str) -> Iterator[None]:
        """Hold the advisory lock `name`. Other processes and threads wait for it. The kernel frees it when the process ends."""
        if not NAME.fullmatch(name):
            name = hashlib.sha256(name.encode()).hexdigest()
        while True:
            with self.lock_file(name) as file:
                fcntl.flock(file, fcntl.LOCK_EX)
                if not _is_still(self.root / "locks" / name, file):
                    continue  # `collect` removed the file while this process waited
                yield
                return

    @contextlib.contextmanager
    def commit_lock(self, *, exclusive: bool = False) -> Iterator[None]:
        """Hold the lock under which finished files get their names. Hold it briefly.

        While it is shared, nothing is removed. While it is exclusive, no file gets its name either, so a file that was just
        examined is still the one that is removed. Does nothing on a file system without locks, where nothing is ever removed.
        """
        with self.lock_file("commit") as file:
            with contextlib.suppress(OSError):
                fcntl.flock(file, fcntl.LOCK_EX if exclusive else fcntl.LOCK_SH)
            yield

    def lock_file(self, name: str) -> IO[str]:
        """Open the file of an advisory lock."""
        folder = self.root / "locks"
        with self.explained():
            folder.mkdir(parents=True, exist_ok=True)
            return (folder / name).open("a")

    def sweep(self) -> None:
        """Remove files of killed processes from tmp/, and downloads that were interrupted two weeks ago.

        Files that a live process holds stay, also if it runs in another container or machine. Files with foreign names stay.
        """
        for left in listed(self.root / "tmp"):
            if _TEMPORARY.fullmatch(left.name):
                remove_left(left, older=_LEFT)
        limit = time.time() - _PARTIAL
        for partial in listed(self.root / "partial"):
            if not is_sha256(partial.name):
                continue
            with contextlib.suppress(OSError):
                if partial.stat().st_mtime < limit:
                    partial.unlink()

    @contextlib.contextmanager
    def explained(self) -> Iterator[None]:
        """Turn the errors of a full disk and of an unwritable store into CregraphError. Other errors pass."""
        try:
            yield
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise CregraphError(
                    f"no space left for the store at {self.root}",
                    hint="free space there, or set CREGRAPH_CACHE to a folder with free space. Complete results are kept",
                ) from error
            at = Path(str(error.filename))
            if error.errno in _REFUSED and (at.is_relative_to(self.root) or self.root.is_relative_to(at)):
                raise CregraphError(
                    f"the store at {self.root} cannot be written to: {error.strerror}",
                    hint="set CREGRAPH_CACHE to your own folder",
                ) from error
            raise

    def temporary(self) -> Path:
        """Return an unused path in tmp/."""
        folder = self.root / "tmp"
        folder.mkdir(parents=True, exist_ok=True)
        return folder / f"{os.getpid()}-{os.urandom(8).hex()}"


def _is_still(path: Path, file: IO[str]) -> bool:
    try:
        return os.path.samestat(path.stat(), os.fstat(file.fileno()))
    except FileNotFoundError:
        return False

"""The content-addressed store: objects by sha256, small records and folders by key.

Everything is written under a temporary name in the store's own file system and renamed, so a reader sees a whole object or
none, whatever was killed. (After a power cut an object may be cut short, and is then none: `has_whole`.) Objects are read-only
files and are hashed on their first use in a process: a byte that changed on disk is found before it is used. What is being
written is held by an advisory lock of its writer, which the kernel frees with the process: so what a killed one left can be
told from what a live one uses (`sweep`).

    sha256/ab/<hex>            objects
    <section>/ab/<key>.json    records: what a key turned out to give
    <section>/ab/<key>/        folders (unpacked trees)
    quarantine/                objects whose bytes were found to differ from their name
    partial/                   downloads that were cut off, to go on with
    locks/, tmp/               advisory locks; what is being written
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import json
import os
import re
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO

from cregraph.digest import Json, is_sha256
from cregraph.errors import CregraphError

__all__ = ["ObjectWriter", "Store", "is_key", "linked", "remove_tree", "write_file"]

_BLOCK = 1 << 20
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._+-]{0,180}")
#: What `_temporary` gives. Nothing else in tmp/ is removed: a store may have been put into a folder that had one.
_TEMPORARY = re.compile(r"[0-9]+-[0-9a-f]{16}")
#: Seconds after which `sweep` may take what nobody holds: longer than it takes to hold a file that was just made.
_LEFT = 60
#: Seconds for which a download that was cut off is kept.
_PARTIAL = 14 * 86400
#: ENOENT too: a folder of the kernel, such as /proc, says so of what cannot be made in it.
_REFUSED = (
    *(errno.EACCES, errno.EPERM, errno.EROFS, errno.EIO),
    *(errno.ENOENT, errno.ENOTDIR, errno.EEXIST, errno.EISDIR, errno.ELOOP, errno.ENAMETOOLONG),
)


class ObjectWriter:
    """Collects the bytes of one object. `sha256` and `size` (bytes) hold once the writer was closed without an error."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._hash = hashlib.sha256()
        self.size = 0
        self.sha256 = ""

    def write(self, data: bytes | memoryview) -> None:
        """Append `data`."""
        self._file.write(data)
        self._hash.update(data)
        self.size += len(data)

    def digest(self) -> str:
        """The sha256 of what was written so far."""
        return self._hash.hexdigest()


class Store:
    """The store below the folder `root`, which is made when it is first written to. Safe with many threads and processes."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._checked: set[str] = set()
        self._guard = threading.Lock()

    def path_of(self, sha256: str) -> Path:
        """Where the object lies or would lie. A text that is no sha256 raises ValueError: it never becomes a path."""
        if not is_sha256(sha256):
            raise ValueError(f"not a sha256: {sha256!r}")
        return self.root / "sha256" / sha256[:2] / sha256

    def has(self, sha256: str) -> bool:
        """Whether an object of that name is here; its bytes are checked when it is used."""
        with contextlib.suppress(OSError):  # a folder that cannot be entered: who writes to it says so
            return self.path_of(sha256).is_file()
        return False

    def has_whole(self, sha256: str, size: int | None = None) -> bool:
        """Whether an object of that name and size is here (of any but none, where the size is not known); not its bytes."""
        try:
            found = self.path_of(sha256).stat().st_size
        except OSError:
            return False
        return found == size if size is not None else found > 0

    def verified(self, sha256: str, what: str = "") -> Path:
        """The object's path, its bytes hashed on first use. A differing one is set aside and refused; absent raises too."""
        path = self.path_of(sha256)
        if sha256 in self._checked:
            return path
        try:
            with path.open("rb") as file:
                found = hashlib.file_digest(file, "sha256").hexdigest()
        except FileNotFoundError:
            raise CregraphError(
                f"the store does not hold {what or 'an object'} (sha256:{sha256})",
                hint="run the command again; what is missing is fetched or made anew",
            ) from None
        except OSError as error:
            raise CregraphError(
                f"{what or 'an object'} in the store cannot be read: {path}: {error.strerror or error}",
                hint="set CREGRAPH_CACHE to a folder of your own, or check the disk",
            ) from None
        if found != sha256:
            aside = self.root / "quarantine" / f"{sha256}.{found[:12]}"
            with contextlib.suppress(OSError):
                aside.parent.mkdir(parents=True, exist_ok=True)
                path.replace(aside)
            raise CregraphError(
                f"{what or 'an object'} in the store has sha256:{found}, but its name says sha256:{sha256}",
                hint=f"the damaged file was moved to {aside}; run the command again to fetch or make it anew, and check the disk",
            )
        with self._guard:
            self._checked.add(sha256)
        return path

    def add(self, data: bytes) -> str:
        """Keep `data`; returns its sha256."""
        with self.writer() as out:
            out.write(data)
        return out.sha256

    @contextlib.contextmanager
    def writer(self) -> Iterator[ObjectWriter]:
        """Write one object. On an exception nothing is kept."""
        with self.explained():
            temporary = self._temporary()
            try:
                with temporary.open("xb") as file:
                    _hold(file)
                    out = ObjectWriter(file)
                    yield out
                    file.flush()  # to the kernel, not to the disk: docs/adr/0018-objects-are-not-synced.md
                    out.sha256 = out.digest()
                    path = self.path_of(out.sha256)
                    path.parent.mkdir(parents=True, exist_ok=True)
                    temporary.chmod(0o444)
                    with self.moment():
                        temporary.replace(path)
            finally:
                temporary.unlink(missing_ok=True)
        with self._guard:
            self._checked.add(out.sha256)

    def adopt(self, file: Path, sha256: str) -> Path:
        """Move a finished file, whose sha256 the caller has verified, into the store. `file` lies in the store's file system."""
        path = self.path_of(sha256)
        with self.explained():
            path.parent.mkdir(parents=True, exist_ok=True)
            file.chmod(0o444)
            with self.moment():
                file.replace(path)
        return path

    def record(self, section: str, key: str) -> Json | None:
        """The record of `key`, or None when there is none or it cannot be read."""
        path = self._keyed(section, key, ".json")
        try:
            return json.loads(path.read_bytes())
        except (OSError, ValueError, RecursionError):
            return None

    def put_record(self, section: str, key: str, value: Json) -> None:
        """Set the record of `key`."""
        path = self._keyed(section, key, ".json")
        data = json.dumps(value, sort_keys=True, separators=(",", ":")).encode()
        with self.explained():
            path.parent.mkdir(parents=True, exist_ok=True)
            _replace(path, self._temporary(), data, mode=0o644, durable=False)

    def drop_record(self, section: str, key: str) -> None:
        """Forget the record of `key`."""
        self._keyed(section, key, ".json").unlink(missing_ok=True)

    def tree(self, section: str, key: str, make: Callable[[Path], None]) -> Path:
        """The folder of `key`, made by `make` (given an empty folder) when it is not there yet; whole or absent."""
        path = self._keyed(section, key, "")
        if path.is_dir():
            return path
        with self.lock(f"{section}-{key[:64]}"):
            if path.is_dir():
                return path
            with self.explained(), self.scratch_folder() as temporary:
                path.parent.mkdir(parents=True, exist_ok=True)
                make(temporary)
                with self.moment():
                    temporary.replace(path)
        return path

    def scratch_file(self) -> IO[bytes]:
        """An unnamed temporary file in the store's file system; gone when closed."""
        import tempfile

        with self.explained():
            return tempfile.TemporaryFile(dir=self._temporary().parent)

    @contextlib.contextmanager
    def scratch_folder(self) -> Iterator[Path]:
        """A temporary folder in the store's file system, removed with all that is in it."""
        with self.explained():
            folder = self._temporary()
            folder.mkdir(mode=0o755)
        holder = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            _hold(holder)
            yield folder
        finally:
            remove_tree(folder)
            os.close(holder)

    @contextlib.contextmanager
    def lock(self, name: str) -> Iterator[None]:
        """Hold the advisory lock `name`; other processes and threads that ask for it wait. The kernel frees it at exit."""
        folder = self.root / "locks"
        if not _NAME.fullmatch(name):
            name = hashlib.sha256(name.encode()).hexdigest()
        path = folder / name
        while True:
            with self.explained():
                folder.mkdir(parents=True, exist_ok=True)
                file = path.open("a")
            with file:
                fcntl.flock(file, fcntl.LOCK_EX)
                if not _is_still(path, file):
                    continue  # whoever removed it (`collect`) held it; the next to come makes another
                yield
                return

    @contextlib.contextmanager
    def moment(self, *, alone: bool = False) -> Iterator[None]:
        """A moment in which nothing is removed; with `alone` one in which nothing is put in place either.

        So what is looked at and then removed cannot have been put there anew in between. Shorter than a write: hold it briefly.
        """
        folder = self.root / "locks"
        folder.mkdir(parents=True, exist_ok=True)
        with (folder / "moment").open("a") as file:
            with contextlib.suppress(OSError):  # a file system without locks: nothing is removed there
                fcntl.flock(file, fcntl.LOCK_EX if alone else fcntl.LOCK_SH)
            yield

    def sweep(self) -> None:
        """Remove what killed processes left in tmp/, and downloads that nobody went on with for two weeks.

        What a live process holds stays, also one that another container or machine runs on the same file system; and so does
        whatever has no name of ours.
        """
        for left in _listed(self.root / "tmp"):
            if _TEMPORARY.fullmatch(left.name):
                _remove_left(left, older=_LEFT)
        limit = time.time() - _PARTIAL
        for partial in _listed(self.root / "partial"):
            if not is_sha256(partial.name):
                continue
            with contextlib.suppress(OSError):
                if partial.stat().st_mtime < limit:
                    partial.unlink()

    @contextlib.contextmanager
    def explained(self) -> Iterator[None]:
        """Say what the machine refused: a full disk, a store that cannot be written to. Other errors pass."""
        try:
            yield
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise CregraphError(
                    f"no space left for the store at {self.root}",
                    hint="free space there, or set CREGRAPH_CACHE to a folder that has room; what was complete is kept",
                ) from error
            at = Path(str(error.filename))
            if error.errno in _REFUSED and (at.is_relative_to(self.root) or self.root.is_relative_to(at)):
                raise CregraphError(
                    f"the store at {self.root} cannot be written to: {error.strerror}",
                    hint="set CREGRAPH_CACHE to a folder of your own",
                ) from error
            raise

    def _temporary(self) -> Path:
        folder = self.root / "tmp"
        folder.mkdir(parents=True, exist_ok=True)
        return folder / f"{os.getpid()}-{os.urandom(8).hex()}"

    def _keyed(self, section: str, key: str, suffix: str) -> Path:
        if not is_key(section, key):
            raise ValueError(f"not a key of the store: {section}/{key}")
        return self.root / section / key[:2] / (key + suffix)


def is_key(section: str, key: str) -> bool:
    """Whether a store may have a record or folder of that section and key."""
    return _NAME.fullmatch(section) is not None and _NAME.fullmatch(key) is not None


def linked(source: Path, path: Path) -> bool:
    """Make `path` a hard link to `source`. Return False if links are not possible, or `source` is writable."""
    if source.stat().st_mode & 0o222:
        return False
    try:
        path.hardlink_to(source)
    except OSError:  # another file system, or one without hard links
        return False
    return True


def write_file(path: Path, data: bytes, *, mode: int = 0o644, durable: bool = True) -> None:
    """Replace `path` by `data` in one step: temporary name, flushed, renamed. A failure leaves the old file as it was.

    What a killed process left beside `path` while writing it is removed.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    stem = f".{path.name[:80]}."
    for left in _listed(path.parent):
        if re.fullmatch(re.escape(stem) + r"[0-9]+\.[0-9a-f]{8}\.tmp", left.name):
            _remove_left(left, older=1)
    _replace(path, path.parent / f"{stem}{os.getpid()}.{os.urandom(4).hex()}.tmp", data, mode=mode, durable=durable)


def _replace(path: Path, temporary: Path, data: bytes, *, mode: int, durable: bool) -> None:
    try:
        with temporary.open("xb") as file:
            _hold(file)
            file.write(data)
            file.flush()
            if durable:
                os.fsync(file.fileno())
            temporary.chmod(mode)
            temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def _hold(file: IO[bytes] | int) -> None:
    """Mark what is being written as in use, until it is closed. A file system without locks has no such marks."""
    with contextlib.suppress(OSError):
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


def _is_still(path: Path, file: IO[str]) -> bool:
    try:
        return os.path.samestat(path.stat(), os.fstat(file.fileno()))
    except FileNotFoundError:
        return False


def _listed(folder: Path) -> list[Path]:
    try:
        return sorted(folder.iterdir())
    except OSError:
        return []


def _remove_left(left: Path, *, older: float) -> None:
    """Remove a temporary file or folder that nobody holds and that was not touched for `older` seconds."""
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
    """Remove `folder` and all below it, also where directories are read-only. Absent is fine."""

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

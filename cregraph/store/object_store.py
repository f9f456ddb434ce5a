"""The store on disk: objects by sha256, records and trees by key (cregraph.store shows the layout).

Everything is written under a temporary name and renamed, so a reader sees a whole object or none. After a power cut an object
can be truncated: see `has_whole`. Objects are read-only files, and their bytes are hashed on the first use in a process.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO

from cregraph.digest import Json, is_sha256
from cregraph.errors import CregraphError
from cregraph.store.atomic_file import file_digest, hold, replace_file
from cregraph.store.store_folder import NAME, StoreFolder

__all__ = ["ObjectWriter", "Store", "is_key"]


class ObjectWriter:
    """The bytes of one object while they are written. `sha256` is set when the writer closes without an error."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._hash = hashlib.sha256()
        self.size = 0
        self.sha256 = ""

    def write(self, data: bytes | memoryview) -> None:
        self._file.write(data)
        self._hash.update(data)
        self.size += len(data)

    def digest(self) -> str:
        return self._hash.hexdigest()


class Store(StoreFolder):
    """The store in the folder `root`. Threads and processes may use it at the same time."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self._checked: set[str] = set()
        self._guard = threading.Lock()

    def path_of(self, sha256: str) -> Path:
        """Return the path of an object, whether or not it exists. Raises ValueError if `sha256` is not a sha256."""
        if not is_sha256(sha256):
            raise ValueError(f"not a sha256: {sha256!r}")
        return self.root / "sha256" / sha256[:2] / sha256

    def has(self, sha256: str) -> bool:
        """Return whether the object exists. Its bytes are not checked: see `verified`."""
        with contextlib.suppress(OSError):  # the first write to an unreadable folder reports it
            return self.path_of(sha256).is_file()
        return False

    def has_whole(self, sha256: str, size: int | None = None) -> bool:
        """Return whether the object exists with that size, or with at least one byte if `size` is None. See `verified`."""
        try:
            found = self.path_of(sha256).stat().st_size
        except OSError:
            return False
        return found == size if size is not None else found > 0

    def verified(self, sha256: str, what: str = "") -> Path:
        """Return the object's path after hashing its bytes, once per process. `what` names the object in errors.

        Raises CregraphError if the object is absent, unreadable or damaged. A damaged object is moved to quarantine/.
        """
        path = self.path_of(sha256)
        if sha256 in self._checked:
            return path
        try:
            found = file_digest(path)
        except FileNotFoundError:
            raise CregraphError(
                f"the store does not hold {what or 'an object'} (sha256:{sha256})",
                hint="run the command again to download or make the missing object",
            ) from None
        except OSError as error:
            raise CregraphError(
                f"{what or 'an object'} in the store cannot be read: {path}: {error.strerror or error}",
                hint="set CREGRAPH_CACHE to your own folder, or check the disk",
            ) from None
        if found != sha256:
            aside = self.root / "quarantine" / f"{sha256}.{found[:12]}"
            with contextlib.suppress(OSError):
                aside.parent.mkdir(parents=True, exist_ok=True)
                path.replace(aside)
            raise CregraphError(
                f"{what or 'an object'} in the store has sha256:{found}, but its name says sha256:{sha256}",
                hint=f"run the command again to download or make it again, and check the disk. The damaged file is {aside}",
            )
        with self._guard:
            self._checked.add(sha256)
        return path

    def add(self, data: bytes) -> str:
        """Write `data` as an object and return its sha256."""
        with self.writer() as out:
            out.write(data)
        return out.sha256

    @contextlib.contextmanager
    def writer(self) -> Iterator[ObjectWriter]:
        """Open a writer for one object. An exception in the context discards it."""
        with self.explained():
            temporary = self.temporary()
            try:
                with temporary.open("xb") as file:
                    hold(file)
                    out = ObjectWriter(file)
                    yield out
                    file.flush()  # to the kernel, not to the disk: docs/adr/0018-objects-are-not-synced.md
                    out.sha256 = out.digest()
                    path = self.path_of(out.sha256)
                    path.parent.mkdir(parents=True, exist_ok=True)
                    temporary.chmod(0o444)
                    with self.commit_lock():
                        temporary.replace(path)
            finally:
                temporary.unlink(missing_ok=True)
        with self._guard:
            self._checked.add(out.sha256)

    def adopt(self, file: Path, sha256: str) -> Path:
        """Move `file` into the store as an object and return its path.

        The caller has verified its sha256. The file is on the store's file system.
        """
        path = self.path_of(sha256)
        with self.explained():
            path.parent.mkdir(parents=True, exist_ok=True)
            file.chmod(0o444)
            with self.commit_lock():
                file.replace(path)
        return path

    def record(self, section: str, key: str) -> Json | None:
        """Return the record of `key`, or None if it is absent or unreadable."""
        path = self._keyed(section, key, ".json")
        try:
            return json.loads(path.read_bytes())
        except (OSError, ValueError, RecursionError):
            return None

    def fields(self, section: str, key: str) -> dict[str, Json]:
        """Return the record of `key` if it is an object, else an empty dictionary."""
        found = self.record(section, key)
        return found if isinstance(found, dict) else {}

    def put_record(self, section: str, key: str, value: Json) -> None:
        path = self._keyed(section, key, ".json")
        data = json.dumps(value, sort_keys=True, separators=(",", ":")).encode()
        with self.explained():
            path.parent.mkdir(parents=True, exist_ok=True)
            replace_file(path, self.temporary(), data, durable=False)

    def drop_record(self, section: str, key: str) -> None:
        self._keyed(section, key, ".json").unlink(missing_ok=True)

    def tree(self, section: str, key: str, make: Callable[[Path], None]) -> Path:
        """Return the tree of `key`. If it is absent, `make` fills an empty folder, which then becomes the tree in one step."""
        path = self._keyed(section, key, "")
        if path.is_dir():
            return path
        with self.lock(f"{section}-{key[:64]}"):
            if path.is_dir():
                return path
            with self.explained(), self.scratch_folder() as temporary:
                path.parent.mkdir(parents=True, exist_ok=True)
                make(temporary)
                with self.commit_lock():
                    temporary.replace(path)
        return path

    def _keyed(self, section: str, key: str, suffix: str) -> Path:
        if not is_key(section, key):
            raise ValueError(f"not a key of the store: {section}/{key}")
        return self.root / section / key[:2] / (key + suffix)


def is_key(section: str, key: str) -> bool:
    """Return whether `section` and `key` may name a record or tree."""
    return NAME.fullmatch(section) is not None and NAME.fullmatch(key) is not None

"""The content of a store, by section.

A record names objects by their sha256 anywhere in its text, and `named` finds them there. So no record that stays names a
removed object, also in a section that this version of cregraph does not know. Files with names that no store gives do not
belong to it: they are neither listed nor removed.
"""

from __future__ import annotations

import contextlib
import os
import re
import stat
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from cregraph.digest import is_sha256
from cregraph.errors import CregraphError
from cregraph.store import Store
from cregraph.store.object_store import is_key

__all__ = ["Entry", "files", "folders", "measure", "named", "objects", "records", "sections", "trees"]

#: Folders of a store that hold no records and no trees.
_OTHER = frozenset(
    {"sha256", "quarantine", "partial", "locks", "tmp", "logs", "users", "repodata", "uv-cache"},
)
_HEX = re.compile(rb"(?<![0-9a-f])[0-9a-f]{64}(?![0-9a-f])")
#: The names that a store gives to the files of its plain folders.
_FILES = {
    "partial": re.compile(r"[0-9a-f]{64}"),
    "logs": re.compile(r".+-[0-9a-f]{12}\.log"),
    "quarantine": re.compile(r"[0-9a-f]{64}\.(?:[0-9a-f]{12}|unread)"),
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Entry:
    """An object, a record, a tree or a file of a store. `name` is its sha256, its key or its file name.

    `put` is when it was written or last linked to, `used` when it was last touched, in seconds by the file system's clock.
    """

    section: str
    name: str
    path: Path
    put: float
    used: float


def objects(store: Store) -> Iterator[Entry]:
    """Yield the objects, sorted."""
    return _entries("sha256", (path for path in _below(store.root / "sha256") if is_sha256(path.name)))


def sections(store: Store) -> tuple[str, ...]:
    """Return the names of all sections of records or trees."""
    return tuple(path.name for path in _sorted(store.root) if path.name not in _OTHER and path.is_dir() and path.name[0] != ".")


def records(store: Store, section: str) -> Iterator[Entry]:
    """Yield the records of a section, sorted."""
    found = (path for path in _below(store.root / section) if path.suffix == ".json" and path.is_file())
    return _entries(section, (path for path in found if is_key(section, path.stem)))


def trees(store: Store, section: str) -> Iterator[Entry]:
    """Yield the trees of a section, sorted."""
    found = (path for path in _below(store.root / section) if is_sha256(path.name))
    return _entries(section, (path for path in found if path.is_dir() and not path.is_symlink()))


def files(store: Store, folder: str) -> Iterator[Entry]:
    """Yield the files of `logs`, `partial` or `quarantine`, sorted."""
    found = (path for path in _sorted(store.root / folder) if _FILES[folder].fullmatch(path.name))
    return _entries(folder, (path for path in found if path.is_file()))


def folders(store: Store, *names: str) -> Iterator[Entry]:
    """Yield folders of the store that other programs manage, if they exist."""
    for name in names:
        yield from _entries(name, (path for path in (store.root / name,) if path.is_dir()))


def named(entry: Entry) -> frozenset[str]:
    """Return every sha256 in the text of a record, including keys."""
    try:
        return frozenset(found.decode() for found in _HEX.findall(entry.path.read_bytes()))
    except OSError:
        return frozenset()


def measure(entries: Iterable[Entry], *, freed: bool = False) -> tuple[int, int]:
    """Return number and bytes of `entries`; with `freed`, only bytes of files without names elsewhere.

    A file with several names counts once.
    """
    count = 0
    seen: dict[tuple[int, int], list[int]] = {}
    for entry in entries:
        count += 1
        for info in _infos(entry.path):
            one = seen.setdefault((info.st_dev, info.st_ino), [0, info.st_nlink, info.st_size])
            one[0] += 1
    return count, sum(size for found, links, size in seen.values() if not freed or found >= links)


def _infos(path: Path) -> Iterator[os.stat_result]:
    """Yield the status of a file, or of all files in a folder."""
    with contextlib.suppress(OSError):
        info = path.lstat()
        if not stat.S_ISDIR(info.st_mode):
            yield info
            return
        todo = [path]
        while todo:
            with os.scandir(todo.pop()) as found:
                for one in found:
                    if one.is_dir(follow_symlinks=False):
                        todo.append(Path(one.path))
                    else:
                        yield one.stat(follow_symlinks=False)


def _below(folder: Path) -> Iterator[Path]:
    """Yield the content of the two-digit folders in `folder`."""
    for part in _sorted(folder):
        if len(part.name) == 2:
            yield from (path for path in _sorted(part) if path.name.startswith(part.name))


def _sorted(folder: Path) -> list[Path]:
    """Return the sorted content of a folder, empty if it is absent.

    An unreadable folder is an error, because its content may be what keeps other entries.
    """
    try:
        return sorted(folder.iterdir())
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        raise CregraphError(
            f"`{folder}` of the store cannot be read: {error.strerror or error}",
            hint="run the command as the owner of the store, or check the disk. Nothing was removed",
        ) from None


def _entries(section: str, paths: Iterable[Path]) -> Iterator[Entry]:
    for path in paths:
        try:
            info = path.lstat()
        except OSError:
            continue
        put = max(info.st_mtime, info.st_ctime)
        yield Entry(section=section, name=path.name.removesuffix(".json"), path=path, put=put, used=max(put, info.st_atime))

"""The files of a vendor folder, and the rules of a kind for its part of the folder (`VendorRules`)."""

from __future__ import annotations

import contextlib
import os
import re
import threading
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, TypeVar

from cregraph.digest import Json
from cregraph.errors import CregraphError
from cregraph.image.model.tar_entry import ancestors
from cregraph.lock.pins import Artifact, Pin
from cregraph.store.atomic_file import holds, place_file

if TYPE_CHECKING:
    from cregraph.image.bases.base_image import BaseImage

__all__ = ["Tree", "VendorAccess", "VendorRules", "earlier", "put_files"]

T = TypeVar("T")

_AT_ONCE = 8
_PART = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._+~@,=!-]{0,250}")


@dataclass(frozen=True, kw_only=True, slots=True)
class VendorAccess:
    """Access to what locks pin: `fetch` returns a file with the verified bytes of an artifact, `image` a pinned image."""

    fetch: Callable[[Artifact], Path]
    image: Callable[[Artifact], BaseImage]


class VendorRules(Protocol):
    """The rules for the artifacts of a kind in a vendor folder. A module has these names (`Kind.PARTS`)."""

    #: Folders at the root of the vendor folder, each with patterns for the names of its index files.
    FOLDERS: Mapping[str, tuple[str, ...]]

    def vendor_path(self, artifact: Artifact) -> str:
        """Return the path below the vendor folder. Raise CregraphError for a name that the ecosystem does not allow."""

    def put(self, tree: Tree, files: Mapping[str, Artifact], access: VendorAccess) -> set[str]:
        """Write the artifacts to their paths. Return the paths of all files that they need."""

    def write_index(self, folder: Path, pins: Sequence[Pin]) -> None:
        """Write the index files. They list `pins`, and the files of other locks that are in the vendor folder."""

    def sources(self, folder: Path) -> Mapping[str, Json]:
        """Return the sections of `sources.yaml` that lead to the files."""


class Tree:
    """The files below `folder`. `size` is their total in bytes; `added` counts new ones.

    `on_file` is called with the path and size of each file, from any thread.
    """

    def __init__(self, folder: Path, on_file: Callable[[str, int], None]) -> None:
        self.folder = folder
        self.size = 0
        self.added = 0
        self._on_file = on_file
        self._guard = threading.Lock()

    def clear(self) -> None:
        """Remove temporary files of a killed run. Partial layers stay, because `put` continues them."""
        for path in self.folder.rglob(".*"):
            if path.name.endswith(".tmp") or (path.name.endswith(".partial") and path.parent.name != "sha256"):
                path.unlink()

    def put(self, path: str, artifact: Artifact, fetch: Callable[[Artifact], Path]) -> None:
        """Write the bytes of `artifact` to `path`, unless they are there. `fetch` returns a verified file."""
        target = self.at(path)
        if holds(target, artifact.sha256, artifact.size):
            self.counted(path, artifact.size, added=False)
            return
        place_file(fetch(artifact), target, artifact.sha256)
        self.counted(path, artifact.size, added=True)

    def at(self, path: str) -> Path:
        """Return `path` below the folder. Raise CregraphError for a name that leads elsewhere or is not portable."""
        if not all(_PART.fullmatch(part) for part in path.split("/")):
            raise CregraphError(
                f"`{path[:200]}` cannot be the path of a file in a vendor folder",
                hint="run `cregraph lock`: the lock was edited by hand, or the source has invalid file names",
            )
        return self.folder / path

    def counted(self, path: str, size: int, *, added: bool) -> None:
        with self._guard:
            self.size += size
            self.added += added
        self._on_file(path, size)

    def prune(self, keep: Collection[str], folders: Mapping[str, Sequence[str]]) -> int:
        """Remove files that are not in `keep`, then empty folders. Return the number of removed files.

        `folders` gives for each folder the patterns of its index files. They stay next to files that stay, and are not counted.
        """
        removed = 0
        used = {parent for path in keep for parent in ancestors(path)}
        for name, indexes in folders.items():
            for here, inner, files in os.walk(self.folder / name, topdown=False):
                for path in (Path(here, file) for file in files):
                    shown = path.relative_to(self.folder).as_posix()
                    is_index = any(fnmatch(path.name, pattern) for pattern in indexes)
                    if shown not in keep and not (is_index and shown.rpartition("/")[0] in used):
                        path.unlink()
                        removed += not is_index
                for empty in inner:
                    with contextlib.suppress(OSError):
                        Path(here, empty).rmdir()
        return removed


def put_files(tree: Tree, files: Mapping[str, Artifact], access: VendorAccess) -> set[str]:
    """Write each artifact to its path, some at a time. `VendorRules.put` of kinds whose artifacts are single files."""
    with ThreadPoolExecutor(max_workers=_AT_ONCE) as pool:
        for done in [pool.submit(tree.put, path, artifact, access.fetch) for path, artifact in sorted(files.items())]:
            done.result()
    return set(files)


def earlier(path: Path, read: Callable[[bytes], T], otherwise: T) -> T:
    """Return what `read` finds in a file that an earlier run wrote; `otherwise` if the file does not exist.

    Raises CregraphError if `read` does not understand the file.
    """
    import yaml

    try:
        return read(path.read_bytes())
    except FileNotFoundError:
        return otherwise
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError, yaml.YAMLError):
        raise CregraphError(
            f"`{path}` is not as `cregraph vendor` writes it", hint="remove it; the same command writes it again"
        ) from None
